//! `context`: docker's own files, and never this host in place of another one.

use std::path::PathBuf;

use serde_json::Value;

use crate::world::{Ran, World, finish};

/// A person's docker folder, and what is asked in it.
struct Person {
    world: World,
    folder: PathBuf,
}

impl Person {
    fn new() -> Self {
        let world = World::anyone();
        let folder = world.path("docker");
        Self { world, folder }
    }

    fn say(&self, line: &str) -> Ran {
        self.say_with(line, &[])
    }

    fn say_with(&self, line: &str, variables: &[(&str, &str)]) -> Ran {
        let mut command = self.world.command(&line.split_whitespace().collect::<Vec<_>>());
        command
            .env("DOCKER_CONFIG", &self.folder)
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .envs(variables.iter().copied());
        finish(command, Vec::new())
    }
}

#[test]
fn unprivileged_contexts_are_kept_as_docker_keeps_them() {
    let person = Person::new();
    let table = person.say("context ls").ok();
    assert_eq!(
        table,
        "NAME        DESCRIPTION                               DOCKER ENDPOINT               ERROR\n\
         default *   Current DOCKER_HOST based configuration   unix:///var/run/docker.sock"
    );
    assert!(!person.folder.exists(), "nothing was asked to be kept");
    let key = person.world.file("key", "a key").display().to_string();
    let create = format!(
        "context create far --description away --docker host=tcp://far:2376,key={key},skip-tls-verify=true"
    );
    let ran = person.say(&create).says("Successfully created context \"far\"");
    assert_eq!(ran.ok(), "far");
    let connections = person.say("system connection ls").ok();
    let rows: Vec<Vec<&str>> = connections
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[1..],
        [["far", "tcp://far:2376", "false", "true"]],
        "{connections}"
    );
    person
        .say_with("system connection ls --format json", &[("DOCKER_CONTEXT", "far")])
        .prints("\"Default\":true");
    // Docker's place of it: the sha256 of its name.
    let id = "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868";
    let meta = std::fs::read(person.folder.join("contexts/meta").join(id).join("meta.json")).unwrap();
    let meta: Value = serde_json::from_slice(&meta).unwrap();
    assert_eq!(meta["Endpoints"]["docker"]["Host"], "tcp://far:2376");
    assert_eq!(meta["Endpoints"]["docker"]["SkipTLSVerify"], true);
    let tls = person.folder.join("contexts/tls").join(id).join("docker/key.pem");
    assert_eq!(std::fs::read_to_string(&tls).unwrap(), "a key");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        std::fs::metadata(&tls).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let shown: Value = serde_json::from_str(&person.say("context inspect far").ok()).unwrap();
    assert_eq!(shown[0]["Name"], "far");
    assert_eq!(shown[0]["Metadata"]["Description"], "away");
    assert_eq!(shown[0]["TLSMaterial"]["docker"][0], "key.pem");
    person.say(&create).exits(1).says("already exists");
    person
        .say("context create default --docker host=unix:///x")
        .exits(1)
        .says("reserved context name");
    person
        .say("context create near --docker hst=x")
        .exits(1)
        .says("unrecognized config key: hst");
    person.say("context update far --docker host=ssh://me@far").ok();
    assert_eq!(
        person
            .say("context inspect -f {{.Endpoints.docker.Host}} far")
            .ok(),
        "ssh://me@far"
    );
    assert!(!tls.exists(), "the files of an endpoint go with it");
    assert_eq!(person.say("context ls -q").ok(), "default\nfar");
}

#[test]
fn unprivileged_a_context_travels_as_an_archive() {
    let person = Person::new();
    let key = person.world.file("key", "a key").display().to_string();
    person
        .say(&format!(
            "context create far --description away --docker host=tcp://far:2376,key={key}"
        ))
        .ok();
    let archive = person.world.path("far.tar").display().to_string();
    person
        .say(&format!("context export far {archive}"))
        .says("Written file")
        .exits(0);
    person
        .say(&format!("context export far {archive}"))
        .exits(1)
        .says("exists");
    person.say(&format!("context import again {archive}")).ok();
    let shown =
        "context inspect -f {{.Metadata.Description}},{{.Endpoints.docker.Host}},{{.TLSMaterial.docker}}";
    assert_eq!(
        person.say(&format!("{shown} again")).ok(),
        person.say(&format!("{shown} far")).ok()
    );
    person.say("context create third --from far").ok();
    assert_eq!(
        person.say(&format!("{shown} third")).ok(),
        person.say(&format!("{shown} far")).ok()
    );
    person.say("context rm again third").ok();
    person.say("context rm again").exits(1).says("does not exist");
    person
        .say("context rm default")
        .exits(1)
        .says("cannot be removed");
    let bad = person.world.file("bad.tar", "no archive").display().to_string();
    person
        .say(&format!("context import bad {bad}"))
        .exits(1)
        .says("invalid context");
    assert_eq!(person.say("context ls -q").ok(), "default\nfar");
}

#[test]
fn unprivileged_another_host_is_not_this_one() {
    let person = Person::new();
    person.say("context create far --docker host=tcp://far:2376").ok();
    person
        .say("context create near --docker host=unix:///run/some.sock")
        .ok();
    person.say("ps -a").exits(0);
    let far = |ran: Ran| ran.exits(1).silent().says("tcp://far:2376").says("not this host");
    far(person.say("--context far ps"));
    far(person.say("-c far volume prune -f"));
    far(person.say_with("ps", &[("DOCKER_CONTEXT", "far")]));
    far(person.say_with("ps", &[("DOCKER_HOST", "tcp://far:2376")])).says("DOCKER_HOST");
    far(person.say("-H tcp://far:2376 ps"));
    assert_eq!(person.say("context use far").ok(), "far");
    assert_eq!(person.say("context show").ok(), "far");
    far(person.say("ps")).says("dhow context use default");
    person.say("context rm far").exits(1).says("is in use");
    person.say("--context default ps").exits(0);
    person.say_with("ps", &[("DOCKER_CONTEXT", "near")]).exits(0);
    person.say("-c nosuch ps").exits(1).says("context not found");
    // What asks no engine is the same everywhere; who is there can be asked.
    person.say("completion bash").exits(0);
    person
        .say("version")
        .exits(1)
        .prints("Client:\n Version:")
        .says("far");
    assert_eq!(person.say("context use default").ok(), "default");
    assert_eq!(
        person.say("context rm -f far near nosuch").ok(),
        "far\nnear\nnosuch"
    );
    person.say("ps").exits(0);
}

#[test]
fn unprivileged_by_ssh_the_command_runs_on_the_other_host() {
    let person = Person::new();
    let world = &person.world;
    // An ssh that shows its words, then does what the other host's shell would do.
    let script = format!(
        "#!/bin/sh\necho \"$1 $2 $3 $4 $5 $6 $7\" >&2\nwhile [ \"$1\" != -- ]; do shift; done; shift 2\n\
         dhow() {{ (unset DOCKER_HOST; exec {} \"$@\"); }}\neval \"$*\"\n",
        crate::world::binary().display()
    );
    let ssh = world.file("bin/ssh", script);
    std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        world.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let far = |line: &str, host: &str| person.say_with(line, &[("DOCKER_HOST", host), ("PATH", &path)]);
    let ran = far("version --format {{.Client.Version}}-it's", "ssh://me@far:22");
    assert_eq!(ran.stderr, "-o ConnectTimeout=30 -T -l me -p 22\n");
    assert_eq!(ran.ok(), format!("{}-it's", env!("CARGO_PKG_VERSION")));
    // The exit code is that of the other side, which is not sent on again.
    let ran = far("inspect nothing", "ssh://far").exits(1);
    assert!(ran.stderr.contains("dhow: "), "{}", ran.stderr);
    person
        .say("context create far --docker host=ssh://me@far.test")
        .says("Successfully created");
    person
        .say_with(
            "--context far version --format {{.Server.Os}}",
            &[("PATH", &path)],
        )
        .says("-l me -- far.test")
        .prints("linux");
    // What reads files of this host.
    for (line, what) in [
        (
            "cp a x:/b",
            "cp is about files of this host, and the engine is ssh://far",
        ),
        ("run --env-file x y", "--env-file is about files of this host"),
        ("build .", "build is about files of this host"),
        ("secret ls", "secret ls is about files of this host"),
    ] {
        far(line, "ssh://far")
            .exits(1)
            .says(what)
            .says("hint: run it there");
    }
    far("ps", "ssh://me:secret@far")
        .exits(1)
        .says("plain-text password is not supported");
    far("ps", "ssh://-oProxyCommand=x")
        .exits(1)
        .says("there is no host in it");
    let ran = person.say_with("ps", &[("DOCKER_HOST", "ssh://far"), ("PATH", "/nonexistent")]);
    ran.exits(1).says("dhow: run ssh to ssh://far: ");
}

#[test]
fn unprivileged_an_engine_at_a_tcp_address_is_asked_who_it_is() {
    let person = Person::new();
    let body = r#"{"Version": "99.9", "ApiVersion": "1.41", "Os": "linux", "Arch": "z80", "KernelVersion": "\u001b[31mred"}"#;
    let serve = |bytes: &[u8]| {
        let url = crate::world::served_once(bytes.to_vec());
        url.trim_start_matches("http://")
            .trim_end_matches("/file")
            .to_owned()
    };
    // By a proxy, as docker has it.
    let proxy = format!("http://{}", serve(body.as_bytes()));
    let through = [
        ("DOCKER_HOST", "tcp://far.test:2376"),
        ("HTTP_PROXY", proxy.as_str()),
    ];
    let ran = person.say_with("version --format {{.Server.Version}}", &through);
    assert_eq!(ran.ok(), "99.9");
    let direct = format!("tcp://{}", serve(body.as_bytes()));
    let shown = person
        .say_with("version", &[("DOCKER_HOST", direct.as_str())])
        .ok();
    assert!(shown.contains("Server:\n Version:           99.9\n"), "{shown}");
    assert!(shown.contains("linux/z80") && shown.ends_with("red"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let much = format!("tcp://{}", serve(&vec![b' '; 2 << 20]));
    person
        .say_with("version", &[("DOCKER_HOST", much.as_str())])
        .exits_any()
        .says("has more than 1048576 bytes");
    person
        .say_with("version", &[("DOCKER_HOST", "npipe://x")])
        .exits(1)
        .says("the engine at npipe://x cannot be asked for its version");
    // All else is for this host alone.
    person.say_with("ps", &through).exits(1).says("is not this host");
}
