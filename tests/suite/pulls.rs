//! Pulls from a registry that misbehaves: a retry that works, or one clear error, and nothing half-made.

use std::time::{Duration, Instant};

use dhow_testkit::{Auth, FakeRegistry, Fault, Layer, TinyImage};
use dhow_types::Digest;
use serde_json::json;

use crate::samples::busybox_tar;
use crate::world::World;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn registry() -> (FakeRegistry, TinyImage) {
    let registry = FakeRegistry::start();
    let image = TinyImage::oci(vec![Layer::gzip(busybox_tar())]);
    registry.put_image("box", "1", &image);
    (registry, image)
}

#[test]
fn a_pulled_image_is_the_one_that_was_asked_for() {
    let Some(world) = World::new() else { return };
    let (registry, image) = registry();
    let name = registry.name("box:1");
    // In a pipe everything is on standard output, as with docker: one line for each event.
    let ran = world.dhow(&["pull", &name]).exits(0);
    let short = dhow_types::Digest::of(&image.layers[0].blob).short();
    assert_eq!(
        ran.stdout.lines().collect::<Vec<_>>(),
        [
            "1: Pulling from box",
            &format!("{short}: Pulling fs layer"),
            &format!("{short}: Extracting"),
            &format!("{short}: Pull complete"),
            &format!("Digest: {}", image.digest()),
            &format!("Status: Downloaded newer image for {name}"),
            &name,
        ]
    );
    assert_eq!(ran.stderr, "");
    assert_eq!(world.inspect(&name, "{{.Id}}"), image.id().to_string());
    let ran = world.dhow(&["pull", &name]).exits(0);
    let line = format!("Status: Image is up to date for {name}\n{name}\n");
    assert!(ran.stdout.ends_with(&line) && ran.stderr.is_empty(), "{ran:?}");
    assert_eq!(world.dhow(&["pull", "-q", &name]).ok(), name);
    let by_digest = registry.name(&format!("box@{}", image.digest()));
    world.dhow(&["pull", &by_digest]).ok();
    assert_eq!(
        world
            .dhow(&["run", "--rm", "--network", "none", &by_digest, "echo", "ran"])
            .ok(),
        "ran"
    );
    assert_eq!(
        world
            .dhow(&[
                "run",
                "--rm",
                "--network",
                "none",
                "--pull",
                "always",
                &name,
                "echo",
                "ran"
            ])
            .ok(),
        "ran"
    );
}

/// Faults after which a client tries again.
fn passing() -> Vec<(&'static str, &'static str, Fault)> {
    vec![
        ("a reset in a layer", "/blobs/", Fault::Reset(100_000)),
        ("a body that is cut", "/blobs/", Fault::Truncate(200_000)),
        (
            "a server error on a blob",
            "/blobs/",
            Fault::Status(500, Vec::new()),
        ),
        (
            "a bad gateway on the manifest",
            "/manifests/",
            Fault::Status(502, Vec::new()),
        ),
        (
            "busy, with a time to come back",
            "/manifests/",
            Fault::Status(503, vec![("Retry-After", "1".to_owned())]),
        ),
        (
            "too many requests",
            "/blobs/",
            Fault::Status(429, vec![("Retry-After", "1".to_owned())]),
        ),
        (
            "a slow body",
            "/blobs/",
            Fault::Slow(400_000, Duration::from_millis(100)),
        ),
        ("a reset before the answer", "/manifests/", Fault::Reset(0)),
    ]
}

#[test]
fn a_fault_that_passes_is_ridden_out() {
    let Some(world) = World::new() else { return };
    for (what, part, fault) in passing() {
        let (registry, image) = registry();
        registry.fail("GET", part, 1, fault);
        let ran = world.dhow(&["pull", &registry.name("box:1")]);
        assert_eq!(ran.code, 0, "{what}: {ran:?}");
        assert_eq!(
            world.inspect(&registry.name("box:1"), "{{.Id}}"),
            image.id().to_string(),
            "{what}"
        );
        world.dhow(&["rmi", &registry.name("box:1")]).ok();
        world.clean();
    }
}

/// Faults that do not pass, and a word that the error must have.
fn lasting() -> Vec<(&'static str, &'static str, Fault, &'static str)> {
    vec![
        (
            "not there",
            "/manifests/",
            Fault::Status(404, Vec::new()),
            "not found",
        ),
        (
            "not allowed",
            "/manifests/",
            Fault::Status(401, Vec::new()),
            "auth",
        ),
        ("forbidden", "/manifests/", Fault::Status(403, Vec::new()), "403"),
        (
            "an error for ever",
            "/blobs/",
            Fault::Status(500, Vec::new()),
            "500",
        ),
        ("one wrong byte", "/blobs/", Fault::WrongBytes, "digest"),
        (
            "a manifest that is no JSON",
            "/manifests/",
            Fault::Body(b"{".to_vec()),
            "manifest",
        ),
        (
            "an empty manifest",
            "/manifests/",
            Fault::Body(b"{}".to_vec()),
            "manifest",
        ),
        (
            "a page of HTML",
            "/manifests/",
            Fault::Body(b"<html>log in</html>".to_vec()),
            "manifest",
        ),
        (
            "another digest by header",
            "/manifests/",
            Fault::Header("docker-content-digest", format!("sha256:{}", "0".repeat(64))),
            "digest",
        ),
        (
            "a redirect in a circle",
            "/manifests/",
            Fault::Redirect(String::new()),
            "redirect",
        ),
        (
            "a redirect to a file",
            "/blobs/",
            Fault::Redirect("file:///etc/passwd".to_owned()),
            "redirect",
        ),
        (
            "a manifest of 40 MB",
            "/manifests/",
            Fault::Body(vec![b' '; 40 << 20]),
            "manifest",
        ),
    ]
}

#[test]
fn a_fault_that_lasts_is_one_error_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let mut wrong = Vec::new();
    for (what, part, fault, word) in lasting() {
        let (registry, _) = registry();
        let fault = match fault {
            Fault::Redirect(url) if url.is_empty() => {
                Fault::Redirect(format!("http://{}/v2/box/manifests/1", registry.host()))
            }
            other => other,
        };
        registry.fail("", part, 1000, fault);
        let began = Instant::now();
        let ran = world.dhow(&["pull", &registry.name("box:1")]);
        let errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("dhow: "))
            .count();
        let said = ran.stderr.to_lowercase();
        if ran.code != 1
            || errors != 1
            || !said.contains(word)
            || said.contains("panicked")
            || began.elapsed().as_secs() > 40
        {
            wrong.push(format!(
                "{what}: exit {} after {:?}, without {word:?}: {}",
                ran.code,
                began.elapsed(),
                ran.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.say("images -qa").ok(), "");
    world.clean();
    assert_eq!(
        crate::world::names(&world.root().join("tmp")),
        Vec::<String>::new()
    );
}

#[test]
fn a_registry_that_is_not_there_is_told_so() {
    let Some(world) = World::new() else { return };
    let name = format!("127.0.0.1:{}/box:1", crate::world::free_port());
    world.dhow(&["pull", &name]).one_error(1).says("refused");
    world
        .dhow(&["run", "--rm", &name, "true"])
        .one_error(125)
        .says("refused");
    world.clean();
}

#[test]
fn plain_http_is_refused_unless_on_loopback_or_named() {
    let Some(world) = World::new() else { return };
    let Some(address) = crate::world::host_address() else {
        return;
    };
    let served = crate::served::Served::start_on(&world.path("registry"), "0.0.0.0");
    let port = served.host().rsplit(':').next().unwrap().to_owned();
    world.import_busybox(&served.name("box:1"));
    world.dhow(&["push", &served.name("box:1")]).ok();
    let name = format!("{address}:{port}/box:1");
    let ran = world.dhow(&["pull", &name]).one_error(1);
    ran.says("DHOW_INSECURE_REGISTRIES");
    let mut command = world.command(&["pull", "-q", &name]);
    command.env("DHOW_INSECURE_REGISTRIES", format!("{address}:{port}"));
    assert_eq!(crate::world::finish(command, Vec::new()).ok(), name);
}

#[test]
fn credentials_are_asked_for_and_used() {
    let Some(world) = World::new() else { return };
    for auth in [Auth::Basic("ada", "secret"), Auth::TokenFor("ada", "secret")] {
        let (registry, _) = registry();
        registry.require(auth);
        let name = registry.name("box:1");
        world.dhow(&["pull", &name]).one_error(1).says("auth");
        let auths = |text: &str| format!(r#"{{"auths":{{"{}":{{"auth":"{text}"}}}}}}"#, registry.host());
        let pull = |text: String| {
            let folder = world
                .file("docker/config.json", text)
                .parent()
                .unwrap()
                .to_owned();
            let mut command = world.command(&["pull", "-q", &name]);
            command.env("DOCKER_CONFIG", folder);
            crate::world::finish(command, Vec::new())
        };
        // ada:secret and ada:wrong in Base64.
        assert_eq!(pull(auths("YWRhOnNlY3JldA==")).ok(), name);
        world.dhow(&["rmi", &name]).ok();
        let ran = pull(auths("YWRhOndyb25n")).one_error(1);
        assert!(
            !ran.stderr.contains("wrong") && !ran.stderr.contains("YWRh"),
            "no secret in an error: {ran:?}"
        );
        pull("{ not json".to_owned()).one_error(1).says("config.json");
    }
}

#[test]
fn an_image_for_another_machine_is_told_apart() {
    let Some(world) = World::new() else { return };
    let registry = FakeRegistry::start();
    let here = TinyImage::oci(vec![Layer::gzip(busybox_tar())]);
    let there = TinyImage::on(vec![Layer::gzip(busybox_tar())], "linux/s390x");
    let platform = dhow_types::Platform::host().to_string();
    for image in [&here, &there] {
        registry.put_image("box", "single", image);
    }
    let both = dhow_testkit::index(&[(&there, "linux/s390x"), (&here, &platform)]);
    registry.put_manifest("box", "both", "application/vnd.oci.image.index.v1+json", &both);
    let other = dhow_testkit::index(&[(&there, "linux/s390x")]);
    registry.put_manifest("box", "other", "application/vnd.oci.image.index.v1+json", &other);
    world.dhow(&["pull", &registry.name("box:both")]).ok();
    assert_eq!(
        world.inspect(&registry.name("box:both"), "{{.Id}}"),
        here.id().to_string()
    );
    world
        .dhow(&["pull", &registry.name("box:other")])
        .exits(1)
        .prints("other: Pulling from box")
        .says(&platform);
    world
        .dhow(&["pull", "--platform", "linux/s390x", &registry.name("box:other")])
        .ok();
    assert_eq!(
        world.inspect(&registry.name("box:other"), "{{.Architecture}}"),
        "s390x"
    );
}

#[test]
fn all_tags_of_a_repository_are_pulled() {
    let Some(world) = World::new() else { return };
    let (registry, image) = registry();
    registry.put_image("box", "2", &image);
    let name = registry.name("box");
    let ran = world.dhow(&["pull", "-a", &name]).exits(0);
    assert!(
        ran.stdout.contains("1: Pulling from box") && ran.stdout.contains("2: Pulling from box"),
        "{ran:?}"
    );
    assert!(ran.stdout.ends_with(&format!("{name}\n")), "{ran:?}");
    for tag in ["1", "2"] {
        assert_eq!(
            world.inspect(&format!("{name}:{tag}"), "{{.Id}}"),
            image.id().to_string()
        );
    }
    world
        .dhow(&["pull", "-a", &registry.name("box:1")])
        .one_error(1)
        .says("tag can't be used with --all-tags/-a");
}

#[test]
fn all_tags_of_a_repository_are_pushed() {
    let Some(world) = World::new() else { return };
    let (registry, image) = registry();
    let (from, to) = (registry.name("box:1"), registry.name("other"));
    world.dhow(&["pull", &from]).ok();
    world
        .dhow(&["push", "-a", &to])
        .one_error(1)
        .says(&format!("an image does not exist locally with the tag: {to}"));
    for tag in ["one", "two"] {
        world.dhow(&["tag", &from, &format!("{to}:{tag}")]).ok();
    }
    // Of another repository, whose name begins alike.
    world.dhow(&["tag", &from, &format!("{to}wise:one")]).ok();
    let ran = world.dhow(&["push", "-a", "-q", &to]).exits(0);
    assert_eq!(ran.stdout, format!("{to}\n"));
    world
        .dhow(&["push", "-a", &format!("{to}:one")])
        .one_error(1)
        .says("tag can't be used with --all-tags/-a");
    world.dhow(&["rmi", "-f", &image.id().to_string()]).ok();
    for tag in ["one", "two"] {
        let name = format!("{to}:{tag}");
        world.dhow(&["pull", &name]).ok();
        assert_eq!(world.inspect(&name, "{{.Id}}"), image.id().to_string());
    }
    world.dhow(&["pull", &format!("{to}wise:one")]).exits(1);
}

#[test]
fn a_login_is_tried_before_it_is_stored() {
    use dhow_testkit::Auth;
    let world = World::anyone();
    let config = world.path("docker");
    for auth in [Auth::Basic("jo", "secret"), Auth::TokenFor("jo", "secret")] {
        let registry = FakeRegistry::start();
        registry.require(auth);
        let host = registry.host();
        let login = |password: &str| {
            let mut command = world.command(&["login", "-u", "jo", "--password-stdin", &host]);
            command.env("DOCKER_CONFIG", &config);
            crate::world::finish(command, password.into())
        };
        login("wrong\n").one_error(1).says("unauthorized");
        assert!(!config.join("config.json").exists(), "nothing is stored");
        let ran = login("secret\n").exits(0);
        assert!(ran.stdout.contains("Login Succeeded"), "{ran:?}");
        assert!(
            std::fs::read_to_string(config.join("config.json"))
                .unwrap()
                .contains(&host)
        );
        let mut command = world.command(&["logout", &host]);
        command.env("DOCKER_CONFIG", &config);
        crate::world::finish(command, Vec::new()).ok();
        assert!(
            !std::fs::read_to_string(config.join("config.json"))
                .unwrap()
                .contains(&host)
        );
        std::fs::remove_file(config.join("config.json")).unwrap();
    }
}

#[test]
fn a_call_names_who_asks_and_how_long_it_waits_to_ask_again() {
    use dhow_testkit::Auth;
    let Some(world) = World::new() else { return };
    let (registry, _) = registry();
    let image = registry.name("box:1");
    registry.require(Auth::Basic("jo", "secret"));
    let pull = |flags: &str| world.say(&format!("pull -q {flags} {image}"));
    pull("").exits_any().says("unauthorized");
    pull("--creds jo:wrong").exits_any().says("unauthorized");
    pull("--creds jo").exits(125).says("write USER:PASSWORD");
    pull("--retry-delay soon").exits(125);
    pull("--creds jo:secret --retry-delay 10ms").ok();
    world.say(&format!("rmi {image}")).ok();
    world
        .say(&format!(
            "create --name it --creds jo:secret --network none {image} true"
        ))
        .ok();
    let kept = world.root().join("containers");
    let ran = std::process::Command::new("grep")
        .args(["-rl", "jo:secret"])
        .arg(kept)
        .output()
        .unwrap();
    assert!(ran.stdout.is_empty(), "{ran:?}");
}

/// Provenance and the like, as BuildKit puts them beside an image: from one registry to ours, and through an archive.
#[test]
fn attestations_stay_with_their_image_through_pull_push_save_and_load() {
    let Some(world) = World::new() else { return };
    let (registry, image) = registry();
    let served = crate::served::Served::start(&world.path("registry"));
    let statement = br#"{"predicateType":"https://slsa.dev/provenance/v1"}"#;
    let config = br#"{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let mut layer = descriptor("application/vnd.in-toto+json", statement);
    layer["annotations"] = json!({"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config), "layers": [layer]});
    let manifest = manifest.to_string();
    let said = Digest::of(manifest.as_bytes()).to_string();
    registry.put_blob("app", statement);
    registry.put_blob("app", config);
    registry.put_manifest("app", &said, MANIFEST, manifest.as_bytes());
    registry.put_image("app", "plain", &image);
    let mut own = descriptor(MANIFEST, &image.manifest);
    let host = dhow_types::Platform::host();
    own["platform"] = json!({"os": host.os, "architecture": host.architecture});
    let mut beside = descriptor(MANIFEST, manifest.as_bytes());
    beside["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    beside["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image.digest().to_string()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [own, beside]});
    let index = index.to_string();
    registry.put_manifest("app", "1", INDEX, index.as_bytes());

    let named = |world: &World, name: &str| {
        world.inspect(
            name,
            "{{range .Manifests}}{{.Kind}} {{.ID}} {{(index .Statements 0).PredicateType}}{{end}}",
        )
    };
    let expected = format!("attestation {said} https://slsa.dev/provenance/v1");
    let name = registry.name("app:1");
    world.dhow(&["pull", "-q", &name]).ok();
    assert_eq!(named(&world, &name), expected);
    assert_eq!(world.say("images -aq").ok().lines().count(), 1, "it is no image");
    let target = served.name("kept:1");
    world.dhow(&["tag", &name, &target]).ok();
    // The layer is compressed otherwise here, so the manifest is another: the index says that they are about that.
    world.dhow(&["push", &target]).ok();
    let other = World::anyone();
    other.dhow(&["pull", "-q", &target]).ok();
    assert_eq!(named(&other, &target), expected);
    let archive = other.dhow(&["save", &target]).exits(0).bytes;
    let third = World::anyone();
    third.feed(&["load"], archive).ok();
    assert_eq!(named(&third, &target), expected);
    third.say("system prune -af").ok();
    for world in [&world, &other, &third] {
        world.clean();
    }
}
