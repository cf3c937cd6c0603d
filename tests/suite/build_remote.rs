//! Sources of builds that are elsewhere: files of web servers, git repositories, contexts of both kinds.

use std::fs;
use std::path::Path;
use std::process::Command;

use dhow_testkit::{Tar, gzip};

use crate::build_git::{DAEMON, Daemon};
use crate::recipe::Recipe;
use crate::web::{Page, Web};
use crate::world::program;

const AGE: u64 = 1_700_000_000;

#[test]
fn a_file_is_asked_for_again_only_when_it_has_changed() {
    let Some(recipe) = Recipe::new() else { return };
    let web = Web::start();
    let url = web.put("/foo", Page::new("content1").tagged("one"));
    let text = format!("FROM scratch\nADD {url} /dest/\n");
    recipe.output(&[], &text).holds(&[("dest/foo", "content1")]);
    assert_eq!(web.asked(), ["GET /foo 200"]);
    recipe.output(&[], &text).holds(&[("dest/foo", "content1")]);
    assert_eq!(web.asked(), ["GET /foo 304"]);
    // Nothing is left of it in the cache, but what it was is known: it must be fetched after all.
    recipe.world.say("builder prune -af").exits(0);
    recipe.output(&[], &text).holds(&[("dest/foo", "content1")]);
    assert_eq!(web.asked().last().unwrap(), "GET /foo 200");
    web.put("/foo", Page::new("content2").tagged("two"));
    recipe.output(&[], &text).holds(&[("dest/foo", "content2")]);
    assert_eq!(web.asked(), ["GET /foo 200"]);
    // Without a tag there is no other way than to fetch it.
    web.put("/foo", Page::new("content3"));
    for _ in 0..2 {
        recipe.output(&[], &text).holds(&[("dest/foo", "content3")]);
    }
    assert_eq!(web.asked().last().unwrap(), "GET /foo 200");
    let root = web.put("/", Page::new("unnamed").modified(AGE));
    let out = recipe.output(&[], &format!("FROM scratch\nADD {root} /dest/\n"));
    out.holds(&[("dest/__unnamed__", "unnamed")]);
    let time = fs::metadata(out.path("dest/__unnamed__"))
        .unwrap()
        .modified()
        .unwrap();
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), AGE);
}

#[test]
fn a_file_has_the_mode_and_the_checksum_that_are_said() {
    let Some(recipe) = Recipe::new() else { return };
    let web = Web::start();
    let url = web.put("/foo", Page::new("content1"));
    let tar = Tar::new().file("inner", 0o644, b"packed").finish();
    let archive = web.put("/t.tgz", Page::new(gzip(&tar)));
    recipe.good(
        &["--build-arg", "mode=400"],
        &format!(
            "FROM busybox\nARG mode\nADD --chmod=644 {url} /1\nADD --chmod=0413 {url} /2\nADD --chmod=${{mode}} {url} /3\n\
             RUN test \"$(stat -c %a /1 /2 /3 | tr '\\n' ' ')\" = '644 413 400 '\n\
             ADD {archive} /kept/\nADD {archive} /named.tgz\nADD --unpack=true {archive} /open/\n\
             RUN test \"$(cat /open/inner)\" = packed -a -s /kept/t.tgz -a -s /named.tgz\n"
        ),
    );
    let sum = dhow_types::Digest::of(b"content1").to_string();
    let good = format!("FROM scratch\nENV SUM={sum} LINK={url}\nADD --checksum=${{SUM}} ${{LINK}} /foo\n");
    recipe.output(&[], &good).holds(&[("foo", "content1")]);
    let hex = sum.trim_start_matches("sha256:");
    let other = dhow_types::Digest::of(b"").to_string();
    recipe.files(&[("here", "local")]);
    for (sum, source, words) in [
        (other.as_str(), url.as_str(), "digest mismatch"),
        ("md5:7e55db001d319a94b0b713529a756623", &url, "invalid --checksum"),
        (&format!("unknown:{hex}"), &url, "invalid --checksum"),
        (hex, &url, "invalid --checksum"),
        (&sum, "here", "checksum requires HTTP(S) or Git sources"),
    ] {
        recipe.bad(
            &[],
            &format!("FROM scratch\nADD --checksum={sum} {source} /foo\n"),
            words,
        );
    }
}

#[test]
fn a_context_is_a_tar_of_a_server_or_a_dockerfile_alone() {
    let Some(recipe) = Recipe::new() else { return };
    let web = Web::start();
    let tar = Tar::new()
        .file("mydockerfile", 0o600, b"FROM scratch\nCOPY foo bar\n")
        .file("foo", 0o600, b"foo-contents")
        .finish();
    let url = web.put("/myurl", Page::new(tar));
    recipe
        .output_of(&["-f", "mydockerfile"], &url)
        .holds(&[("bar", "foo-contents")]);
    let alone = b"FROM busybox\nRUN echo foo-contents > /foo\nFROM scratch\nCOPY --from=0 /foo /foo\n";
    let url = web.put("/df", Page::new(alone.to_vec()));
    recipe.output_of(&[], &url).holds(&[("foo", "foo-contents\n")]);
    // It is the Dockerfile, whatever it is called.
    recipe
        .output_of(&["-f", "mydockerfile"], &url)
        .holds(&[("foo", "foo-contents\n")]);
    // A named context may be such a tar, too.
    let tar = Tar::new().file("lib/f", 0o644, b"of the server").finish();
    let url = web.put("/lib.tar.gz", Page::new(gzip(&tar)));
    let flag = ["--build-context", &format!("lib={url}")];
    recipe
        .output(&flag, "FROM scratch\nCOPY --from=lib lib/f /\n")
        .holds(&[("f", "of the server")]);
    let file = web.put("/one.txt", Page::new("no archive"));
    let flag = ["--build-context", &format!("lib={file}")];
    recipe
        .output(&flag, "FROM scratch\nCOPY --from=lib one.txt /\n")
        .holds(&[("one.txt", "no archive")]);
}

/// A repository with a submodule, and what its commits are called.
pub(crate) struct Repository {
    pub(crate) url: String,
    /// Of `v0.0.2` and of the newest.
    second: String,
    latest: String,
}

const DOCKERFILE: &str = "FROM scratch AS withgit\nCOPY .git/HEAD out\nFROM scratch AS withsubmod\nCOPY submod/file out\n\
                          FROM scratch\nCOPY foo out\n";

fn git(folder: &Path, line: &str) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_COMMITTER_DATE", "2023-11-14T22:15:01Z")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=master",
        ])
        .args(line.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The time of every commit.
pub(crate) const COMMITTED: u64 = 1_700_000_101;

/// Makes one in a folder that is, or will be, at a URL; none without git.
pub(crate) fn repository(recipe: &Recipe, format: &str, base: &str) -> Option<Repository> {
    if !program("git") {
        return None;
    }
    let world = &recipe.world;
    let at = |name: &str| world.path(&format!("git/{name}"));
    let init = format!("init -q --object-format={format}");
    let write = |name: &str, text: &str| drop(world.file(&format!("git/{name}"), text));
    write("sub/file", "123\n");
    git(&at("sub"), &init);
    git(&at("sub"), "add .");
    git(&at("sub"), "commit -q -m one");
    git(&at("sub"), "update-server-info");
    write("main/foo", "base\n");
    write("main/Dockerfile", DOCKERFILE);
    let main = at("main");
    git(&main, &init);
    // Taken from here, and written down as it is for others.
    let here = format!(
        "-c protocol.file.allow=always submodule --quiet add {} submod",
        at("sub").display()
    );
    git(&main, &here);
    let there = format!("config -f .gitmodules submodule.submod.url {base}/sub/.git");
    git(&main, &there);
    for (text, name) in [
        ("base\n", "v0.0.1"),
        ("v0.0.2\n", "v0.0.2"),
        ("latest\n", "latest"),
    ] {
        write("main/foo", text);
        git(&main, "add .");
        git(&main, &format!("commit -q -m {name}"));
        git(&main, &format!("tag {name}"));
        if name == "v0.0.1" {
            git(&main, "branch base");
            git(&main, "checkout -q -b feature");
            write("main/sub/foo", "subfeature\n");
            write("main/sub/Dockerfile", DOCKERFILE);
            git(&main, "add .");
            git(&main, "commit -q -m feature");
            git(&main, "checkout -q master");
        }
    }
    git(&main, "update-server-info");
    Some(Repository {
        url: format!("{base}/main/.git"),
        second: git(&main, "rev-parse v0.0.2"),
        latest: git(&main, "rev-parse latest"),
    })
}

/// The same behind a web server, that knows nothing of git.
pub(crate) fn on_web(recipe: &Recipe, web: &Web) -> Option<Repository> {
    let found = repository(recipe, "sha1", &web.url)?;
    web.put_folder_at("", &recipe.world.path("git"));
    Some(found)
}

#[test]
fn a_repository_is_named_in_all_the_ways_of_a_query() {
    let Some(recipe) = Recipe::new() else { return };
    let web = Web::start();
    let Some(Repository { url, second, latest }) = on_web(&recipe, &web) else {
        return;
    };
    let (short, wrong) = (&latest[..8], &second[..8]);
    let (latest_line, second_line) = (format!("{latest}\n"), format!("{second}\n"));
    // What follows the URL, the stage, and what is in `out`, or the words of the error.
    let table: &[(&str, &str, Result<&str, &str>)] = &[
        (
            &format!("?tag=v0.0.2&commit={latest}"),
            "",
            Err("the checksum wants"),
        ),
        ("#v0.0.2", "", Ok("v0.0.2\n")),
        ("?ref=base", "", Ok("base\n")),
        ("?branch=base", "", Ok("base\n")),
        ("?branch=invalid", "", Err("has no refs/heads/invalid")),
        ("?branch=v0.0.2", "", Err("has no refs/heads/v0.0.2")),
        ("?tag=v0.0.2#refs/tags/v0.0.2", "", Ok("v0.0.2\n")),
        (&format!("?commit={latest}"), "", Ok("latest\n")),
        (&format!("?commit={wrong}"), "", Err("the checksum wants")),
        (&format!("?commit={short}"), "", Ok("latest\n")),
        (&format!("?ref={second}"), "", Ok("v0.0.2\n")),
        (&format!("?ref={wrong}"), "", Err("has no")),
        (&format!("?tag=v0.0.2&commit={second}"), "", Ok("v0.0.2\n")),
        (&format!("?ref={second}&commit={second}"), "", Ok("v0.0.2\n")),
        ("?tag=v0.0.2#refs/heads/master", "", Err("ref conflicts")),
        ("#feature:sub", "", Ok("subfeature\n")),
        ("?subdir=sub&ref=feature", "", Ok("subfeature\n")),
        ("?keep-git-dir=true", "withgit", Ok(&latest_line)),
        ("?tag=v0.0.2&keep-git-dir=true", "withgit", Ok(&second_line)),
        ("", "withgit", Err(".git/HEAD\": not found")),
        ("?keep-git-dir&submodules", "withgit", Ok(&latest_line)),
        ("?keep-git-dir=false", "withgit", Err(".git/HEAD\": not found")),
        ("", "withsubmod", Ok("123\n")),
        ("?submodules=true", "withsubmod", Ok("123\n")),
        ("?submodules", "withsubmod", Ok("123\n")),
        ("?submodules=false", "withsubmod", Err("submod/file\": not found")),
    ];
    for (rest, stage, wanted) in table {
        let flags = if stage.is_empty() {
            &[][..]
        } else {
            &["--target", stage]
        };
        let whole = format!("{url}{rest}");
        let added = format!(
            "FROM scratch AS main\nADD {whole} /repo/\nFROM scratch AS withsubmod\nCOPY --from=main /repo/submod/file /out\n\
             FROM scratch AS withgit\nCOPY --from=main /repo/.git/HEAD /out\nFROM scratch\nCOPY --from=main /repo/foo /out\n"
        );
        match wanted {
            Ok(text) => {
                recipe.output_of(flags, &whole).holds(&[("out", text)]);
                recipe.output(flags, &added).holds(&[("out", text)]);
            }
            Err(words) => {
                let flags = [&["-o", "type=cacheonly"], flags].concat();
                recipe.call(&flags, &whole).exits(1).says(words);
                recipe.build(&flags, &added).exits(1).says(words);
            }
        }
    }
}

/// Adds parts of a repository.
fn add(recipe: &Recipe, repository: &Repository) {
    let Repository { url, second, latest } = repository;
    let unique = |flag: &str| {
        let text = format!(
            "FROM busybox AS src\nADD --keep-git-dir {flag}{url}#v0.0.2 /repo\n\
             RUN cat /proc/sys/kernel/random/uuid > /unique\nFROM scratch\nCOPY --from=src /unique /\n"
        );
        recipe.output(&[], &text).text("unique")
    };
    // To know what is expected changes nothing of it.
    let first = unique("");
    assert_eq!(unique(&format!("--checksum={second} ")), first);
    recipe.good(
        &[],
        &format!(
            "FROM busybox\nADD {url}#v0.0.1 /x\nRUN test \"$(cat /x/foo)\" = base\nARG REPO={url}\nARG TAG=v0.0.2\n\
             ADD --keep-git-dir=true --chown=4242:8484 --checksum={second} ${{REPO}}#${{TAG}} /owned\n\
             RUN test \"$(cat /owned/foo)\" = v0.0.2 -a \"$(stat -c %u:%g /owned/foo)\" = 4242:8484 -a -d /owned/.git\n\
             ADD --checksum={latest} $REPO#latest /without\nRUN test -f /without/foo -a ! -e /without/.git\n\
             ADD --keep-git-dir=true --checksum={latest} $REPO#{latest} /commit\nRUN test \"$(cat /commit/foo)\" = latest\n"
        ),
    );
    let wrong = format!("FROM busybox\nADD --checksum={second} {url}#latest /x\n");
    recipe.bad(&[], &wrong, "the checksum wants");
    let garbage = format!("FROM busybox\nADD --checksum=foobar {url}#latest /x\n");
    recipe.bad(&[], &garbage, "invalid --checksum");
    // And as a context.
    let base = recipe.output_of(&[], &format!("{url}#base"));
    base.holds(&[("out", "base\n")]);
    recipe.output_of(&[], url).holds(&[("out", "latest\n")]);
}

#[test]
fn a_repository_of_sha1_is_added() {
    let Some(recipe) = Recipe::new() else { return };
    let web = Web::start();
    let Some(repository) = on_web(&recipe, &web) else {
        return;
    };
    add(&recipe, &repository);
}

#[test]
fn a_repository_of_sha256_is_added() {
    let Some(recipe) = Recipe::new() else { return };
    if !Path::new(DAEMON).exists() {
        return;
    }
    let folder = recipe.world.path("git");
    fs::create_dir_all(&folder).unwrap();
    let daemon = Daemon::start(&folder);
    let base = daemon.url("").trim_end_matches('/').to_owned();
    let Some(repository) = repository(&recipe, "sha256", &base) else {
        return;
    };
    assert_eq!(repository.latest.len(), 64);
    add(&recipe, &repository);
}
