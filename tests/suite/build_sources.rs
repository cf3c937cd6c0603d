//! `ADD` of URLs and git repositories, as the whole program does it.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::World;

/// Serves the files of a folder over HTTP, one request a connection, until the process ends; gives the URL.
fn serve(folder: &Path) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 16 << 10];
            let count = stream.read(&mut request).unwrap_or(0);
            let head = String::from_utf8_lossy(&request[..count]).into_owned();
            let path = head
                .split(' ')
                .nth(1)
                .unwrap_or("/")
                .split('?')
                .next()
                .unwrap_or("/");
            let answer = match std::fs::read(folder.join(path.trim_start_matches('/'))) {
                Ok(bytes) => {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\n",
                        bytes.len()
                    );
                    [head.into_bytes(), bytes].concat()
                }
                Err(_) => {
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
                }
            };
            // A client that went away has what it wanted.
            drop(stream.write_all(&answer));
        }
    });
    url
}

fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t.test",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A repository `www/a.git` with two commits on `main`, the first of them tagged `v1`; `None` without git.
fn repository(world: &World) -> Option<PathBuf> {
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("skipped: there is no git");
        return None;
    }
    let work = world.path("work");
    world.file("work/file", "first\n");
    world.file("work/sub/run.sh", "#!/bin/sh\n");
    git(&work, &["init", "--quiet"]);
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "one"]);
    git(&work, &["tag", "-a", "-m", "one", "v1"]);
    world.file("work/file", "second\n");
    git(&work, &["commit", "--quiet", "-am", "two"]);
    let www = world.path("www");
    std::fs::create_dir_all(&www).unwrap();
    git(
        &www,
        &["clone", "--quiet", "--bare", work.to_str().unwrap(), "a.git"],
    );
    git(&www.join("a.git"), &["update-server-info"]);
    Some(www)
}

fn build(world: &World, text: &str) -> crate::world::Ran {
    world.feed(&["build", "--network", "none", "-t", "made", "-"], text)
}

#[test]
fn a_file_of_a_url_is_private_and_as_old_as_the_server_says() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("www/tool", "hello\n");
    let url = serve(&world.path("www"));
    let sum = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    build(
        &world,
        &format!("FROM busybox\nADD --checksum={sum} {url}/tool /opt/\n"),
    )
    .exits(0);
    let seen = world.sh_in("made", "stat -c '%a %u %Y' /opt/tool; cat /opt/tool");
    assert_eq!(seen.trim(), "600 0 784111777\nhello");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let ran = build(
        &world,
        &format!("FROM busybox\nADD --checksum={wrong} {url}/tool /opt/\n"),
    )
    .exits(1);
    assert!(ran.stderr.contains("digest mismatch"), "{ran:?}");
    let ran = build(&world, &format!("FROM busybox\nADD {url}/nothing /opt/\n")).exits(1);
    assert!(
        ran.stderr.contains("404") && ran.stderr.contains(">>> ADD"),
        "{ran:?}"
    );
    world.clean();
}

#[test]
fn a_repository_is_added_at_a_branch_a_tag_and_a_commit() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let Some(www) = repository(&world) else { return };
    let url = format!("{}/a.git", serve(&www));
    let first = Command::new("git")
        .current_dir(world.path("work"))
        .args(["rev-parse", "v1^{}"])
        .output()
        .unwrap();
    let first = String::from_utf8(first.stdout).unwrap().trim().to_owned();
    let text = format!(
        "FROM busybox\nADD {url} /head\nADD {url}#v1 /tag\nADD {url}#main:sub /sub\nADD {url}#{first} /commit\n\
         ADD --keep-git-dir {url}?tag=v1 /kept\nADD --checksum={first} {url}?ref=v1 /checked\n"
    );
    build(&world, &text).exits(0);
    let seen = world.sh_in(
        "made",
        "cat /head/file /tag/file /commit/file /kept/file /checked/file; ls -A /sub; test -d /kept/.git && ls -d /*/.git; stat -c '%a %u' /head/file",
    );
    assert_eq!(
        seen.trim(),
        "second\nfirst\nfirst\nfirst\nfirst\nrun.sh\n/kept/.git\n644 0"
    );
    // Nothing has moved.
    let again = build(&world, &text).exits(0);
    assert_eq!(again.stderr.matches("CACHED").count(), 6, "{}", again.stderr);
    for (text, message) in [
        (format!("ADD {url}#nowhere /x"), "has no nowhere"),
        (format!("ADD {url}#--output=/x /x"), "is no name of a branch"),
        (
            format!("ADD --checksum={} {url} /x", "0".repeat(40)),
            "the checksum wants",
        ),
        ("ADD ssh://-oProxyCommand=x/a.git /x".to_owned(), "dash"),
    ] {
        let ran = build(&world, &format!("FROM busybox\n{text}\n"));
        assert!(ran.code != 0 && ran.stderr.contains(message), "{text}: {ran:?}");
    }
    world.clean();
}

#[test]
fn a_submodule_cannot_run_a_program_or_read_this_host() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let Some(www) = repository(&world) else { return };
    let url = serve(&www);
    let pwned = world.path("pwned");
    for (name, target) in [
        ("ext", format!("ext::sh -c touch% {}", pwned.display())),
        ("file", format!("file://{}", www.join("a.git").display())),
    ] {
        let work = world.path(&format!("work-{name}"));
        std::fs::create_dir_all(&work).unwrap();
        git(&work, &["init", "--quiet"]);
        git(
            &work,
            &[
                "submodule",
                "--quiet",
                "add",
                www.join("a.git").to_str().unwrap(),
                "inner",
            ],
        );
        git(
            &work,
            &["config", "-f", ".gitmodules", "submodule.inner.url", &target],
        );
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", "hostile"]);
        let bare = format!("{name}.git");
        git(
            &www,
            &["clone", "--quiet", "--bare", work.to_str().unwrap(), &bare],
        );
        git(&www.join(&bare), &["update-server-info"]);
        let ran = build(&world, &format!("FROM busybox\nADD {url}/{bare} /x\n")).exits(1);
        assert!(ran.stderr.contains("not allowed"), "{ran:?}");
        build(
            &world,
            &format!("FROM busybox\nADD {url}/{bare}?submodules=false /x\n"),
        )
        .exits(0);
    }
    assert!(!pwned.exists());
    world.clean();
}

#[test]
fn a_named_context_is_a_folder_an_image_a_layout_or_a_repository() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("lib/own", "folder\n");
    let layout = world.path("layout").display().to_string();
    let archive = world.path("busybox.tar").display().to_string();
    world.dhow(&["save", "-o", &archive, "busybox"]).exits(0);
    world
        .dhow(&[
            "copy",
            &format!("oci-archive:{archive}"),
            &format!("oci:{layout}:small"),
        ])
        .exits(0);
    let text = "FROM base AS one\nCOPY --from=lib own /one\nFROM alpine\nCOPY --from=one /one /two\nRUN --mount=from=lib,target=/lib cat /lib/own > /three\n";
    let lib = format!("lib={}", world.path("lib").display());
    let built = |alpine: &str, base: &str| {
        let contexts = [
            "--build-context",
            &lib,
            "--build-context",
            alpine,
            "--build-context",
            base,
        ];
        world.feed(
            &[
                &["build", "--network", "none", "-t", "made"][..],
                &contexts,
                &["-"],
            ]
            .concat(),
            text,
        )
    };
    let of_layout = format!("alpine=oci-layout://{layout}:small");
    built(&of_layout, "base=docker-image://busybox").exits(0);
    assert_eq!(world.sh_in("made", "cat /two /three").trim(), "folder\nfolder");
    built("alpine=docker-image://busybox", "base=docker-image://busybox").exits(0);
    built(
        "alpine=docker-image://busybox",
        &format!("base=oci-layout://{layout}:large"),
    )
    .exits(1);
    built("alpine=/nonexistent", "base=docker-image://busybox").one_error(1);
    let Some(www) = repository(&world) else { return };
    let git = format!("base={}/a.git#v1", serve(&www));
    built("alpine=docker-image://busybox", &git).exits(0);
    world.clean();
}

#[test]
fn an_agent_of_the_person_is_a_socket_in_the_step_and_nowhere_else() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let socket = world.path("agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The builder only looks whether somebody is there.
            drop(stream.flush());
        }
    });
    let text = "FROM busybox\nRUN --mount=type=ssh,required,uid=1000,mode=0600 stat -c '%u %a %F' $SSH_AUTH_SOCK > /seen\n";
    let ran = world
        .feed(&["build", "--network", "none", "-t", "made", "-"], text)
        .exits(1);
    assert!(ran.stderr.contains("unset ssh forward key default"), "{ran:?}");
    let ssh = format!("default={}", socket.display());
    world
        .feed(
            &["build", "--network", "none", "--ssh", &ssh, "-t", "made", "-"],
            text,
        )
        .exits(0);
    let seen = world.sh_in("made", "cat /seen; ls /run/buildkit 2>&1 || true");
    assert!(
        seen.starts_with("1000 600 socket\n") && seen.contains("No such file"),
        "{seen}"
    );
    for bad in ["default=/nonexistent", "=x", "default=/etc/passwd"] {
        world.feed(&["build", "--ssh", bad, "-"], text).one_error(1);
    }
    world.clean();
}
