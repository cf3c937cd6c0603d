//! `ADD` of URLs and repositories, named contexts, seeded caches, agents.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use dhow_build::{NamedContext, Secret};

use crate::bench::{bench, chain};

const URL: &str = "https://files.test/a/tool.txt?x=1";

#[test]
fn a_file_of_a_url_has_mode_0600_its_own_time_and_is_cached_by_its_content() {
    let Some(bench) = bench() else { return };
    bench.hub.serve(URL, b"one", Some(1_000_000));
    let text = format!("FROM base:1\nADD {URL} /opt/\nADD --chmod=644 --chown=app {URL} /tool\n");
    let built = bench.build(&text);
    let tree = bench.tree(&built.image);
    assert_eq!(tree["opt/tool.txt"], "f 600 0:0 one");
    assert_eq!(tree["tool"], "f 644 1000:1001 one");
    let last = built
        .image
        .config
        .history
        .last()
        .unwrap()
        .created_by
        .clone()
        .unwrap();
    assert_eq!(
        last,
        format!("ADD --chown=app --chmod=644 {URL} /tool # buildkit")
    );
    let layer = bench
        .store
        .layers
        .layer(built.image.config.rootfs.diff_ids.last().unwrap())
        .unwrap();
    assert_eq!(layer.index().unwrap().find(b"tool").unwrap().mtime, 1_000_000);
    // The same content is cached, other content is not.
    assert_eq!(bench.build(&text).stats.cached, 2);
    bench.hub.serve(URL, b"two", None);
    let again = bench.build(&text);
    assert_eq!(again.stats.cached, 0);
    assert_eq!(bench.tree(&again.image)["tool"], "f 644 1000:1001 two");
    drop((built, again));
    bench.assert_clean();
}

#[test]
fn a_checksum_is_checked_and_saves_the_download_when_the_step_is_cached() {
    let Some(bench) = bench() else { return };
    bench.hub.serve(URL, b"one", None);
    let digest = dhow_types::Digest::of(b"one");
    let text = format!("FROM base:1\nARG SUM={digest}\nADD --checksum=$SUM {URL} /opt/\n");
    bench.build(&text);
    assert_eq!(bench.hub.asked(), [format!("{URL} by nobody")]);
    assert_eq!(bench.build(&text).stats.cached, 1);
    assert_eq!(bench.hub.asked(), Vec::<String>::new());
    let wrong = dhow_types::Digest::of(b"two");
    let failed = bench.fails(&format!("FROM base:1\nADD --checksum={wrong} {URL} /opt/\n"));
    assert!(chain(&failed).contains("digest mismatch"), "{failed:?}");
    for (text, message) in [
        (
            format!("ADD --checksum={digest} {URL} {URL} /opt/"),
            "multiple sources",
        ),
        (
            format!("ADD --checksum={digest} . /opt/"),
            "requires HTTP(S) or Git",
        ),
        (format!("ADD --checksum=md5:00 {URL} /opt/"), "invalid --checksum"),
        (format!("COPY {URL} /opt/"), "can't be a URL"),
    ] {
        let failed = bench.fails(&format!("FROM base:1\n{text}\n"));
        assert!(chain(&failed).contains(message), "{text}: {failed:?}");
    }
    bench.assert_clean();
}

#[test]
fn an_archive_of_a_url_is_unpacked_only_when_asked_for() {
    let Some(bench) = bench() else { return };
    let mut tar = tar_of("inner", b"content");
    tar.resize(10240, 0);
    let url = "https://files.test/a.tar";
    bench.hub.serve(url, &tar, None);
    let image = bench
        .build(&format!(
            "FROM base:1\nADD {url} /as-it-is/\nADD --unpack {url} /unpacked/\n"
        ))
        .image;
    let tree = bench.tree(&image);
    assert!(tree["as-it-is/a.tar"].starts_with("f 600 "));
    assert_eq!(tree["unpacked/inner"], "f 644 0:0 content");
}

/// A tar with one file, by hand: the format of 1988.
fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(content);
    tar.resize(1024, 0);
    tar
}

#[test]
fn credentials_are_secrets_of_the_host_and_stay_out_of_the_image() {
    let Some(bench) = bench() else { return };
    bench.hub.serve(URL, b"one", None);
    let repository = "https://git.test/a.git";
    bench
        .hub
        .commits
        .lock()
        .unwrap()
        .insert(repository.to_owned(), "a".repeat(40));
    let mut request = bench.request(&format!("FROM base:1\nADD {URL} /a\nADD {repository} /b\n"));
    for (id, value) in [
        ("HTTP_AUTH_TOKEN_files.test", "hush-file\n"),
        ("HTTP_AUTH_TOKEN_other.test", "no"),
        ("GIT_AUTH_TOKEN.git.test", "hush-git"),
        ("GIT_AUTH_TOKEN", "no"),
    ] {
        request
            .secrets
            .insert(id.to_owned(), Secret(value.as_bytes().to_vec()));
    }
    let image = bench.built(&request).image;
    let asked = bench.hub.asked();
    assert_eq!(
        asked,
        [
            format!("{URL} by Bearer hush-file"),
            "commit by hush-git".to_owned(),
            "checkout".to_owned()
        ]
    );
    assert!(!format!("{:?}{:?}", image.config, bench.tree(&image)).contains("hush"));
    let bad = Secret(b"a\r\nx: y".to_vec());
    request
        .secrets
        .insert("HTTP_AUTH_HEADER_files.test".to_owned(), bad);
    request.no_cache = true;
    assert!(chain(&bench.try_build(&request).unwrap_err()).contains("is no header"));
}

#[test]
fn a_repository_is_its_files_at_a_commit_and_is_fetched_only_when_it_moved() {
    let Some(bench) = bench() else { return };
    let (repository, commit) = (
        "https://git.test/a.git",
        "0123456789abcdef0123456789abcdef01234567",
    );
    let at = |commit: &str| {
        drop(
            bench
                .hub
                .commits
                .lock()
                .unwrap()
                .insert(repository.to_owned(), commit.to_owned()),
        )
    };
    at(commit);
    let text =
        format!("FROM base:1\nADD {repository}#main:sub /sub\nADD --keep-git-dir {repository} /all/\n");
    let tree = bench.tree(&bench.build(&text).image);
    assert_eq!(tree["sub/deep/file"], "f 644 0:0 deep");
    assert!(!tree.contains_key("sub/file") && !tree.contains_key("sub/.git"));
    assert_eq!(tree["all/file"], format!("f 644 0:0 {commit}"));
    assert!(tree.contains_key("all/.git/config"));
    bench.hub.asked();
    assert_eq!(bench.build(&text).stats.cached, 2);
    assert_eq!(bench.hub.asked(), ["commit by nobody", "commit by nobody"]);
    at(&"b".repeat(40));
    assert_eq!(bench.build(&text).stats.cached, 0);
    let checked = format!("FROM base:1\nADD --checksum=0123456 {repository} /a\n");
    assert!(chain(&bench.fails(&checked)).contains("the checksum wants 0123456"));
    at(commit);
    let image = bench.build(&checked).image;
    assert!(!bench.tree(&image).contains_key("a/.git"));
    for bad in [
        format!("ADD {repository}#--upload-pack=x /a"),
        format!("ADD --keep-git-dir=false {repository}?keep-git-dir /a"),
        format!("ADD {repository}?subdir=../../etc/* /a"),
        format!("ADD {repository}#main:nowhere /a"),
    ] {
        bench.fails(&format!("FROM base:1\n{bad}\n"));
    }
    bench.assert_clean();
}

#[test]
fn a_named_context_takes_the_place_of_an_image_a_stage_and_a_source() {
    let Some(bench) = bench() else { return };
    bench.image("other:1", &[("other", "image")], |_| {});
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("own"), "folder").unwrap();
    fs::write(folder.path().join("left"), "out").unwrap();
    fs::write(folder.path().join(".dockerignore"), "left\n").unwrap();
    let local = || NamedContext::Local(folder.path().to_owned());
    let build = |text: &str, contexts: &[(&str, NamedContext)]| {
        let mut request = bench.request(text);
        for (name, context) in contexts {
            request.contexts.insert(NamedContext::key(name), context.clone());
        }
        bench.tree(&bench.built(&request).image)
    };
    let image = || NamedContext::Image("other:1".to_owned());
    let tree = build("FROM alpine:latest\n", &[("alpine", image())]);
    assert_eq!(tree["other"], "f 644 0:0 image");
    let tree = build("FROM lib\n", &[("lib", local())]);
    assert_eq!(tree["own"], "f 644 0:0 folder");
    assert!(!tree.contains_key("left"));
    // The stage is not run at all.
    let text = "FROM nowhere:1 AS maker\nRUN exit 7\nFROM base:1\nCOPY --from=maker own /made\n";
    assert_eq!(build(text, &[("Maker", local())])["made"], "f 644 0:0 folder");
    let text = "FROM base:1\nCOPY --from=lib own /a\nRUN --mount=from=lib,target=/lib copy /lib/own /b\n";
    let tree = build(text, &[("lib", local())]);
    assert_eq!(
        (tree["a"].as_str(), tree["b"].as_str()),
        ("f 644 0:0 folder", "f 644 0:0 folder")
    );
    let repository = "https://git.test/a.git";
    bench
        .hub
        .commits
        .lock()
        .unwrap()
        .insert(repository.to_owned(), "c".repeat(40));
    let git = NamedContext::Git(format!("{repository}#main:sub"));
    let tree = build(
        "FROM base:1\nCOPY --from=lib deep/file /a\nCOPY --from=lib . /b\n",
        &[("lib", git)],
    );
    assert_eq!(
        (tree["a"].as_str(), tree["b/deep/file"].as_str()),
        ("f 644 0:0 deep", "f 644 0:0 deep")
    );
    assert!(!tree.contains_key("b/file"));
    // A changed file of a named context is seen.
    fs::write(folder.path().join("own"), "changed").unwrap();
    let text = "FROM base:1\nCOPY --from=lib own /a\n";
    assert_eq!(build(text, &[("lib", local())])["a"], "f 644 0:0 changed");
    bench.assert_clean();
}

#[test]
fn a_cache_begins_with_the_files_of_another_stage() {
    let Some(bench) = bench() else { return };
    let text = "FROM base:1 AS seed\nRUN write /seed/a 1\nFROM base:1\n\
                RUN --mount=type=cache,target=/c,from=seed,source=/seed copy /c/a /first; write /c/a 2\n";
    assert!(bench.tree(&bench.build(text).image)["first"].ends_with(" 1"));
    // It goes on with what was written, and another cache of that place has nothing of it.
    let text = text.replace("/first; write /c/a 2", "/second");
    assert!(bench.tree(&bench.build(&text).image)["second"].ends_with(" 2"));
    let text = "FROM base:1\nRUN --mount=type=cache,target=/c,from=base:1,source=/srv copy /c/old /third\n";
    assert!(bench.tree(&bench.build(text).image)["third"].ends_with(" old"));
    bench.assert_clean();
}

#[test]
fn an_agent_is_a_socket_of_the_step_and_may_be_required() {
    let Some(bench) = bench() else { return };
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("agent");
    let listener = UnixListener::bind(&agent).unwrap();
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut bytes = Vec::new();
            let mut stream = stream.unwrap();
            if stream.read_to_end(&mut bytes).is_ok() && bytes == b"ping" {
                stream.write_all(b"pong").unwrap();
            }
        }
    });
    let text = "FROM base:1\nRUN --mount=type=ssh,required connect /run/buildkit/ssh_agent.0 /answer; env SSH_AUTH_SOCK /where\n";
    assert!(chain(&bench.fails(text)).contains("unset ssh forward key default"));
    bench.build("FROM base:1\nRUN --mount=type=ssh env SSH_AUTH_SOCK /where\n");
    assert_eq!(bench.shell.last().targets, []);
    let mut request = bench.request(text);
    request.ssh.insert("default".to_owned(), agent.clone());
    let tree = bench.tree(&bench.built(&request).image);
    assert_eq!(tree["answer"], "f 644 0:0 pong");
    assert_eq!(tree["where"], "f 644 0:0 /run/buildkit/ssh_agent.0");
    thread.join().unwrap();
    fs::remove_file(&agent).unwrap();
    request.no_cache = true;
    assert!(chain(&bench.try_build(&request).unwrap_err()).contains("forward the ssh agent"));
    bench.assert_clean();
}

#[test]
fn a_wildcard_may_stand_before_the_kept_part_of_parents() {
    let Some(bench) = bench() else { return };
    for path in ["a/x/k/1", "a/y/k/2", "b/z/k/3", "a/x/n/4"] {
        bench.file(path, path);
    }
    let image = bench
        .build("FROM scratch\nCOPY --parents a/*/./k/* /to/\nCOPY --parents **/./n /deep/\n")
        .image;
    let files: Vec<String> = bench
        .tree(&image)
        .into_keys()
        .filter(|path| path.matches('/').count() > 1)
        .collect();
    assert_eq!(files, ["deep/n/4", "to/k/1", "to/k/2"]);
    // As docker has it, a wildcard that matches nothing copies nothing.
    bench.build("FROM scratch\nCOPY --parents c*/./k /to/\n");
}

#[test]
fn a_device_that_is_required_is_an_error_and_another_is_left_out() {
    let Some(bench) = bench() else { return };
    bench.build("FROM base:1\nRUN --device=vendor.test/gpu=0 say x\n");
    assert!(
        bench
            .log
            .take()
            .iter()
            .any(|line| line.contains("warning device \"vendor.test/gpu=0\""))
    );
    let failed = bench.fails("FROM base:1\nRUN --device=name=vendor.test/gpu=0,required say x\n");
    assert!(
        chain(&failed).contains("required device \"vendor.test/gpu=0\" is not registered"),
        "{failed:?}"
    );
    bench.fails("FROM base:1\nRUN --device=a,colour=red say x\n");
}

#[test]
fn an_epoch_is_the_time_of_the_image_and_of_every_line_that_the_build_adds() {
    let Some(bench) = bench() else { return };
    let mut request = bench.request("FROM base:1\nENV A=1\nRUN write /x 1\nLABEL b=c\n");
    request
        .build_args
        .insert("SOURCE_DATE_EPOCH".to_owned(), "1000000000".to_owned());
    let image = bench.built(&request).image;
    let time = Some("2001-09-09T01:46:40Z".to_owned());
    assert_eq!(image.config.created, time);
    let own = image.config.history.iter().rev().take(3);
    assert!(
        own.clone().count() == 3 && own.into_iter().all(|line| line.created == time),
        "{:?}",
        image.config.history
    );
}

#[test]
fn why_a_step_is_not_cached_names_the_source_that_is_another() {
    let Some(bench) = bench() else { return };
    bench.file("local", "same");
    bench.hub.serve(URL, b"one", None);
    let request = bench.request(&format!("FROM base:1\nADD local {URL} /opt/\n"));
    drop(bench.built(&request));
    bench.hub.serve(URL, b"two", None);
    bench.log.take();
    drop(bench.built(&request));
    let lines = bench.log.take();
    assert!(
        lines.iter().any(|line| line.contains("remote source")),
        "{lines:?}"
    );
}
