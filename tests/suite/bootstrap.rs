//! A base image from the packages of the host's own mirror. The only module that uses the network.

use std::path::Path;

use crate::world::{World, binary, eventually, program};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whether this host has a mirror of Debian 12 that answers; if not, says what is left out.
fn mirror(world: &World) -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.contains("VERSION_CODENAME=bookworm") {
        eprintln!("skipped: the package sources of this host are not those of Debian 12");
        return false;
    }
    let ran = world.dhow(&["bootstrap", "--help"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    Path::new(KEYRING).exists() && program("gpgv")
}

#[test]
fn a_debian_base_image_is_made_of_signed_packages_and_always_the_same() {
    let Some(world) = World::new() else { return };
    if !mirror(&world) {
        return;
    }
    let first = long(&world, &["bootstrap", "debian:bookworm-slim"]);
    let id = world.inspect("debian:bookworm-slim", "{{.Id}}");
    assert!(
        first.contains("debian:bookworm-slim") || first.contains(&id),
        "{first}"
    );
    let script = "cat /etc/debian_version; dpkg --audit; dpkg-query -W apt | cut -f 1; ls /var/lib/apt/lists /var/cache/apt/archives | grep -c deb";
    let ran = world.dhow(&[
        "run",
        "--rm",
        "--network",
        "none",
        "debian:bookworm-slim",
        "sh",
        "-c",
        script,
    ]);
    assert!(
        ran.stdout.starts_with("12.") && ran.stdout.contains("\napt\n"),
        "{ran:?}"
    );
    world.dhow(&["tag", "debian:bookworm-slim", "first:1"]).ok();
    long(&world, &["bootstrap", "debian:bookworm-slim"]);
    assert_eq!(
        world.inspect("debian:bookworm-slim", "{{.Id}}"),
        id,
        "the same input gives the same image"
    );
    world.clean();

    // A keyring of somebody else: refused, and nothing is made.
    let other = crate::world::names(Path::new("/usr/share/keyrings"))
        .into_iter()
        .find(|name| name.ends_with("removed-keys.gpg"))
        .map(|name| format!("/usr/share/keyrings/{name}"));
    let Some(other) = other else { return };
    let ran = unsigned(
        &world,
        &[
            "bootstrap",
            "--keyring",
            &other,
            "-t",
            "wrong:1",
            "debian:bookworm-slim",
        ],
    );
    assert_eq!(ran.0, 1, "{}", ran.1);
    assert!(
        ran.1.to_lowercase().contains("signature") || ran.1.to_lowercase().contains("key"),
        "{}",
        ran.1
    );
    world.say("image inspect wrong:1").exits(1);
    let ran = unsigned(
        &world,
        &[
            "bootstrap",
            "--insecure",
            "--keyring",
            &other,
            "-t",
            "loud:1",
            "debian:bookworm-slim",
        ],
    );
    assert_eq!(ran.0, 0, "{}", ran.1);
    assert!(
        ran.1.contains("WARNING: NOT VERIFIED"),
        "it says so loudly: {}",
        ran.1
    );
    world.clean();
}

/// Runs to its end without the limit of other commands: it downloads.
fn long(world: &World, args: &[&str]) -> String {
    let (code, said) = unsigned(world, args);
    assert_eq!(code, 0, "{said}");
    said
}

fn unsigned(world: &World, args: &[&str]) -> (i32, String) {
    let (out, err) = (world.path("out"), world.path("err"));
    let mut command = std::process::Command::new(binary());
    command.arg("--root").arg(world.root()).args(args);
    command.stdin(std::process::Stdio::null());
    command
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let mut code = None;
    for _ in 0..4 {
        code = code.or_else(|| crate::world::wait(&mut child, crate::world::PATIENCE));
    }
    drop(child.kill());
    eventually("it is gone", || child.try_wait().unwrap().is_some());
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    (
        code.expect("an end within four minutes"),
        format!("{}{}", text(&out), text(&err)),
    )
}

#[test]
fn an_image_of_packages_alone_has_what_they_need_and_no_shell() {
    let Some(world) = World::new() else { return };
    if !mirror(&world) {
        return;
    }
    let list = world.file("list", "debian:bookworm\n# for a program that speaks TLS\nca-certificates -openssl\ntzdata\nlibc6\nbusybox\n");
    let args = [
        "build",
        "--from-packages",
        &list.display().to_string(),
        "-t",
        "bare:1",
    ];
    long(&world, &args);
    let run = |args: &[&str]| {
        let mut words = vec!["run", "--rm", "--network", "none", "bare:1"];
        words.extend(args);
        world.dhow(&words)
    };
    let busybox = [
        "/bin/busybox",
        "ls",
        "/bin/sh",
        "/usr/bin/apt",
        "/usr/bin/dpkg",
        "/usr/bin/perl",
        "/usr/bin/openssl",
    ];
    let ran = run(&busybox);
    assert_eq!(ran.stderr.matches("No such file").count(), 5, "{ran:?}");
    let certificates = run(&[
        "/bin/busybox",
        "grep",
        "-c",
        "BEGIN CERTIFICATE",
        "/etc/ssl/certs/ca-certificates.crt",
    ])
    .ok();
    assert!(certificates.parse::<u32>().unwrap() > 50, "{certificates}");
    let users = run(&["/bin/busybox", "cat", "/etc/passwd"]).ok();
    assert!(users.contains("nonroot:x:65532"), "{users}");
    let status = run(&[
        "/bin/busybox",
        "grep",
        "-c",
        "install ok installed",
        "/var/lib/dpkg/status",
    ])
    .ok();
    assert!(
        status.parse::<u32>().unwrap() >= 5,
        "a scanner finds the packages: {status}"
    );
    assert!(
        run(&["/bin/busybox", "cat", "/usr/share/zoneinfo/Europe/Berlin"])
            .exits(0)
            .bytes
            .starts_with(b"TZif")
    );
    let id = world.inspect("bare:1", "{{.Id}}");
    long(&world, &args);
    assert_eq!(
        world.inspect("bare:1", "{{.Id}}"),
        id,
        "the same packages give the same image"
    );
    world
        .dhow(&["build", "--from-packages", "/no/such", "-t", "x"])
        .one_error(1)
        .says("/no/such");
    world
        .feed(&["build", "--from-packages", "-", "-t", "x"], "debian:bookworm\n")
        .one_error(1)
        .says("no package");
    world.dhow(&["build"]).exits(1);
    world.clean();
}
