//! `tree`: who derives from whom, here and in a registry, and who took files of whom.

use crate::served::Served;
use crate::world::World;

#[test]
fn a_tree_shows_also_what_was_copied_and_the_images_of_a_registry() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = Served::start(&world.path("registry"));
    let [base, tools, app] = ["p/base:1", "p/tools:1", "p/app:1"].map(|name| served.name(name));
    let build = |name: &str, text: String| {
        world.file("Dockerfile", text);
        let folder = world.path("").display().to_string();
        let words = [
            "build",
            "-q",
            "--network",
            "none",
            "--provenance=mode=min",
            "-t",
            name,
            &folder,
        ];
        world.dhow(&words).exits(0);
    };
    build(&base, "FROM busybox\nRUN echo > /base\n".to_owned());
    build(&tools, "FROM busybox\nRUN echo > /tool\n".to_owned());
    build(&app, format!("FROM {base}\nCOPY --from={tools} /tool /tool\n"));
    let tree = |words: &[&str]| world.dhow(&[&["tree"], words].concat()).exits(0).stdout;
    let text = tree(&[]);
    let line = format!("│   └── {app} (+1 layer, with files of {tools})\n");
    assert!(text.contains(&line), "{text}");
    let json: serde_json::Value = serde_json::from_str(&tree(&["--format", "json", &app])).unwrap();
    assert_eq!(
        json[0]["Children"][0]["Children"][0]["FilesOf"],
        serde_json::json!([tools])
    );
    assert!(tree(&["--format", "dot"]).contains("[style=dashed]"));
    let svg = tree(&["--format", "svg"]);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches("<rect").count(), 4, "{svg}");
    assert_eq!(svg.matches("class=\"copied\"").count(), 1, "{svg}");
    // What a registry has, without anything of it here.
    for name in [&base, &tools, &app] {
        world.dhow(&["push", "-q", name]).exits(0);
    }
    world
        .dhow(&["tag", "busybox", &served.name("other/busybox:1")])
        .exits(0);
    world
        .dhow(&["push", "-q", &served.name("other/busybox:1")])
        .exits(0);
    let place = served.name("p");
    let Some(theirs) = World::new() else { return };
    let theirs_tree = |words: &[&str]| theirs.dhow(&[&["tree", "--registry"], words].concat());
    let text = theirs_tree(&[&place]).exits(0).stdout;
    assert_eq!(
        text,
        format!("{base} (2 layers)\n└── {app} (+1 layer)\n{tools} (2 layers)\n")
    );
    let registry = place.split('/').next().unwrap();
    let text = theirs_tree(&[registry]).exits(0).stdout;
    assert!(
        text.starts_with(&format!(
            "{} (1 layer)\n├── {base}",
            served.name("other/busybox:1")
        )),
        "{text}"
    );
    let text = theirs_tree(&[registry, &tools]).exits(0).stdout;
    assert!(
        text.ends_with(&format!("└── {tools} (+1 layer)\n")) && !text.contains(&app),
        "{text}"
    );
    theirs_tree(&["nohost"]).one_error(1).says("is no registry");
    theirs_tree(&[registry, "absent"])
        .one_error(1)
        .says("there is no image absent");
    theirs.clean();
    world.clean();
}
