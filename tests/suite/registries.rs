//! Files about registries, credential helpers, and the verbs that leave the store alone: copy, search, manifest.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use dhow_testkit::{Auth, FakeRegistry, Layer, TinyImage};

use crate::samples::busybox_tar;
use crate::served::Served;
use crate::world::{Ran, World, finish};

fn with_image() -> (FakeRegistry, TinyImage) {
    let registry = FakeRegistry::start();
    let image = TinyImage::oci(vec![Layer::gzip(busybox_tar())]);
    registry.put_image("box", "1", &image);
    (registry, image)
}

fn run(world: &World, args: &[&str], change: impl FnOnce(&mut Command)) -> Ran {
    let mut command = world.command(args);
    change(&mut command);
    finish(command, Vec::new())
}

#[test]
fn a_pull_asks_the_mirror_of_registries_conf_and_info_shows_it() {
    let Some(world) = World::new() else { return };
    let (mirror, image) = with_image();
    let text = format!(
        "[[registry]]\nprefix = \"far.example/team\"\nlocation = \"gone.example/x\"\n[[registry.mirror]]\nlocation = \"{}\"\n[[registry]]\nlocation = \"bad.example\"\nblocked = true\n",
        mirror.host()
    );
    let conf = world.file("registries.conf", text);
    let with = |command: &mut Command| {
        command.env("CONTAINERS_REGISTRIES_CONF", &conf);
    };
    run(&world, &["pull", "far.example/team/box:1"], with).exits(0);
    assert_eq!(
        world.inspect("far.example/team/box:1", "{{.Id}}"),
        image.id().to_string()
    );
    let blocked = run(&world, &["pull", "bad.example/x:1"], with).one_error(1);
    blocked.says("blocked in").says("registries.conf");
    let info = run(&world, &["info"], with).exits(0);
    let line = format!("far.example/team -> gone.example/x, mirrors: {}", mirror.host());
    info.prints(&line)
        .prints("bad.example (blocked)")
        .prints("127.0.0.0/8");
    let json = run(&world, &["info", "--format", "{{json .RegistryConfig}}"], with).ok();
    assert!(
        json.contains("\"Rules\":[\"far.example/team") && json.contains("\"Error\":null"),
        "{json}"
    );
    world.file("registries.conf", "[[registry]\n");
    run(&world, &["pull", "x.example/y:1"], with)
        .one_error(1)
        .says("registries.conf: line 1");
    run(&world, &["info"], with)
        .exits(0)
        .prints("Registry Configuration: read ");
}

#[test]
fn a_helper_keeps_what_login_gives_it_until_logout() {
    let Some(world) = World::new() else { return };
    let (registry, _) = with_image();
    registry.require(Auth::Basic("me", "s3cret"));
    let helper = world.file(
        "bin/docker-credential-folder",
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\ncase $1 in\nstore) cat > kept ;;\nget) cat > asked; [ -s kept ] && sed 's/.*\"Username\":\"\\([^\"]*\\)\".*\"Secret\":\"\\([^\"]*\\)\".*/{\"Username\":\"\\1\",\"Secret\":\"\\2\"}/' kept || { echo 'credentials not found in native keychain'; exit 1; } ;;\nerase) rm -f kept ;;\nesac\n",
    );
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = world.file("docker/config.json", "{\"credsStore\":\"folder\"}");
    let with = |command: &mut Command| {
        let path = format!("{}:/usr/bin:/bin", helper.parent().unwrap().display());
        command
            .env("DOCKER_CONFIG", config.parent().unwrap())
            .env("PATH", path);
    };
    let name = registry.name("box:1");
    run(&world, &["pull", &name], with).one_error(1);
    let mut login = world.command(&["login", "-u", "me", "--password-stdin", &registry.host()]);
    with(&mut login);
    let said = finish(login, b"s3cret\n".to_vec())
        .exits(0)
        .prints("Login Succeeded");
    assert!(!said.stderr.contains("unencrypted"), "{said:?}");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        !text.contains("s3cret") && text.contains(&registry.host()),
        "{text}"
    );
    run(&world, &["pull", &name], with).exits(0);
    run(&world, &["logout", &registry.host()], with)
        .exits(0)
        .prints("Removing login credentials");
    assert!(!helper.with_file_name("kept").exists());
    world.dhow(&["rmi", &name]).ok();
    run(&world, &["pull", &name], with).one_error(1);
    run(&world, &["logout", &registry.host()], with)
        .exits(0)
        .prints("Not logged in");
}

#[test]
fn logout_of_all_forgets_what_the_file_has_and_what_helpers_keep() {
    let world = World::anyone();
    let helper = world.file(
        "bin/docker-credential-folder",
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\ncase $1 in\nget) cat > /dev/null; echo '{\"Username\":\"me\",\"Secret\":\"s\"}' ;;\nerase) cat >> erased; echo >> erased ;;\nesac\n",
    );
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = world.file(
        "docker/config.json",
        r#"{"auths": {"a.example": {"auth": "bWU6c2VjcmV0"}, "b.example:5000": {}},
            "credHelpers": {"b.example:5000": "folder", "c.example": "folder"}, "detachKeys": "ctrl-x"}"#,
    );
    let with = |command: &mut Command| {
        let path = format!("{}:/usr/bin:/bin", helper.parent().unwrap().display());
        command
            .env("DOCKER_CONFIG", config.parent().unwrap())
            .env("PATH", path);
    };
    run(&world, &["logout", "--all", "a.example"], with).exits_any();
    assert!(std::fs::read_to_string(&config).unwrap().contains("bWU6c2VjcmV0"));
    run(&world, &["logout", "--all"], with)
        .exits(0)
        .prints("Removed login credentials for all registries");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(!text.contains("auth\""), "{text}");
    assert!(text.contains("ctrl-x") && text.contains("credHelpers"), "{text}");
    let erased = std::fs::read_to_string(helper.with_file_name("erased")).unwrap();
    assert_eq!(
        erased.lines().collect::<Vec<_>>(),
        ["b.example:5000", "c.example"]
    );
    run(&world, &["logout", "-a"], with).exits(0);
}

#[test]
fn an_image_is_copied_through_layout_and_archives_without_a_store() {
    let world = World::anyone();
    let (from, image) = with_image();
    let served = Served::start(&world.path("registry"));
    let path = |name: &str| world.path(name).display().to_string();
    let steps = [
        format!("docker://{}", from.name("box:1")),
        format!("oci:{}:one", path("layout")),
        format!("oci-archive:{}:two", path("two.tar")),
        format!("docker://{}", served.name("box:1")),
    ];
    for pair in steps.windows(2) {
        let ran = world.dhow(&["copy", "-q", &pair[0], &pair[1]]).exits(0);
        assert_eq!(ran.stdout.trim(), image.digest().to_string(), "{pair:?}");
    }
    world
        .dhow(&[
            "copy",
            &steps[0],
            &format!("docker-archive:{}:shop:1", path("d.tar")),
        ])
        .exits(0)
        .prints("2 blobs");
    world
        .dhow(&["copy", "box", &steps[1]])
        .one_error(1)
        .says("docker://NAME");
    world
        .dhow(&["copy", &steps[0], &format!("oci-archive:{}", path("two.tar"))])
        .one_error(1)
        .says("already");
    let Some(other) = World::new() else { return };
    other
        .dhow(&["load", "-i", &path("d.tar")])
        .exits(0)
        .prints("shop:1");
    other.dhow(&["pull", &served.name("box:1")]).exits(0);
    assert_eq!(other.inspect("shop:1", "{{.Id}}"), image.id().to_string());
}

#[test]
fn a_manifest_list_is_made_looked_at_pushed_and_pulled() {
    let world = World::anyone();
    let served = Served::start(&world.path("registry"));
    let (from, image) = with_image();
    world
        .dhow(&[
            "copy",
            &format!("docker://{}", from.name("box:1")),
            &format!("docker://{}", served.name("box:amd")),
        ])
        .ok();
    let (list, member) = (served.name("box:all"), served.name("box:amd"));
    assert_eq!(
        world.dhow(&["manifest", "create", &list, &member]).ok(),
        format!("Created manifest list {list}")
    );
    world
        .dhow(&["manifest", "create", &list, &member])
        .one_error(1)
        .says("--amend");
    world
        .dhow(&["manifest", "annotate", "--os-version", "9", &list, &member])
        .exits(0);
    let local = world
        .dhow(&["manifest", "inspect", &list])
        .exits(0)
        .prints("\"os.version\": \"9\"");
    assert!(local.stdout.contains("\n\t\"schemaVersion\": 2"), "{local:?}");
    let digest = world.dhow(&["manifest", "push", "--purge", &list]).ok();
    assert!(digest.starts_with("sha256:"), "{digest}");
    world
        .dhow(&["manifest", "inspect", &list])
        .exits(0)
        .prints(&image.digest().to_string());
    world
        .dhow(&["manifest", "inspect", "-v", &member])
        .exits(0)
        .prints("\"OCIManifest\"")
        .prints("\"Ref\"");
    world
        .dhow(&["manifest", "rm", &list])
        .one_error(1)
        .says("no such manifest");
    world
        .dhow(&["manifest", "inspect", &served.name("none:1")])
        .one_error(1)
        .says("404");
}

#[test]
fn a_search_of_a_registry_lists_its_repositories() {
    let world = World::anyone();
    let served = Served::start(&world.path("registry"));
    let (from, _) = with_image();
    for name in ["team/box:1", "team/boxes:1", "other:1"] {
        let to = format!("docker://{}", served.name(name));
        world
            .dhow(&["copy", "-q", &format!("docker://{}", from.name("box:1")), &to])
            .ok();
    }
    let found = world
        .dhow(&["search", "--format", "{{.Name}}", &served.name("box")])
        .ok();
    assert_eq!(found, "team/box\nteam/boxes");
    let table = world.dhow(&["search", &served.name("other")]).ok();
    assert!(
        table.starts_with("NAME") && table.contains("STARS") && table.contains("other"),
        "{table}"
    );
    world
        .dhow(&["search", "--filter", "stars=many", "x"])
        .one_error(1)
        .says("stars");
}
