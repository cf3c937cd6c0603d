//! What is known of a patched image: its recipe, what is stated of it, what is said of the old one.

use serde_json::{Value, json};

use crate::build_provenance::{PROVENANCE, said};
use crate::patch::{family, images, json_of, osv, run};
use crate::served::Served;
use crate::world::World;

/// Builds with the recipe in the provenance.
fn build_recorded(world: &World, name: &str, text: &str, context: &str) {
    let file = world.file("Recorded", text).display().to_string();
    let args = [
        "build",
        "-q",
        "--network",
        "none",
        "--provenance=mode=max",
        "-t",
        name,
    ];
    let more = ["--build-arg", "WORD=kept", "-f", &file, context];
    world.dhow(&[&args[..], &more].concat()).exits(0);
}

#[test]
fn an_image_whose_layers_cannot_follow_is_built_again_by_its_recorded_recipe() {
    let Some(world) = family() else { return };
    let folder = world.path("").display().to_string();
    // They changed a file of the package, so their layers cannot follow.
    // The stage has the name of an image that is patched before it.
    let made = "FROM middle AS base\nARG WORD\nRUN cp /usr/lib/libssl3.so /usr/lib/copy.so && chmod 600 /usr/lib/libssl3.so && \
                echo $WORD > /word\nFROM base\nCMD [\"cat\", \"/usr/lib/copy.so\", \"/word\"]\n";
    build_recorded(&world, "maker", made, &folder);
    let needs =
        "FROM middle\nARG WORD\nCOPY own /own\nRUN chmod 600 /usr/lib/libssl3.so && echo $WORD > /word\n";
    build_recorded(&world, "needs", needs, &folder);
    world.file("Dockerfile", "FROM maker\nENV TOP=1\n");
    world
        .dhow(&["build", "-q", "--network", "none", "-t", "top", &folder])
        .exits(0);
    let before = images(&world);
    world
        .say("patch --cascade --rebuild never --dry-run CVE-2026-1")
        .exits(0);
    // What is given has to do.
    let wrong = world.file("Wrong", "FROM middle\nUSER 7\n").display().to_string();
    for (recipe, says) in [
        (format!("needs={wrong}"), "built again it has another user"),
        (
            format!("needs={folder}/Recorded"),
            "\"COPY own /own\" needs the build's context",
        ),
        (wrong.clone(), "of which image"),
        (format!("busybox={wrong}"), "nothing is to be mended in busybox"),
    ] {
        world
            .dhow(&["patch", "--cascade", "--recipe", &recipe, "CVE-2026-1"])
            .one_error(1)
            .says(says);
    }
    assert_eq!(images(&world), before);
    let context = format!("needs={folder}");
    let args = [
        "patch",
        "--cascade",
        "--context",
        &context,
        "--format",
        "json",
        "CVE-2026-1",
    ];
    let done = json_of(&world, &args);
    let of = |image: &str| {
        let mut patched = done["Patched"].as_array().unwrap().iter();
        patched.find(|one| one["Image"] == image).unwrap().clone()
    };
    assert_eq!(of("maker:latest")["How"], "rebuilt", "{done}");
    assert!(
        of("maker:latest")["Conflicts"]
            .to_string()
            .contains("/usr/lib/libssl3.so")
    );
    assert_eq!(of("needs:latest")["How"], "rebuilt");
    assert_eq!(of("top:latest")["How"], "followed");
    assert_eq!(of("pinned:latest")["How"], "upgraded above the old base");
    assert!(
        of("pinned:latest")["Notes"]
            .to_string()
            .contains("not built again: it has no provenance")
    );
    let ran = world.say("run --rm --network none top").exits(0);
    assert_eq!(ran.stdout, "libssl3 3.0.18-1~deb12u1\nkept\n");
    let ran = world.say("run --rm --network none needs cat /own /word").exits(0);
    assert_eq!(ran.stdout, "mine\nkept\n");
    let tree = world.say("tree top").exits(0).stdout;
    assert!(
        tree.contains("── middle:latest") && tree.contains("── maker:latest"),
        "{tree}"
    );
    world.clean();
}

#[test]
fn what_can_be_built_again_is_when_that_is_asked_for_and_can_be_the_next_time() {
    let Some(world) = family() else { return };
    let served = Served::start(&world.path("registry"));
    let name = |image: &str| served.name(&format!("house/{image}:1"));
    for image in ["base", "middle", "app"] {
        world.dhow(&["tag", image, &name(image)]).exits(0);
    }
    for image in ["base", "middle", "app", "twin", "pinned"] {
        world.dhow(&["rmi", image]).exits(0);
    }
    let easy = name("easy");
    let text = format!("FROM {}\nARG WORD\nRUN echo $WORD > /word\n", name("middle"));
    build_recorded(&world, &easy, &text, &world.path("").display().to_string());
    let patch = [
        "patch",
        "--cascade",
        "--push",
        "--rebuild",
        "always",
        "--format",
        "json",
        "CVE-2026-1",
    ];
    let done = json_of(&world, &patch);
    let of = |image: &str| {
        let mut patched = done["Patched"].as_array().unwrap().iter();
        patched.find(|one| one["Image"] == image).unwrap().clone()
    };
    assert_eq!(of(&easy)["How"], "rebuilt", "{done}");
    assert_eq!(of(&easy)["Conflicts"], json!([]));
    let app = of(&name("app"));
    assert_eq!(app["How"], "followed");
    assert_eq!(app["Notes"][0], "not built again: it has no provenance");
    world
        .dhow(&[
            "run",
            "--rm",
            "--network",
            "none",
            &easy,
            "cat",
            "/word",
            "/usr/lib/libssl3.so",
        ])
        .exits(0)
        .prints("kept\nlibssl3 3.0.18-1~deb12u1\n");
    let layout = world.path("layout");
    let (from, to) = (format!("docker://{easy}"), format!("oci:{}", layout.display()));
    world.dhow(&["copy", "--all", &from, &to]).exits(0);
    let (_, image, statement) = said(&layout, PROVENANCE);
    let subject = statement["subject"][0]["digest"]["sha256"].as_str().unwrap();
    assert_eq!(image["digest"], format!("sha256:{subject}"));
    let definition = &statement["predicate"]["buildDefinition"];
    let recipe = &definition["internalParameters"]["recipe"];
    assert_eq!(recipe["request"]["args"], json!({"build-arg:WORD": "kept"}));
    assert!(
        recipe["dockerfile"].as_str().unwrap().len() >= text.len(),
        "{recipe}"
    );
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    let names: Vec<&str> = dependencies
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[..2], ["old image", "base"], "{definition}");
    let base = dependencies[1]["uri"].as_str().unwrap();
    assert!(base.contains("/house/middle@1"), "{base}");
    world.clean();
}

/// What is stated of an image in a registry, signed by `me`.
fn stated(world: &World, image: &str, kind: &str) -> Value {
    let key = world.path("me.pub").display().to_string();
    let said = json_of(
        world,
        &["verify", "--key", &key, "--type", kind, "--format", "json", image],
    );
    assert_eq!(said["Signatures"].as_array().unwrap().len(), 1, "{said}");
    said["Signatures"][0]["Predicate"].clone()
}

fn assert_provenance(world: &World, base: &str, middle: &str, old: &str) {
    let of = |image: &str| stated(world, image, "slsaprovenance1");
    let provenance = of(base);
    let definition = &provenance["buildDefinition"];
    assert_eq!(
        definition["externalParameters"],
        json!({"vulnerabilities": ["CVE-2026-1"], "smoke": "true"})
    );
    assert_eq!(definition["internalParameters"]["action"], "upgrade");
    let builder = provenance["runDetails"]["builder"]["id"].as_str().unwrap();
    assert!(builder.ends_with("#patch/v1"), "{builder}");
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    assert_eq!(dependencies.len(), 2, "{provenance}");
    assert_eq!(dependencies[0]["name"], "old image");
    assert_eq!(
        format!("sha256:{}", dependencies[0]["digest"]["sha256"].as_str().unwrap()),
        old
    );
    assert_eq!(
        dependencies[1],
        json!({
            "name": "package",
            "uri": "pkg:deb/debian/libssl3@3.0.18-1~deb12u1?arch=amd64&distro=debian-12",
            "digest": {"sha256": format!("{:064}", 7)},
            "downloadLocation": "http://deb.example/libssl3.deb",
        })
    );
    let followed = of(middle);
    let definition = &followed["buildDefinition"];
    assert_eq!(definition["internalParameters"]["action"], "follow");
    assert_eq!(definition["internalParameters"]["mergedLayers"], 1);
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    let names: Vec<&str> = dependencies
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["old image", "new base"]);
}

#[test]
fn a_patch_states_where_its_images_come_from_and_what_was_mended() {
    let Some(world) = family() else { return };
    let served = Served::start(&world.path("registry"));
    let name = |image: &str| served.name(&format!("house/{image}:1"));
    for image in ["base", "middle"] {
        world.dhow(&["tag", image, &name(image)]).exits(0);
        world.dhow(&["push", "-q", &name(image)]).exits(0);
        world.dhow(&["rmi", image]).exits(0);
    }
    for image in ["app", "twin", "pinned"] {
        world.dhow(&["rmi", image]).exits(0);
    }
    let (base, middle) = (name("base"), name("middle"));
    let old = world.inspect(&base, "{{index .RepoDigests 0}}");
    let old = old.split_once('@').unwrap().1.to_owned();
    let (key, public) = (world.path("me"), world.path("me.pub").display().to_string());
    world
        .dhow(&["sign", "--generate-key", &key.display().to_string()])
        .exits(0);
    let key = world.path("me.key").display().to_string();
    let patch = [
        "patch",
        "--cascade",
        "--smoke",
        "true",
        "--key",
        &key,
        "CVE-2026-1",
    ];
    world.dhow(&patch).exits(1).says("--push");
    let done = json_of(&world, &[&patch[..], &["--push", "--format", "json"]].concat());
    for one in done["Patched"].as_array().unwrap() {
        assert_eq!(
            one["Fixed"],
            json!([{"ID": "CVE-2026-1", "Package": "libssl3", "Version": "3.0.18-1~deb12u1"}])
        );
    }
    assert_provenance(&world, &base, &middle, &old);
    let tried = stated(&world, &middle, "https://in-toto.io/attestation/test-result/v0.1");
    assert_eq!(tried["result"], "PASSED");
    let passed = tried["passedTests"].to_string();
    for test in ["no package lost", "no new finding", "\\\"true\\\" succeeded"] {
        assert!(passed.contains(test), "{passed}");
    }
    assert_eq!(tried["configuration"][0]["annotations"]["advisories"], 4);
    // They are images that somebody stands for, and go along unsigned, too.
    world.dhow(&["verify", "--key", &public, &base]).exits(0);
    assert_vex_counts(&base, &public);
    world.clean();
}

/// Somebody whose data calls every libssl3 vulnerable believes what is attested, and nothing that is not.
fn assert_vex_counts(base: &str, public: &str) {
    let Some(theirs) = World::new() else { return };
    let record = json!([
        osv("CVE-2026-1", "libssl3", None),
        osv("CVE-2026-3", "zlib", Some("1.3"))
    ]);
    theirs.file("osv.json", record.to_string());
    let file = theirs.path("osv.json").display().to_string();
    theirs.dhow(&["scan", "import", &file]).exits(0);
    theirs.dhow(&["pull", "-q", base]).exits(0);
    let statements = json_of(&theirs, &["image", "inspect", base]);
    assert_eq!(
        statements[0]["Manifests"].as_array().unwrap().len(),
        1,
        "{statements}"
    );
    let found = theirs.dhow(&["scan", base]).exits(0).stdout;
    assert!(
        found.contains("CVE-2026-1") && found.contains("CVE-2026-3"),
        "{found}"
    );
    let found = theirs
        .dhow(&["scan", "--vex", "attested", "--key", public, base])
        .exits(0)
        .stdout;
    assert!(
        !found.contains("CVE-2026-1") && found.contains("CVE-2026-3"),
        "{found}"
    );
    theirs
        .dhow(&[
            "sign",
            "--generate-key",
            &theirs.path("they").display().to_string(),
        ])
        .exits(0);
    let other = theirs.path("they.pub").display().to_string();
    let found = theirs
        .dhow(&["scan", "--vex", "attested", "--key", &other, base])
        .exits(0)
        .stdout;
    assert!(found.contains("CVE-2026-1"), "{found}");
    theirs.clean();
}

#[test]
fn what_a_patch_had_left_to_say_when_it_was_stopped_is_said_by_the_next_command() {
    let Some(world) = family() else { return };
    let (statements, left) = (world.path("r/lifecycle"), world.path("r/patching"));
    let records = || -> Vec<_> { std::fs::read_dir(&left).unwrap().flatten().collect() };
    // What is to be said cannot be written down: then nothing happens, and of the new images nothing stays.
    let before = images(&world);
    std::fs::write(&left, "").unwrap();
    world.say("patch CVE-2026-1").one_error(1).says("patching");
    std::fs::remove_file(&left).unwrap();
    assert_eq!(images(&world), before);
    // Names have moved, and nothing can be said of the old images.
    std::fs::write(&statements, "").unwrap();
    world.say("patch CVE-2026-1").one_error(1).says("lifecycle");
    std::fs::remove_file(&statements).unwrap();
    let old = images(&world);
    let old = old.lines().find(|line| line.contains("-superseded-")).unwrap();
    let old = old.split(' ').next().unwrap().to_owned();
    let record = std::fs::read(records()[0].path()).unwrap();
    world.dhow(&run(&old)).exits(0).says("use base:latest instead");
    assert_eq!(records().len(), 0);
    // Where names did not move there is nothing to say.
    std::fs::remove_dir_all(&statements).unwrap();
    world.dhow(&["rmi", &old]).exits(0);
    std::fs::write(left.join("1-1"), record).unwrap();
    world.say("tree").exits(0);
    assert_eq!(records().len(), 0);
    assert!(!statements.exists());
    // One that is damaged is told, and no image is lost by it.
    std::fs::write(left.join("1-2"), "{").unwrap();
    world.say("tree").one_error(1).says("patching/1-2");
    world.clean();
}
