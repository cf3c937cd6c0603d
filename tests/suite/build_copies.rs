//! `COPY` and `ADD` of files that are here: where they go, whose they are, what is left out.

use std::fs;
use std::os::unix::fs::symlink;

use dhow_testkit::{Tar, gzip};

use crate::recipe::Recipe;

#[test]
fn destinations_are_folders_files_and_nothing() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("f", "hello"), ("sub/g", "deep"), ("sub/h", "deeper")]);
    recipe.good(
        &[],
        "FROM busybox\nENV none=\"\"\nWORKDIR /one\nWORKDIR two\nCOPY f $none\nRUN test \"$PWD\" = /one/two && cat /one/two/f\n\
         COPY --link f .\nCOPY --link sub/g $none\nRUN test \"$(cat f g)\" = hellodeep\n\
         ADD f ./bar/added\nCOPY f ./bar/copied\nRUN cat /one/two/bar/added /one/two/bar/copied\n\
         WORKDIR ..\nCOPY f ./\nRUN cat /one/f\nCOPY f /three/\nRUN cat /three/f\n\
         WORKDIR /four\nCOPY . .\nRUN cat /four/sub/g\nWORKDIR /five/six\nCOPY f ../\nRUN test -f /five/f -a ! -e /five/six/f\n\
         COPY sub/ /seven\nCOPY sub/. /eight\nCOPY sub /nine\nRUN cat /seven/g /eight/g /nine/g\n",
    );
}

#[test]
fn sources_are_wildcards_variables_and_names_of_all_kinds() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("s/d/e/f", "f"),
        ("täst.txt", "umlaut"),
        ("t%C3%A4st.txt", "percent"),
        ("t+st.txt", "plus"),
    ]);
    let out = recipe.output(
        &[],
        "FROM scratch\nENV name b.txt\nCOPY $name named\nCOPY [ab].txt /both/\nCOPY a*.txt one\nCOPY s/* /under/\n\
         COPY s/*/e/f /found/\nCOPY s/*/e/f /renamed/g\nCOPY . all/\nCOPY a.txt nothing* /some/\n\
         COPY täst.txt t%C3%A4st.txt t+st.txt /odd/\n",
    );
    out.holds(&[
        ("named", "b"),
        ("both/a.txt", "a"),
        ("both/b.txt", "b"),
        ("one", "a"),
        ("under/e/f", "f"),
        ("found/f", "f"),
        ("renamed/g", "f"),
        ("all/s/d/e/f", "f"),
        ("some/a.txt", "a"),
        ("odd/täst.txt", "umlaut"),
        ("odd/t%C3%A4st.txt", "percent"),
        ("odd/t+st.txt", "plus"),
    ]);
    // Twice the same, and a folder over what a file made.
    let text = "FROM scratch\nCOPY s s\nCOPY s s\nCOPY a.txt to/a.txt\nCOPY a.txt to/a.txt\nCOPY s/d to\n";
    recipe
        .output(&[], text)
        .holds(&[("s/d/e/f", "f"), ("to/a.txt", "a"), ("to/e/f", "f")]);
}

#[test]
fn links_are_followed_where_they_are_named_and_in_every_folder_on_the_way() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[
        ("real/f", "through"),
        ("bar", "bar"),
        ("l/file", "file"),
        ("l/end", "end"),
    ]);
    symlink("real", recipe.at("way")).unwrap();
    symlink("bar", recipe.at("to-bar")).unwrap();
    symlink("../bar", recipe.at("real/up")).unwrap();
    symlink("second", recipe.at("l/first")).unwrap();
    symlink("end", recipe.at("l/second")).unwrap();
    let text =
        "FROM scratch\nCOPY way/f .\nCOPY to-bar /\nCOPY real/up /up\nCOPY l/f* many/\nCOPY real /tree\n";
    let out = recipe.output(&[], text);
    out.holds(&[
        ("f", "through"),
        ("to-bar", "bar"),
        ("up", "bar"),
        ("many/file", "file"),
        ("many/first", "end"),
    ]);
    assert_eq!(
        fs::read_link(out.path("tree/up")).unwrap().to_str(),
        Some("../bar")
    );
    // The same in a stage, and a link at the destination, that leads to what is not there yet.
    let tar = Tar::new().symlink("lead", "../tmp/not-yet").finish();
    fs::write(recipe.at("lead.tar"), tar).unwrap();
    let text = "FROM busybox AS made\nRUN mkdir -p /o/sub && ln -s /o/sub /abs && ln -s o/sub /rel && echo x > /abs/x\n\
                FROM scratch\nADD lead.tar /\nCOPY --from=made /abs/x .\nCOPY --from=made /rel/x y\nCOPY bar /lead/\n";
    recipe
        .output(&[], text)
        .holds(&[("x", "x\n"), ("y", "x\n"), ("tmp/not-yet/bar", "bar")]);
}

#[test]
fn a_folder_of_the_context_may_become_a_file_and_a_socket_is_left_out() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("thing/x", "inside")]);
    let text = "FROM scratch\nCOPY thing /t/\n";
    recipe.output(&[], text).holds(&[("t/x", "inside")]);
    fs::remove_dir_all(recipe.at("thing")).unwrap();
    recipe.files(&[("thing", "a file now")]);
    recipe.output(&[], text).holds(&[("t/thing", "a file now")]);
    let _socket = std::os::unix::net::UnixListener::bind(recipe.at("s")).unwrap();
    recipe.output(&[], "FROM scratch\nCOPY . /\n").lacks(&["s"]);
}

#[test]
fn owners_are_names_numbers_and_variables_and_those_of_folders_that_are_there_stay() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("f", "f"), ("d/sub", "s")]);
    recipe.good(
        &["--build-arg", "group=wheel"],
        "FROM busybox\nENV owner 1000\nARG group\nCOPY --chown=ada f /\nCOPY --chown=1000:wheel d /made\n\
         COPY --chown=${owner}:${group} f /both\nADD --chown=${owner}:${group} f /added\nCOPY --chown=ada:ada . /dest\n\
         RUN test \"$(stat -c '%U:%G' /f /made /made/sub /both /added /dest /dest/d | tr '\\n' ' ')\" = \
         'ada:ada ada:wheel ada:wheel ada:wheel ada:wheel ada:ada ada:ada '\n",
    );
    let text = "FROM busybox AS from\nRUN mkdir -p /d/sub && touch /f /d/sub/n && busybox chown 100:200 /f /d && \
                busybox chown 101:201 /d/sub && busybox chown 102:202 /d/sub/n\n\
                FROM busybox AS here\nRUN mkdir -p /e/own && busybox chown 500:600 /e && busybox chown 501:601 /e/own\n\
                FROM here AS plain\nCOPY --from=from /f .\nCOPY --from=from /d /d\nCOPY --from=from /d/. /e\n\
                RUN test \"$(stat -c %u:%g /f /d/sub /d/sub/n /e /e/own /e/sub /e/sub/n | tr '\\n' ' ')\" = \
                '100:200 101:201 102:202 500:600 501:601 101:201 102:202 '\n\
                FROM here\nCOPY --from=from --chown=300:400 /f .\nCOPY --from=from --chown=300:400 /d /d\n\
                COPY --from=from --chown=300:400 /d/. /e\n\
                RUN test \"$(stat -c %u:%g /f /d /d/sub /d/sub/n /e /e/own /e/sub /e/sub/n | tr '\\n' ' ')\" = \
                '300:400 300:400 300:400 300:400 500:600 501:601 300:400 300:400 '\n";
    recipe.good(&["--target", "plain"], text);
    recipe.good(&[], text);
}

#[test]
fn modes_are_octal_symbolic_or_refused() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("f", "f"), ("d/x", "x")]);
    recipe.good(
        &["--build-arg", "mode=755"],
        "FROM busybox\nARG mode\nCOPY --chmod=0644 f /\nCOPY --chmod=777 d /d\nCOPY --chmod=0 f /none\n\
         COPY --chmod=777 f /p/f\nCOPY --chmod=770 f /p/q/f\nCOPY --chmod=${mode} f /v\n\
         RUN test \"$(stat -c %a /f /d /none /p /p/q /v | tr '\\n' ' ')\" = '644 777 0 777 770 755 '\n",
    );
    let mut text = "FROM busybox AS in\nRUN touch /file && chmod 666 /file && mkdir -p /t/dir && chmod 124 /t/dir\nFROM busybox\n"
        .to_owned();
    // What chmod makes of it.
    for (number, (source, mode)) in [
        ("file", "go-w"),
        ("file", "u=rw,g=r,o=r"),
        ("file", "a+X"),
        ("dir", "go-w"),
        ("dir", "u+rw,g+r,o-x,o+w"),
        ("dir", "a+X"),
    ]
    .iter()
    .enumerate()
    {
        let (from, to, first) = if *source == "dir" {
            (
                "/t",
                format!("/n{number}"),
                format!("mkdir /w{number} && chmod 124 /w{number}"),
            )
        } else {
            (
                "/file",
                format!("/n{number}"),
                format!("touch /w{number} && chmod 666 /w{number}"),
            )
        };
        let got = if *source == "dir" {
            format!("{to}/dir")
        } else {
            to.clone()
        };
        text.push_str(&format!(
            "COPY --from=in --chmod={mode} {from} {to}\nRUN {first} && chmod {mode} /w{number} && \
             test \"$(stat -c %a {got})\" = \"$(stat -c %a /w{number})\"\n"
        ));
    }
    recipe.good(&[], &text);
    for (verb, mode) in [
        ("COPY", "64a"),
        ("COPY", "10000"),
        ("ADD", "64a"),
        ("ADD", "10000"),
    ] {
        let wanted = format!("invalid chmod parameter: '{mode}'");
        recipe.bad(
            &[],
            &format!("FROM scratch\n{verb} --chmod={mode} f /\n"),
            &wanted,
        );
    }
}

#[test]
fn parents_are_kept_from_the_point_on_and_wildcards_may_find_nothing() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("p/q/bar", "bar"), ("p/q/baz", "baz")]);
    let out = recipe.output(
        &[],
        "FROM scratch\nCOPY --parents p/q/bar /\nWORKDIR /t\nCOPY --parents p/q/ba* .\n",
    );
    out.holds(&[("p/q/bar", "bar"), ("t/p/q/bar", "bar"), ("t/p/q/baz", "baz")]);
    out.lacks(&["p/q/baz"]);
    let make = "FROM busybox AS from\nWORKDIR /t\nRUN mkdir -p a/b/c/d/e a/b2/c/d/e a/b/c2/d/e a/b/c2/d/e2 && \
                touch a/b/c/d/foo a/b/c/d/e/bay a/b2/c/d/e/bar a/b/c2/d/e/baz a/b/c2/d/e2/baz\nFROM busybox\n";
    for (sources, there, gone) in [
        ("/t/a/b/c/d", "/o/t/a/b/c/d/e/bay", "/o/e /o/a"),
        ("/t/a/b/./c/d", "/o/c/d/e /o/c/d/foo", "/o/a /o/e"),
        ("/t/a/b/c/d/.", "/o/t/a/b/c/d/e /o/t/a/b/c/d/foo", "/o/e"),
        ("./t/a/b/c/d", "/o/t/a/b/c/d/foo", "/o/a"),
        ("/t/a/./b/./c", "/o/b/c/d/e /o/b/c/d/foo", "/o/c"),
        ("/t/a/./*/c", "/o/b/c/d/e /o/b2/c/d/e/bar", "/o/b/c2"),
        ("/t/a/b*/./c/**/e", "/o/c/d/e/bay /o/c/d/e/bar", "/o/c/d/foo"),
        (
            "/t/a/b/c*/./d/**/baz /t/a/b*/./c/**/bar",
            "/o/d/e/baz /o/d/e2/baz /o/c/d/e/bar",
            "/o/d/e/bay",
        ),
        ("/t/a/b3*/c", "/o", "/o/a /o/t"),
        ("/t/a/b/./c3*", "/o", "/o/a /o/c"),
    ] {
        recipe.good(
            &[],
            &format!(
                "{make}COPY --from=from --parents {sources} /o/\n\
                 RUN for f in {there}; do test -e $f || exit 1; done; for f in {gone}; do test ! -e $f || exit 2; done\n"
            ),
        );
    }
    let text = format!("{make}COPY --from=from --parents /t/absent /o/\n");
    recipe.bad(&[], &text, "\"/t/absent\": not found");
}

#[test]
fn what_is_excluded_by_a_pattern_is_not_copied() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[
        ("d1/1.png", "2"),
        ("d1/1.txt", "3"),
        ("d2/2.pdf", "6"),
        ("d2/2.jpeg", "7"),
        ("d3/3.mp3", "9"),
        ("d3/3.mpeg", "10"),
    ]);
    symlink("1.txt", recipe.at("d1/link.txt")).unwrap();
    // Once of the context, once of a stage.
    for from in ["", "--from=all "] {
        let add = if from.is_empty() { "ADD" } else { "COPY" };
        let text = format!(
            "FROM scratch AS all\nCOPY . /\nFROM scratch\n\
             COPY {from}--exclude=*/*.png --exclude=*/*.jpeg . /1\n\
             COPY {from}--exclude=*/*.pdf --exclude=*/*.txt . /2\n\
             {add} {from}--exclude=*.mp3 d3/ /3/\n\
             COPY {from}--exclude=*.mp3 --exclude=*.png --exclude=*.txt --exclude=*.pdf --exclude=*.jpeg d* /4/\n\
             {add} {from}--exclude=*.mp* --exclude=*.jpeg --exclude=*.png --exclude=*.pdf d* /5\n\
             {add} {from}--exclude=* d* /6\n"
        );
        let out = recipe.output(&[], &text);
        out.holds(&[
            ("1/d1/1.txt", "3"),
            ("1/d2/2.pdf", "6"),
            ("1/d3/3.mp3", "9"),
            ("2/d1/1.png", "2"),
            ("2/d2/2.jpeg", "7"),
            ("3/3.mpeg", "10"),
            ("4/3.mpeg", "10"),
            ("5/1.txt", "3"),
            ("5/link.txt", "3"),
        ]);
        out.lacks(&[
            "1/d1/1.png",
            "1/d2/2.jpeg",
            "2/d1/1.txt",
            "2/d1/link.txt",
            "2/d2/2.pdf",
            "3/3.mp3",
            "4/1.png",
            "4/3.mp3",
            "5/3.mpeg",
            "5/1.png",
        ]);
        assert_eq!(
            crate::world::names(&out.path("6")),
            Vec::<String>::new(),
            "{from}"
        );
    }
}

#[test]
fn archives_are_unpacked_with_the_folders_that_they_imply_and_through_links() {
    let Some(recipe) = Recipe::new() else { return };
    let write = |name: &str, bytes: Vec<u8>| fs::write(recipe.at(name), bytes).unwrap();
    // Neither `etc/` nor `etc/deep/` has an entry of its own.
    let implied = Tar::new().file("etc/deep/f", 0o644, b"implied").finish();
    write("implied.tgz", gzip(&implied));
    let root = Tar::new()
        .directory("run", 0o755)
        .directory("var", 0o755)
        .symlink("var/run", "/run")
        .finish();
    write("root.tar", root);
    let through = Tar::new()
        .directory("var/run/a", 0o755)
        .file("var/run/a/HEAD", 0o644, b"ref")
        .hardlink("var/run/a/HEAD.link", "var/run/a/HEAD")
        .finish();
    write("through.tar", through);
    write("one.tar", Tar::new().file("one", 0o644, b"1").finish());
    write("two.tar", Tar::new().file("two", 0o644, b"2").finish());
    let out = recipe.output(
        &[],
        "FROM scratch\nADD implied.tgz /\nADD root.tar /\nADD through.tar /\nADD o*.tar t*.tar /w/\nADD one.tar /w2\n",
    );
    out.holds(&[
        ("etc/deep/f", "implied"),
        ("run/a/HEAD", "ref"),
        ("run/a/HEAD.link", "ref"),
        ("w/one", "1"),
        ("w/two", "2"),
        ("w2/one", "1"),
    ]);
    use std::os::unix::fs::MetadataExt as _;
    let inode = |name: &str| fs::metadata(out.path(name)).unwrap().ino();
    assert_eq!(inode("run/a/HEAD"), inode("run/a/HEAD.link"));
    recipe.good(
        &[],
        "FROM busybox\nADD --chown=100:200 one.tar /made/\nADD --unpack=false implied.tgz /kept/\nCOPY implied.tgz /kept/again\n\
         RUN test \"$(stat -c %u:%g /made /made/one | tr '\\n' ' ')\" = '100:200 100:200 ' && \
         test ! -e /kept/etc && test -s /kept/implied.tgz && test -s /kept/again\n",
    );
}

#[test]
fn the_ignore_file_that_is_beside_a_dockerfile_goes_first_and_a_bad_one_is_told() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[
        ("foo", "foo"),
        ("bar", "bar"),
        ("baz", "baz"),
        ("bay", "bay"),
        (".dockerignore", "ba*\nDockerfile\n!bay\n.dockerignore\n"),
    ]);
    let all = "FROM scratch\nCOPY . .\n";
    let out = recipe.output(&[], all);
    out.holds(&[("foo", "foo"), ("bay", "bay")]);
    out.lacks(&[".dockerignore", "Dockerfile", "bar", "baz"]);
    recipe.files(&[
        ("Dockerfile.dockerignore", "bar\n"),
        ("Second", all),
        ("Second.dockerignore", "foo\n"),
    ]);
    let out = recipe.output(&[], all);
    assert!(out.has("foo") && !out.has("bar"));
    let second = recipe.at("Second").display().to_string();
    let out = recipe.output(&["-f", &second], all);
    assert!(out.has("bar") && !out.has("foo"));
    recipe.files(&[("Dockerfile.dockerignore", "!\n")]);
    recipe.bad(&[], all, ".dockerignore");
}

#[test]
fn a_wildcard_misses_the_cache_by_content_and_by_name() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("foo1", "1"), ("foo2", "2"), ("bar", "b")]);
    let text = "FROM busybox AS base\nCOPY foo* files/\nRUN cat /proc/sys/kernel/random/uuid > unique\nCOPY bar files/\n\
                FROM scratch\nCOPY --from=base unique /\n";
    let unique = || recipe.output(&[], text).text("unique");
    let first = unique();
    recipe.files(&[("bar", "changed")]);
    assert_eq!(unique(), first);
    recipe.files(&[("foo2", "changed")]);
    assert_ne!(unique(), first);
    let text = "FROM busybox\nCOPY foo* /files/\nRUN ls /files/foo1\n";
    recipe.good(&[], text);
    fs::rename(recipe.at("foo1"), recipe.at("foo3")).unwrap();
    recipe.bad(&[], text, "foo1");
}
