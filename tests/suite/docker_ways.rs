//! Called by the name `docker`: help, wrong words, questions, programs that add verbs, the classic builder's lines.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::world::{Ran, World, finish, wait};

impl World {
    /// The command `docker <words>` with a docker folder of its own.
    fn as_docker(&self, words: &[&str]) -> Command {
        let mut command = self.command(words);
        command
            .arg0("docker")
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_BUILDKIT");
        command
    }

    fn docker(&self, line: &str) -> Ran {
        finish(
            self.as_docker(&line.split_whitespace().collect::<Vec<_>>()),
            Vec::new(),
        )
    }

    /// A program that adds a verb: what it says of itself, and what it does.
    fn plugin(&self, name: &str, metadata: &str, script: &str) {
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{metadata}'; exit; fi\n{script}\n"
        );
        let path = self.file(&format!("plugins/{name}"), text);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        let config = format!(
            "{{\"cliPluginsExtraDirs\": [\"{}\"]}}",
            self.path("plugins").display()
        );
        self.file("docker/config.json", config);
    }
}

const METADATA: &str = r#"{"SchemaVersion":"0.1.0","Vendor":"us","ShortDescription":"Say hello"}"#;

#[test]
fn unprivileged_words_that_are_no_verb_are_told_in_dockers_words() {
    let world = World::anyone();
    let ran = world.docker("nope").exits(1);
    assert_eq!(
        ran.stderr,
        "docker: unknown command: docker nope\n\nRun 'docker --help' for more information\n"
    );
    assert_eq!(
        world.docker("help nope").exits(1).stderr,
        "unknown help topic: nope\n"
    );
    world.docker("--nope ps").exits(125).says("unknown flag: --nope");
    world
        .docker("-x ps")
        .exits(125)
        .says("unknown shorthand flag: 'x' in -x");
    let twice = "invalid argument \"unix:///x\" for \"-H, --host\" flag: specify only one -H";
    world
        .docker("-H unix:///x -H unix:///x ps")
        .exits(125)
        .says(twice);
    world
        .docker("version more")
        .exits(1)
        .says("docker: 'docker version' accepts no arguments");
    world.docker("--version").prints("Docker version ").ok();
    world.docker("-v ps").prints("Docker version ").ok();
    world
        .docker("version")
        .prints("Client:\n Version:")
        .prints("Server:\n")
        .ok();
    let missing = world.docker("inspect nothing").exits(1);
    assert_eq!(missing.stdout, "[]\n");
    assert_eq!(missing.stderr, "error: no such object: nothing\n");
    // The verb's own flag is its own.
    world.docker("ps --version").exits(125);

    let help = world.docker("help").ok();
    for line in [
        "Usage:  docker [OPTIONS] COMMAND",
        "Management Commands:",
        "Commands:",
    ] {
        assert!(help.lines().any(|found| found == line), "{line}: {help}");
    }
    assert_eq!(world.docker("--help").ok(), help);
    assert_eq!(world.docker("nope --help").ok(), help);
    let bare = world.docker("").exits(0);
    assert_eq!(
        (bare.stdout.as_str(), bare.stderr.trim_end()),
        ("", help.as_str())
    );
    let short = world.docker("nope -h").ok();
    assert_eq!(
        short,
        format!("Flag shorthand -h has been deprecated, use --help\n{help}")
    );
    // By its own name it has its own words.
    world.say("nope").exits(1).says("dhow: ");
}

#[test]
fn unprivileged_tls_to_this_host_is_refused() {
    let world = World::anyone();
    for flag in ["--tls", "--tlsverify", "--tlsverify=false", "--tlsverify=true"] {
        let folder = world.path("docker");
        world.docker(&format!("{flag} ps")).exits(1).says(&format!(
            "docker: unable to resolve docker endpoint: open {}/ca.pem: No such file",
            folder.display()
        ));
    }
    let file = world.file("ca.pem", "x").display().to_string();
    world
        .docker(&format!("--tls --tlscacert {file} ps"))
        .exits(1)
        .says("unable to resolve docker endpoint: TLS is for tcp:// addresses of other hosts");
    world.docker("--tls=false -l info version").ok();
}

#[test]
fn unprivileged_programs_add_verbs() {
    let world = World::anyone();
    world.plugin(
        "docker-hello",
        METADATA,
        "echo \"$*\"; echo $DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND ${DOCKER_CLI_PLUGIN_SOCKET%%_*}; exit 7",
    );
    world.plugin("docker-bad", "{bad}", "exit 1");
    world.plugin("docker-ps", METADATA, "echo not me");
    let root = world.root().display().to_string();
    for words in [
        "hello",
        "-l info hello --who x",
        "help hello",
        "hello -h --version",
    ] {
        let ran = world.docker(words).exits(7);
        // All words reach it, those before the verb, too.
        assert_eq!(ran.stdout, format!("--root {root} {words}\ndocker @docker\n"));
        assert_eq!(ran.stderr, "");
    }
    let help = world.docker("help").ok();
    let line = |start: &str| {
        let found = help.lines().find(|line| line.trim_start().starts_with(start));
        found.unwrap_or_else(|| panic!("no {start}: {help}")).to_owned()
    };
    assert!(line("hello*").ends_with(" Say hello"), "{help}");
    assert!(
        line("bad ")
            .ends_with("invalid metadata: invalid character 'b' looking for beginning of object key string"),
        "{help}"
    );
    assert!(
        help.contains("plugin \"ps\" duplicates builtin command"),
        "{help}"
    );
    world
        .docker("bad")
        .exits(1)
        .says("docker: unknown command: docker bad");
    assert!(!world.docker("ps").stdout.contains("not me"));
    // By its own name the program has plugins of its own.
    let mut own = world.command(&["hello"]);
    own.env("DOCKER_CONFIG", world.path("docker"));
    finish(own, Vec::new()).exits(1);
    world.plugin("dhow-hello", METADATA, "echo ours");
    let mut own = world.command(&["hello"]);
    own.env("DOCKER_CONFIG", world.path("docker"));
    assert_eq!(finish(own, Vec::new()).ok(), "ours");
}

/// Starts a program in a process group of its own, with its output kept.
fn started(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// All that it says on standard error, and its exit code.
fn ended(mut child: Child) -> (String, i32) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (said, wait(&mut child, Duration::from_secs(20)).unwrap())
}

#[test]
fn unprivileged_a_program_that_adds_a_verb_ends_itself_and_is_killed_at_the_third_signal() {
    let world = World::anyone();
    let began = world.path("began");
    let script = format!(
        "trap 'echo told >&2' INT TERM; echo >{}; i=0; while [ $i -lt 20 ]; do sleep 0.1; i=$((i+1)); done; echo over >&2",
        began.display()
    );
    world.plugin("docker-slow", METADATA, &script);
    let start = || {
        let child = started(world.as_docker(&["slow"]));
        crate::world::eventually("it runs", || began.exists());
        std::fs::remove_file(&began).unwrap();
        child
    };
    // Signals are not passed on: it has its own ways to know.
    let once = start();
    interrupt(&once);
    assert_eq!(ended(once), ("over\n".to_owned(), 0));
    let thrice = start();
    for _ in 0..3 {
        interrupt(&thrice);
        // One that is pending is not sent twice.
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        ended(thrice),
        ("got 3 SIGTERM/SIGINTs, forcefully exiting\n".to_owned(), 1)
    );
}

#[test]
fn questions_are_asked_in_a_pipe_too_and_an_interrupt_is_a_no() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("create --name con busybox true").ok();
    world.say("container prune").exits(1).says("nobody to ask");
    let asks = || {
        let mut child = started(world.as_docker(&["container", "prune"]));
        let mut said = Vec::new();
        let err = child.stderr.as_mut().unwrap();
        while !said.ends_with(b"[y/N] ") {
            let mut byte = [0];
            err.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        child
    };
    let interrupted = asks();
    interrupt(&interrupted);
    assert_eq!(ended(interrupted), ("\n".to_owned(), 0));
    let mut silent = asks();
    drop(silent.stdin.take());
    assert_eq!(ended(silent).1, 0);
    world.say("inspect con").ok();
    let mut sure = asks();
    sure.stdin.as_mut().unwrap().write_all(b"y\n").unwrap();
    assert_eq!(ended(sure).1, 0);
    world.say("inspect con").exits(1);
}

#[test]
fn without_buildkit_the_lines_are_the_classic_builders() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file(
        "c/Dockerfile",
        "FROM busybox\nCOPY one /one\nRUN echo hello\nCOPY one /two\n",
    );
    world.file("c/one", "1");
    let folder = world.path("c").display().to_string();
    let build = |words: &[&str], mode: &str| {
        let mut command = world.as_docker(words);
        command.env("DOCKER_BUILDKIT", mode);
        finish(command, Vec::new())
    };
    let words = ["build", "--network", "none", "-t", "made", &folder];
    let ran = build(&words, "0").says("DEPRECATED: The legacy builder is deprecated");
    let out = ran.ok();
    let without_times = |out: &str| -> Vec<String> {
        let lines = out
            .lines()
            .map(|line| line.split(" ---> done, ").next().unwrap_or(""));
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let id = world.inspect("made", "{{.Id}}");
    let built = format!("Successfully built {}", &id["sha256:".len()..][..12]);
    let expected = [
        "Sending build context to Docker daemon: it is read in place",
        "Step 1/4 : FROM docker.io/library/busybox:latest",
        "Step 2/4 : COPY one /one",
        "Step 3/4 : RUN echo hello",
        " ---> Running in an intermediate container",
        "hello",
        " ---> Removed intermediate container",
        "Step 4/4 : COPY one /two",
        &built,
        "Successfully tagged made:latest",
    ];
    assert_eq!(without_times(&out), expected);
    assert_eq!(out.matches(" ---> done, ").count(), 4, "{out}");
    let again = build(&words, "0").ok();
    assert_eq!(again.matches(" ---> Using cache\n").count(), 3, "{again}");
    assert!(!again.contains("Running in"), "{again}");
    // Otherwise the lines are BuildKit's.
    assert_eq!(build(&words, "1").says("naming to ").ok(), "");
    world.file("c/Dockerfile", "FROM busybox\nRUN echo last words; exit 3\n");
    let failed = build(&words, "0").exits(1);
    assert!(
        failed.stdout.contains("last words\n ---> Removed"),
        "{}",
        failed.stdout
    );
    failed.says("exit code: 3");
}

#[test]
fn containers_and_builds_have_the_proxies_of_the_persons_config() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let config = r#"{"proxies": {"default": {"httpProxy": "http://p.test:1", "noProxy": "here"},
        "unix:///other.sock": {"httpProxy": "http://other.test"}}}"#;
    world.file("docker/config.json", config);
    world.file(
        "c/Dockerfile",
        "FROM busybox\nRUN echo seen $HTTP_PROXY $no_proxy\n",
    );
    let folder = world.path("c").display().to_string();
    let say = |name: &str, words: &[&str]| {
        let mut command = world.as_docker(words);
        command.arg0(name);
        finish(command, Vec::new())
    };
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "-e",
        "http_proxy=mine",
        "busybox",
        "sh",
        "-c",
    ];
    let script = "echo $HTTP_PROXY $http_proxy $NO_PROXY $no_proxy";
    for name in ["dhow", "docker"] {
        let words: Vec<&str> = run.iter().copied().chain([script]).collect();
        assert_eq!(say(name, &words).ok(), "http://p.test:1 mine here here");
        let words = [
            "build",
            "--no-cache",
            "--network",
            "none",
            "--progress",
            "plain",
            &folder,
        ];
        say(name, &words).says("seen http://p.test:1 here").ok();
    }
    // Of the address that is meant, if it has its own.
    let words: Vec<&str> = ["-H", "unix:///other.sock"]
        .into_iter()
        .chain(run)
        .chain([script])
        .collect();
    assert_eq!(say("dhow", &words).ok(), "http://other.test mine");
    // Podman's users have --http-proxy.
    let words: Vec<&str> = run.iter().copied().chain([script]).collect();
    assert_eq!(say("podman", &words).ok(), "mine");
    world.file("docker/config.json", "no json");
    let words: Vec<&str> = run.iter().copied().chain([script]).collect();
    let ran = say("docker", &words).says("WARNING: Error loading config file: read ");
    assert_eq!(ran.ok(), "mine");
}
