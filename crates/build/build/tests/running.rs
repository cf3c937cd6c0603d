use std::fs;

use dhow_build::{Network, Secret};

use crate::bench::{bench, chain};

#[test]
fn a_command_gets_its_environment_user_directory_and_network() {
    let Some(bench) = bench() else { return };
    let mut request =
        bench.request("FROM base:1\nUSER app\nWORKDIR /w\nENV A=1\nARG B=2\nARG BUILDKIT_SBOM_SCAN_STAGE=1\nRUN --network=none write x 1\n");
    request
        .build_args
        .insert("HTTPS_PROXY".into(), "http://proxy".into());
    let image = bench.built(&request).image;
    let seen = bench.shell.last();
    assert_eq!(seen.args, ["/bin/sh", "-c", "write x 1"]);
    assert_eq!(
        seen.env,
        [
            "PATH=/bin",
            "FROM_BASE=yes",
            "A=1",
            "B=2",
            "HTTPS_PROXY=http://proxy",
            "https_proxy=http://proxy"
        ]
    );
    assert_eq!((seen.cwd.as_str(), seen.user.as_str()), ("/w", "app"));
    assert_eq!(seen.network, Network::None);
    let history = format!("{:?}", image.config.history);
    assert!(!history.contains("proxy"), "{history}");
}

#[test]
fn removing_files_makes_whiteouts_and_an_empty_change_an_empty_layer() {
    let Some(bench) = bench() else { return };
    let image = bench
        .build("FROM base:1\nRUN rm /srv/old\nRUN say nothing\n")
        .image;
    assert!(!bench.tree(&image).contains_key("srv/old"));
    assert_eq!(bench.top_layer(&image), Vec::<String>::new());
    let middle = bench
        .store
        .layers
        .layer(&image.config.rootfs.diff_ids[1])
        .unwrap()
        .index()
        .unwrap();
    assert_eq!(
        middle.find(b"srv/old").unwrap().kind,
        dhow_layer::EntryKind::Whiteout
    );
}

#[test]
fn mount_points_do_not_stay_in_the_layer() {
    let Some(bench) = bench() else { return };
    let image = bench
        .build(
            "FROM base:1\nRUN --mount=type=tmpfs,target=/new/deep/tmp stub /etc/resolv.conf; stub /etc/hosts; mkdir /proc; mkdir /dev; mkdir /new/deep/tmp\n",
        )
        .image;
    assert_eq!(bench.top_layer(&image), Vec::<String>::new());
    // What the command itself made there stays.
    let image = bench
        .build("FROM base:1\nRUN stub /etc/hosts; write /etc/own 1; mkdir /proc; write /dev/x 1\n")
        .image;
    assert_eq!(bench.top_layer(&image), ["dev", "dev/x", "etc", "etc/own"]);
    let image = bench
        .build("FROM base:1\nRUN chmod 700 /etc; stub /etc/hosts\n")
        .image;
    assert_eq!(bench.top_layer(&image), ["etc"]);
}

#[test]
fn heredocs_are_scripts_files_and_text_for_the_shell() {
    let Some(bench) = bench() else { return };
    let image = bench
        .build("FROM base:1\nRUN <<EOF\nwrite /a 1\nwrite /b 2\nEOF\n")
        .image;
    assert_eq!(bench.tree(&image)["b"], "f 644 0:0 2");
    assert_eq!(bench.shell.last().args[2], "write /a 1\nwrite /b 2\n");
    assert!(
        bench
            .log
            .take()
            .iter()
            .any(|line| line.ends_with("[2/2] RUN <<EOF (write /a 1...)"))
    );
    bench.build("FROM base:1\nRUN say 1; say <<EOF\nsay 2\nEOF\n");
    assert_eq!(bench.shell.last().args[2], "say 1; say <<EOF\nsay 2\nEOF");
}

#[test]
fn a_script_with_an_interpreter_is_mounted_as_a_file() {
    let Some(bench) = bench() else { return };
    let image = bench
        .build("FROM base:1\nSHELL [\"x\"]\nRUN <<EOF\n#!/usr/bin/python\nexit 3\nEOF\n")
        .image;
    assert_eq!(bench.tree(&image)["ran"], "f 755 0:0 #!/usr/bin/python\nexit 3\n");
    let seen = bench.shell.last();
    assert_eq!(seen.args, ["x", "/dev/pipes/EOF"]);
    assert_eq!(seen.targets, [("/dev/pipes/EOF".into(), true)]);
}

#[test]
fn binds_show_the_context_without_what_is_ignored_and_keep_writes_out() {
    let Some(bench) = bench() else { return };
    bench.file("src/a", "A");
    bench.file("src/ignored", "I");
    bench.file(".dockerignore", "**/ignored\n");
    let file = "FROM base:1\nRUN --mount=target=/m,source=src,rw copy /m/a /got; write /m/new 1\n";
    let image = bench.build(file).image;
    assert_eq!(bench.tree(&image)["got"], "f 644 0:0 A");
    assert_eq!(bench.top_layer(&image), ["got"]);
    assert!(!bench.context.path().join("src/new").exists());
    assert_eq!(bench.build(file).stats.cached, 1);
    bench.file("src/a", "changed");
    assert_eq!(bench.build(file).stats.cached, 0);
    let from = "FROM base:1 AS s\nRUN write /data/x S\nFROM base:1\nRUN --mount=from=s,source=/data,target=/m copy /m/x /got\n";
    assert_eq!(bench.tree(&bench.build(from).image)["got"], "f 644 0:0 S");
    assert_eq!(bench.build(from).stats.cached, 2);
    let failed = bench.fails("FROM base:1\nRUN --mount=target=/m,source=none true\n");
    assert!(failed.to_string().contains("\"/none\": not found"), "{failed}");
    assert_eq!(
        failed.place.as_ref().unwrap().span.start,
        "FROM base:1\nRUN ".len()
    );
    bench.assert_clean();
}

#[test]
fn a_cache_mount_outlives_builds_and_is_no_part_of_image_or_key() {
    let Some(bench) = bench() else { return };
    let file = |text: &str| format!("FROM base:1\nRUN --mount=type=cache,target=/c,id=k,mode=0700 {text}\n");
    let image = bench.build(&file("write /c/x 1")).image;
    assert_eq!(bench.top_layer(&image), Vec::<String>::new());
    let image = bench.build(&file("copy /c/x /got")).image;
    assert_eq!(bench.tree(&image)["got"], "f 644 0:0 1");
    assert_eq!(bench.build(&file("copy /c/x /got")).stats.cached, 1);
    let private = "FROM base:1\nRUN --mount=type=cache,target=/p,sharing=private write /p/x 1\nRUN --mount=type=cache,target=/p,sharing=locked copy /p/x /y\n";
    assert_eq!(bench.tree(&bench.build(private).image)["y"], "f 644 0:0 1");
}

#[test]
fn cache_mounts_of_other_owners_are_other_caches() {
    let Some(bench) = bench() else { return };
    let with = |flags: &str, text: &str| format!("RUN --mount=type=cache,target=/c{flags} {text}\n");
    let file = [
        "FROM base:1\n".to_owned(),
        with(",uid=10", "write /c/ten 1"),
        with("", "write /c/zero 1; stub /got"),
        with(",uid=10", "copy /c/ten /got-ten"),
    ];
    let tree = bench.tree(&bench.build(&file.concat()).image);
    assert!(tree.contains_key("got-ten"), "{tree:?}");
    let mounts = dhow_build::cache_mounts(bench.store.root()).unwrap();
    let files = |path: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let mut found: Vec<_> = mounts
        .iter()
        .map(|mount| (mount.name.clone().unwrap().dress, files(&mount.path)))
        .collect();
    found.sort();
    let wanted = [
        (None, vec!["zero".to_owned()]),
        (Some((0o755, 10, 0)), vec!["ten".to_owned()]),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_working_directory_is_kept_as_written_and_may_be_of_a_user_that_is_not_known() {
    let Some(bench) = bench() else { return };
    let image = bench
        .build("FROM base:1\nUSER nobody:none\nWORKDIR /new/\n")
        .image;
    assert_eq!(image.config.config.working_dir, "/new/");
    assert_eq!(
        image.config.history.last().unwrap().created_by.as_deref(),
        Some("WORKDIR /new/")
    );
    assert_eq!(bench.tree(&image)["new"], "d 755 0:0 ");
    let image = bench
        .build("FROM base:1\nWORKDIR /new/\nWORKDIR sub/\nRUN write x 1\n")
        .image;
    assert_eq!(image.config.config.working_dir, "/new/sub");
    assert!(bench.tree(&image).contains_key("new/sub/x"));
}

#[test]
fn secrets_are_files_or_variables_and_in_no_key() {
    let Some(bench) = bench() else { return };
    let file = "FROM base:1\nRUN --mount=type=secret,id=k --mount=type=secret,id=e,env=TOKEN copy /run/secrets/k /file; env TOKEN /env\n";
    let mut request = bench.request(file);
    request.secrets.insert("k".into(), Secret(b"one".to_vec()));
    request.secrets.insert("e".into(), Secret(b"two".to_vec()));
    let tree = bench.tree(&bench.built(&request).image);
    assert_eq!(tree["file"], "f 400 0:0 one");
    assert_eq!(tree["env"], "f 644 0:0 two");
    request.secrets.insert("k".into(), Secret(b"other".to_vec()));
    assert_eq!(bench.built(&request).stats.cached, 1);
    assert_eq!(fs::read_dir(&request.run_dir).unwrap().count(), 0);
    let failed = bench.fails("FROM base:1\nRUN --mount=type=secret,id=no,required say x\n");
    assert_eq!(
        chain(&failed),
        "failed to solve: secret no: not found | give it with --secret id=no,src=<file>"
    );
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let Some(bench) = bench() else { return };
    for (line, message, place) in [
        (
            "RUN --device=a.b/c=d,required x",
            "required device \"a.b/c=d\" is not registered",
            "--device=a.b/c=d,required",
        ),
        (
            "RUN --mount=type=ssh,required x",
            "unset ssh forward key default",
            "--mount=type=ssh,required",
        ),
        (
            "RUN --mount=type=cache,target=/c,from=none:1 x",
            "none:1: failed to resolve source metadata",
            "--mount=type=cache,target=/c,from=none:1",
        ),
        ("RUN", "RUN requires at least one argument", "RUN"),
        ("RUN []", "RUN requires at least one argument", "RUN []"),
        (
            "RUN --mount=target=/,source=x y",
            "invalid mount target \"/\"",
            "--mount=target=/,source=x",
        ),
        ("STOPSIGNAL SIGNO", "invalid signal: SIGNO", "STOPSIGNAL SIGNO"),
        ("EXPOSE 99999", "a port is a number up to 65535", "EXPOSE 99999"),
        (
            "EXPOSE 80/http",
            "the protocol must be tcp, udp or sctp",
            "EXPOSE 80/http",
        ),
    ] {
        let text = format!("FROM base:1\n{line}\n");
        let failed = bench.fails(&text);
        assert!(failed.to_string().contains(message), "{line}: {failed}");
        let span = failed.place.as_ref().unwrap().span;
        assert_eq!(&text[span.start..span.end], place, "{line}");
    }
    let mut request = bench.request("FROM scratch\nRUN write /x x\n");
    request.platform = Some("linux/s390x".parse().unwrap());
    assert!(
        bench
            .try_build(&request)
            .unwrap_err()
            .to_string()
            .contains("emulation is not supported")
    );
}

#[test]
fn a_working_directory_may_be_a_link_to_what_is_not_there() {
    let Some(bench) = bench() else { return };
    let text = "FROM base:1\nRUN link /var/lib/made /way\nWORKDIR /way/deep\nUSER app\nWORKDIR /way/own\n";
    let tree = bench.tree(&bench.build(text).image);
    assert_eq!(tree["way"], "l 777 0:0 /var/lib/made");
    assert_eq!(tree["var/lib/made/deep"], "d 755 0:0 ");
    assert_eq!(tree["var/lib/made/own"], "d 755 1000:1001 ");
}
