//! `auto-update`: a container of a systemd unit follows its image. A stand-in for `systemctl` starts it anew.

use std::os::unix::fs::PermissionsExt as _;

use crate::served::Served;
use crate::world::{Ran, World, binary, finish};

/// What runs the container `web` of `web.service` anew, as its unit would; the file `fail` makes it fail once.
pub(crate) fn systemctl(world: &World, image: &str, policy: &str) {
    let folder = world.path("bin");
    let (program, root, dir) = (
        binary().display().to_string(),
        world.root().display(),
        folder.display(),
    );
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {dir}/log\nif [ -e {dir}/fail ]; then rm {dir}/fail; echo no such luck >&2; exit 1; fi\n\
         {program} --root {root} rm -f -t 0 web\n\
         PODMAN_SYSTEMD_UNIT=web.service {program} --root {root} run -d --network none --name web \
         --label io.containers.autoupdate={policy} {image} sleep 300\n",
    );
    let path = world.file("bin/systemctl", script);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn update(world: &World, flags: &str) -> Ran {
    let line = format!("auto-update {flags}");
    let mut command = world.command(&line.split_whitespace().collect::<Vec<_>>());
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", world.path("bin").display()));
    finish(command, Vec::new())
}

/// Starts `web` the first time.
pub(crate) fn begin(world: &World) {
    let mut command = std::process::Command::new("sh");
    command.arg(world.path("bin/systemctl"));
    finish(command, Vec::new()).ok();
    std::fs::remove_file(world.path("bin/log")).unwrap();
}

pub(crate) const SHORT: &str = "--format {{.Unit}}={{.Policy}}={{.Updated}}";

#[test]
fn a_container_follows_its_image_and_goes_back_when_the_unit_does_not_start() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.dhow(&["tag", "busybox", "app:1"]).ok();
    systemctl(&world, "app:1", "local");
    begin(&world);
    assert_eq!(update(&world, SHORT).ok(), "web.service=local=false");
    let image = || world.dhow(&["inspect", "-f", "{{.Image}}", "web"]).ok();
    let named = || world.inspect("app:1", "{{.Id}}");
    world.dhow(&["commit", "web", "app:1"]).ok();
    let before = image();
    assert_ne!(before, named());
    let pending = update(&world, &format!("--dry-run {SHORT}"));
    assert_eq!(pending.ok(), "web.service=local=pending");
    assert!(!world.path("bin/log").exists());
    let table = update(&world, "").ok();
    assert!(table.starts_with("UNIT "), "{table}");
    assert!(table.contains(" (web)") && table.ends_with(" true"), "{table}");
    let log = std::fs::read_to_string(world.path("bin/log")).unwrap();
    assert!(log.ends_with("restart web.service\n"), "{log}");
    assert_eq!(image(), named());
    assert_eq!(update(&world, SHORT).ok(), "web.service=local=false");
    // A unit that does not start with the new image starts with the old one.
    let good = image();
    world.dhow(&["commit", "web", "app:1"]).ok();
    world.file("bin/fail", "");
    assert_eq!(update(&world, SHORT).ok(), "web.service=local=rolled back");
    assert_eq!((image(), named()), (good.clone(), good));
    world.dhow(&["commit", "web", "app:1"]).ok();
    world.file("bin/fail", "");
    let failed = update(&world, &format!("--rollback=false {SHORT}")).exits(125);
    assert!(failed.stdout.contains("=failed"), "{failed:?}");
    failed.says("restarting unit web.service during update: no such luck");
    world.dhow(&["rm", "-f", "-t", "0", "web"]).ok();
}

#[test]
fn an_image_of_a_registry_is_pulled_when_it_is_another_there() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = Served::start(&world.path("registry"));
    let name = served.name("app:1");
    world.dhow(&["tag", "busybox", &name]).ok();
    world.dhow(&["push", &name]).ok();
    systemctl(&world, &name, "registry");
    begin(&world);
    assert_eq!(update(&world, SHORT).ok(), "web.service=registry=false");
    let other = World::with_busybox().unwrap();
    other
        .dhow(&[
            "create",
            "--name",
            "new",
            "--network",
            "none",
            "busybox",
            "sleep",
            "301",
        ])
        .ok();
    other.dhow(&["commit", "-m", "news", "new", &name]).ok();
    other.dhow(&["push", &name]).ok();
    let pending = update(&world, &format!("--dry-run {SHORT}"));
    assert_eq!(pending.ok(), "web.service=registry=pending");
    assert_eq!(update(&world, SHORT).ok(), "web.service=registry=true");
    assert_eq!(world.inspect(&name, "{{.Comment}}"), "news");
    assert_eq!(update(&world, SHORT).ok(), "web.service=registry=false");
    world.dhow(&["rm", "-f", "-t", "0", "web"]).ok();
}

#[test]
fn who_has_no_unit_or_a_word_that_is_none_is_told_so() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let run = |label: &str| {
        let label = format!("io.containers.autoupdate={label}");
        world
            .dhow(&[
                "run",
                "-d",
                "--rm",
                "--network",
                "none",
                "--label",
                &label,
                "busybox",
                "sleep",
                "300",
            ])
            .ok()
    };
    let id = run("local");
    update(&world, "").exits(125).says(&format!(
        "auto-updating container \"{id}\": no PODMAN_SYSTEMD_UNIT label found"
    ));
    world.dhow(&["rm", "-f", "-t", "0", &id]).ok();
    let id = run("sometimes");
    update(&world, "")
        .exits(125)
        .says("invalid auto-update policy \"sometimes\"");
    world.dhow(&["rm", "-f", "-t", "0", &id]).ok();
    let id = run("disabled");
    assert_eq!(update(&world, SHORT).ok(), "");
    world.dhow(&["rm", "-f", "-t", "0", &id]).ok();
}

#[test]
fn a_container_has_a_unit_that_starts_it_and_one_that_makes_it_anew() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .dhow(&[
            "create",
            "--name",
            "web",
            "--restart",
            "always",
            "-it",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "true",
            "$x",
            "5%",
        ])
        .ok();
    let generate = |line: &str| {
        let line = format!("generate systemd {line}");
        let mut command = world.command(&line.split_whitespace().collect::<Vec<_>>());
        command.env("PODMAN", "/usr/bin/dhow").current_dir(world.path(""));
        finish(command, Vec::new())
    };
    let root = world.root().display();
    let text = generate("--name web -t 5 --wants a.service,b.service -e A=b --restart-sec 3").ok();
    for line in [
        "# container-web.service".to_owned(),
        "# User-defined dependencies\nWants=a.service b.service".to_owned(),
        "Environment=PODMAN_SYSTEMD_UNIT=%n\nEnvironment=A=b\nRestart=on-failure\nRestartSec=3\nTimeoutStopSec=65".to_owned(),
        format!("ExecStart=/usr/bin/dhow --root {root} start --attach web"),
        format!("ExecStop=/usr/bin/dhow --root {root} stop -t 5 web"),
        "[Install]\nWantedBy=default.target".to_owned(),
    ] {
        assert!(text.contains(&format!("{line}\n")) || text.ends_with(&line), "{line}: {text}");
    }
    let text = generate("--new --name --container-prefix con --separator _ --no-header web").ok();
    let start = format!(
        "ExecStart=/usr/bin/dhow --root {root} run --cidfile=%t/%n.ctr-id --cgroups=no-conmon --rm --sdnotify=conmon -d --replace \
         --name web -i -t --network none busybox sh -c true $$x 5%%\n"
    );
    assert!(text.starts_with("# con_web.service\n\n[Unit]\n"), "{text}");
    assert!(
        text.contains(&start) && text.contains("\nRestart=always\n"),
        "{text}"
    );
    let file = generate("--files --name --restart-policy no web").ok();
    assert!(file.ends_with("/container-web.service"), "{file}");
    assert!(std::fs::read_to_string(file).unwrap().contains("\nRestart=no\n"));
    generate("--restart-policy bogus web").exits(125);
    generate("-e A web").exits(125).says("invalid variable");
    generate("absent").says("absent");
    // What the unit runs is a command of this program.
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/dhow "))
        .unwrap();
    let mut command = std::process::Command::new("sh");
    let line = line
        .replace("%t/%n", &world.path("it").display().to_string())
        .replace("%%", "%");
    command.arg("-c").arg(format!("{} {line}", binary().display()));
    finish(command, Vec::new()).ok();
    assert!(world.path("it.ctr-id").exists());
    world.dhow(&["rm", "-f", "-t", "0", "web"]).ok();
}
