use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use dhow_build::Ignore;

use crate::bench::{Bench, bench, chain};

fn all(bench: &Bench, ignore: &str) -> Vec<String> {
    let mut request = bench.request("FROM scratch\nCOPY . /\n");
    request.ignore = Ignore::Text(ignore.to_owned());
    let image = bench.built(&request).image;
    let tree = bench.tree(&image);
    tree.into_iter()
        .filter(|(_, what)| !what.starts_with('d'))
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn ignored_files_are_not_there() {
    let Some(bench) = bench() else { return };
    for path in [
        "a",
        "b/c",
        "b/d/e",
        "node_modules/x",
        "src/node_modules/y",
        "src/main.rs",
        "README.md",
        "docs/x.md",
    ] {
        bench.file(path, path);
    }
    let table: &[(&str, &[&str])] = &[
        (
            "**/node_modules\n*.md\n",
            &["a", "b/c", "b/d/e", "docs/x.md", "src/main.rs"],
        ),
        ("**\n!src/*.rs\n!b/d\n", &["b/d/e", "src/main.rs"]),
        (
            "b\n!b/d/e\ndocs\nsrc\nnode_modules\n",
            &["README.md", "a", "b/d/e"],
        ),
        ("*\n!README.md\n", &["README.md"]),
    ];
    for (ignore, wanted) in table {
        assert_eq!(all(&bench, ignore), *wanted, "{ignore}");
    }
}

#[test]
fn a_directory_is_there_when_an_exception_below_it_is() {
    let Some(bench) = bench() else { return };
    bench.file("a/b/one", "one");
    bench.file("a/b/two", "two");
    bench.file(".dockerignore", "**\n!a/b/none\n");
    for copy in ["COPY a /x", "COPY a/b /x", "ADD a/b/ /x"] {
        let failed = bench.fails(&format!("FROM scratch\n{copy}\n"));
        assert!(chain(&failed).contains("not found"), "{copy}: {}", chain(&failed));
    }
    let image = bench.build("FROM scratch\nCOPY * /x/\nCOPY a* /x/\n").image;
    assert!(bench.tree(&image).is_empty(), "a wildcard does not see it either");
    bench.file(".dockerignore", "**\n!a/b/two\n");
    let image = bench.build("FROM scratch\nCOPY a* /x/\n").image;
    assert!(bench.tree(&image).contains_key("x/b/two"));
}

#[test]
fn the_ignore_file_of_the_dockerfile_wins_and_both_files_may_be_ignored() {
    let Some(bench) = bench() else { return };
    bench.file("a", "a");
    bench.file("b", "b");
    bench.file(".dockerignore", "a\n.dockerignore\nDockerfile\n");
    bench.file("Dockerfile", "x");
    let tree = bench.tree(&bench.build("FROM scratch\nCOPY . /\n").image);
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["b"]);
    bench.file("Dockerfile.dockerignore", "*\n!a\n");
    let tree = bench.tree(&bench.build("FROM scratch\nCOPY . /\n").image);
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["a"]);
    bench.file("Dockerfile.dockerignore", "[\n");
    let failed = bench.fails("FROM scratch\nCOPY . /\n");
    assert!(
        chain(&failed).contains("read .dockerignore: syntax error in pattern"),
        "{}",
        chain(&failed)
    );
}

#[test]
fn links_out_of_the_context_lead_nowhere() {
    let Some(bench) = bench() else { return };
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let at = |name: &str| bench.context.path().join(name);
    symlink(secret.path(), at("file")).unwrap();
    symlink("/tmp", at("dir")).unwrap();
    symlink("../../../../../../../../etc/passwd", at("up")).unwrap();
    symlink("loop2", at("loop1")).unwrap();
    symlink("loop1", at("loop2")).unwrap();
    symlink(".", at("self")).unwrap();
    for source in ["file", "dir/", "up", "dir/x"] {
        let failed = bench.fails(&format!("FROM scratch\nCOPY {source} /x\n"));
        assert!(failed.to_string().contains("not found"), "{source}: {failed}");
    }
    let failed = bench.fails("FROM scratch\nCOPY loop1 /x\n");
    assert!(failed.to_string().contains("too many symbolic links"), "{failed}");
    // As parts of a tree they are copied as what they are; a link to itself is no endless tree.
    let tree = bench.tree(&bench.build("FROM scratch\nCOPY . /c\n").image);
    assert_eq!(tree["c/self"].split(' ').next_back(), Some("."));
    assert_eq!(tree.len(), 7);
}

#[test]
fn sockets_are_skipped_and_strange_names_are_kept() {
    let Some(bench) = bench() else { return };
    let _socket = std::os::unix::net::UnixListener::bind(bench.context.path().join("socket")).unwrap();
    let names: [&[u8]; 4] = [b"not \xff utf8", b"new\nline", b"-flag", b"star*"];
    for name in names {
        fs::write(bench.context.path().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let image = bench.build("FROM scratch\nCOPY . /\n").image;
    let index = bench
        .store
        .layers
        .layer(&image.config.rootfs.diff_ids[0])
        .unwrap()
        .index()
        .unwrap();
    for name in names {
        assert!(index.find(name).is_some(), "{name:?}");
    }
    assert!(index.find(b"socket").is_none());
    assert_eq!(bench.build("FROM scratch\nCOPY . /\n").stats.cached, 1);
}

#[test]
fn a_context_that_is_too_deep_is_an_error() {
    let Some(bench) = bench() else { return };
    let mut dir = bench.context.path().to_owned();
    for _ in 0..600 {
        dir.push("d");
    }
    fs::create_dir_all(&dir).unwrap();
    let failed = bench.fails("FROM scratch\nCOPY . /\n");
    assert!(failed.to_string().contains("directories deep"), "{failed}");
}

#[test]
fn a_missing_context_and_none_at_all_are_told_apart() {
    let Some(bench) = bench() else { return };
    let mut request = bench.request("FROM scratch\nCOPY a /\n");
    request.context = Some("/nonexistent/context".into());
    let failed = bench.try_build(&request).unwrap_err();
    assert!(
        failed
            .to_string()
            .contains("open the build context /nonexistent/context"),
        "{failed}"
    );
    request.context = None;
    assert!(
        bench
            .try_build(&request)
            .unwrap_err()
            .to_string()
            .contains("\"/a\": not found")
    );
    request.dockerfile = "FROM scratch\nCOPY <<a /\nx\na\n".into();
    assert_eq!(bench.tree(&bench.built(&request).image)["a"], "f 644 0:0 x\n");
}
