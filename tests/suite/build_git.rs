//! A git repository as build context.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::world::{World, eventually, free_port, program};

/// The program itself: `git daemon` would put another between.
pub(crate) const DAEMON: &str = "/usr/lib/git-core/git-daemon";

/// A server of the repositories in a folder; ends when dropped.
pub(crate) struct Daemon(Child, u16);

impl Daemon {
    pub(crate) fn start(folder: &Path) -> Self {
        let port = free_port();
        let child = Command::new(DAEMON)
            .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self(child, port);
        eventually("the git daemon answers", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        daemon
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("git://127.0.0.1:{}/{rest}", self.1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs git in a folder and gives what it printed.
#[track_caller]
fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_context_comes_from_a_git_repository() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !program("git") || !Path::new(DAEMON).exists() {
        return;
    }
    let dockerfile = "FROM busybox\nCOPY . /ctx\nRUN ls -A /ctx > /list\n";
    world.file("repos/app.git/Dockerfile", dockerfile);
    world.file("repos/app.git/what", "first");
    world.file("repos/app.git/sub/Dockerfile", dockerfile);
    world.file("repos/app.git/sub/inner", "sub");
    let repo = world.path("repos/app.git");
    std::os::unix::fs::symlink("/", repo.join("out")).unwrap();
    std::os::unix::fs::symlink("sub", repo.join("in")).unwrap();
    git(&repo, &["init", "-q"]);
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "one"]);
    git(&repo, &["tag", "v1"]);
    let first = git(&repo, &["rev-parse", "HEAD"]);
    world.file("repos/app.git/what", "second");
    git(&repo, &["commit", "-q", "-a", "-m", "two"]);
    let daemon = Daemon::start(&world.path("repos"));
    let build = |rest: &str, flags: &[&str]| {
        let mut args = vec!["build", "-t", "g"];
        args.extend(flags);
        let url = daemon.url(rest);
        args.push(&url);
        world.dhow(&args)
    };
    build("app.git", &[]).exits(0);
    assert_eq!(world.sh_in("g", "cat /ctx/what"), "second");
    assert!(!world.sh_in("g", "cat /list").contains(".git"));
    for name in ["v1", &first, "refs/tags/v1"] {
        build(&format!("app.git#{name}"), &[]).exits(0);
        assert_eq!(world.sh_in("g", "cat /ctx/what"), "first", "{name}");
    }
    for place in ["app.git#main:sub", "app.git?ref=v1&subdir=sub", "app.git#:in"] {
        build(place, &[]).exits(0);
        assert_eq!(world.sh_in("g", "cat /ctx/inner"), "sub", "{place}");
    }
    build("app.git", &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]).exits(0);
    assert!(world.sh_in("g", "cat /list").contains(".git"));
    build(&format!("app.git?checksum={first}"), &[])
        .one_error(1)
        .says(&first);
    build(&format!("app.git?ref=v1&checksum={}", &first[..8]), &[]).exits(0);
    build("app.git#nothing", &[]).one_error(1).says("nothing");
    build("app.git#:nowhere", &[]).one_error(1).says("nowhere");
    // The root of the repository is what `/` means in it: there is no way out.
    let ran = build("app.git#:out/etc", &[]).one_error(1);
    assert!(ran.stderr.contains("out/etc"), "{ran:?}");
    build("none.git", &[]).one_error(1).says("none.git");
    for hostile in [
        "app.git#--upload-pack=touch",
        "app.git#-x",
        "app.git?ref=--exec=touch",
        "app.git#a:../../etc",
    ] {
        let ran = build(hostile, &[]);
        assert!(
            ran.code == 1 && !ran.stderr.contains("panicked"),
            "{hostile}: {ran:?}"
        );
    }
    for url in [
        "ext::sh -c touch% /tmp/x",
        "file:///etc/.git",
        "git@-oProxyCommand=x:a/b.git",
    ] {
        let ran = world.dhow(&["build", url]);
        assert_eq!(ran.code, 1, "{url}: {ran:?}");
    }
    world.clean();
}
