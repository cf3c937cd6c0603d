//! `--security-opt seccomp=`: profiles from files, as docker takes them.

use crate::world::World;

#[test]
fn a_profile_in_a_file_is_the_filter_of_the_container_and_of_what_joins_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let profile = world.file(
        "profile.json",
        r#"{
            "defaultAction": "SCMP_ACT_ALLOW",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": null},
                {"names": ["chown", "fchownat", "lchown"], "action": "SCMP_ACT_ERRNO",
                 "excludes": {"caps": ["CAP_NET_ADMIN"]}},
                {"names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}}
            ]
        }"#,
    );
    let option = format!("--network none --security-opt seccomp={}", profile.display());
    let script = "mkdir /tmp/a 2>&1; chown 1 /etc 2>&1; rmdir /tmp/none 2>&1; true";
    let out = world.sh(&option, script).ok();
    assert!(out.contains("No space left on device"), "{out}");
    assert!(out.contains("chown: /etc: Operation not permitted"), "{out}");
    assert!(
        out.contains("rmdir: '/tmp/none': No such file"),
        "a rule for later kernels: {out}"
    );
    // The rule about chown is not for who has the capability.
    let with = world
        .sh(
            &format!("{option} --cap-add NET_ADMIN"),
            "chown 1 /etc 2>&1; true",
        )
        .ok();
    assert!(!with.contains("chown"), "{with}");
    world
        .say(&format!("run -d --name joined {option} busybox sleep 1000"))
        .ok();
    world
        .dhow(&["exec", "joined", "mkdir", "/tmp/b"])
        .exits(1)
        .says("No space left on device");
    let shown = world.inspect("joined", "{{json .HostConfig.SecurityOpt}}");
    assert!(
        shown.contains("seccomp={") && shown.contains("errnoRet"),
        "{shown}"
    );
    world.clean();
}

#[test]
fn no_filter_is_none_and_an_empty_profile_too() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let empty = world.file("empty.json", "{}");
    let empty = format!("seccomp={}", empty.display());
    for (option, mode) in [
        ("seccomp=unconfined", "0"),
        (&empty, "0"),
        ("seccomp=builtin", "2"),
    ] {
        let line = world
            .sh(
                &format!("--network none --security-opt {option}"),
                "grep Seccomp: /proc/self/status",
            )
            .ok();
        assert_eq!(line, format!("Seccomp:\t{mode}"), "{option}");
    }
    world.clean();
}

#[test]
fn a_profile_that_cannot_be_used_is_named_and_nothing_runs() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (name, text, word) in [
        ("list.json", "[]", "decoding seccomp profile failed"),
        ("broken.json", "{", "decoding seccomp profile failed"),
        ("action.json", r#"{"defaultAction": "ALLOW"}"#, "ALLOW"),
        (
            "twice.json",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{}]}"#,
            "archMap",
        ),
    ] {
        let file = world.file(name, text);
        let ran = world.sh(
            &format!("--network none --security-opt seccomp={}", file.display()),
            "echo ran",
        );
        ran.one_error(125).says(word);
    }
    world
        .sh("--network none --security-opt seccomp=/nowhere.json", "echo ran")
        .one_error(125)
        .says("opening seccomp profile (/nowhere.json) failed");
    world.clean();
}
