//! Devices by the Container Device Interface, and the hooks that come with them.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::World;

/// A folder with one spec of a vendor, whose hooks are scripts in the same folder.
fn vendor(world: &World) -> String {
    let folder = world.path("cdi");
    std::fs::create_dir_all(&folder).unwrap();
    let hook = folder.join("hook.sh");
    // The stage, then whether the root is found: by the bundle that the state names, as vendors' programs look for it.
    let script = format!(
        "#!/bin/sh\nstate=$(cat)\nbundle=$(printf %s \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/')\n\
         [ -f \"$bundle/config.json\" ] && [ -e \"$bundle/rootfs/bin/busybox\" ] && seen=root || seen=none\n\
         echo \"$1 $seen\" >> {0}/log\n[ \"$1\" = createContainer ] && [ $seen = root ] && echo made > \"$bundle/rootfs/by-hook\"\n\
         exit ${{2:-0}}\n",
        folder.display()
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("lib.so"), "library").unwrap();
    let hooks: Vec<String> = ["createRuntime", "createContainer", "poststart", "poststop"]
        .iter()
        .map(|stage| {
            format!(
                r#"{{"hookName": "{stage}", "path": "{0}", "args": ["hook", "{stage}"]}}"#,
                hook.display()
            )
        })
        .collect();
    let document = format!(
        r#"{{"cdiVersion": "0.7.0", "kind": "vendor.com/card", "containerEdits": {{"env": ["CARDS=all"]}}, "devices": [
          {{"name": "zero", "containerEdits": {{
            "deviceNodes": [{{"path": "/dev/card0", "hostPath": "/dev/zero", "permissions": "r"}}],
            "mounts": [{{"hostPath": "{0}/lib.so", "containerPath": "/lib/card.so", "options": ["ro", "bind"]}}],
            "additionalGids": [4711], "hooks": [{1}]}}}},
          {{"name": "bad", "containerEdits": {{"hooks": [
            {{"hookName": "createContainer", "path": "{2}", "args": ["hook", "createContainer", "3"]}}]}}}}]}}"#,
        folder.display(),
        hooks.join(","),
        hook.display()
    );
    std::fs::write(folder.join("vendor.json"), document).unwrap();
    folder.display().to_string()
}

#[test]
fn a_device_by_cdi_brings_its_node_mounts_variables_groups_and_hooks() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = vendor(&world);
    let seen = world
        .sh(
            &format!("--cdi-spec-dir {folder} --device vendor.com/card=zero"),
            "stat -c %F /dev/card0; head -c 2 /dev/card0 | od -An -tx1; cat /lib/card.so; echo; echo $CARDS; id -G; \
             cat /by-hook; echo x > /lib/card.so",
        )
        .exits(1)
        .says("Read-only file system");
    let lines: Vec<&str> = seen.stdout.lines().map(str::trim).collect();
    assert_eq!(lines[..4], ["character special file", "00 00", "library", "all"]);
    assert!(lines[4].split(' ').any(|group| group == "4711"), "{lines:?}");
    assert_eq!(lines[5], "made");
    // Hooks of the runtime's namespaces find an empty folder: the root is mounted in the container's alone.
    let log = std::fs::read_to_string(format!("{folder}/log")).unwrap();
    assert_eq!(
        log,
        "createRuntime none\ncreateContainer root\npoststart none\npoststop none\n"
    );
    // It is looked up again at each start.
    world
        .say(&format!(
            "create --name again --cdi-spec-dir {folder} --device vendor.com/card=zero busybox true"
        ))
        .ok();
    let asked = world.inspect("again", "{{json .HostConfig.DeviceRequests}}");
    assert!(
        asked.contains("vendor.com/card=zero") && asked.contains("cdi"),
        "{asked}"
    );
    std::fs::rename(format!("{folder}/vendor.json"), format!("{folder}/vendor.old")).unwrap();
    world.say("start again").exits_any().says("vendor.com/card=zero");
    std::fs::rename(format!("{folder}/vendor.old"), format!("{folder}/vendor.json")).unwrap();
    world.say("start -a again").ok();
    world.say("rm again").ok();
    world.clean();
}

#[test]
fn a_device_that_no_vendor_has_is_named_with_the_folders() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = vendor(&world);
    let run = |device: &str| world.sh(&format!("--cdi-spec-dir {folder} {device}"), "true");
    run("--device vendor.com/card=one")
        .exits_any()
        .says("vendor.com/card=one")
        .says(&folder)
        .says("zero");
    run("--gpus all")
        .exits_any()
        .says("nvidia.com/gpu=all")
        .says(&folder);
    run("--gpus all,driver=other").exits_any().says("driver=other");
    world
        .sh("--device other.com/card=one", "true")
        .exits_any()
        .says("/etc/cdi")
        .says("/var/run/cdi");
    assert_eq!(world.say("ps -aq").ok(), "");
    // A hook that fails stops the start, in runc's words.
    run("--device vendor.com/card=bad")
        .exits_any()
        .says("createContainer hook #0: exit status 3");
    world.clean();
}

#[test]
fn a_build_step_has_a_device_that_the_builder_allows() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = vendor(&world);
    let build = |flags: &[&str], options: &str| {
        let text = format!(
            "FROM busybox\nRUN --device=vendor.com/card={options} (cat /lib/card.so; echo; echo $CARDS; id -G; \
             head -c 1 /dev/card0 | od -An -tx1) > /seen 2>&1; true\n"
        );
        let mut words = vec!["build", "--progress", "plain", "--network", "none", "-t", "made"];
        words.extend(["--cdi-spec-dir", &folder]);
        words.extend(flags);
        words.push("-");
        world.feed(&words, text)
    };
    let name = "device=vendor.com/card=zero";
    for flags in [
        &[][..],
        &["--allow", "network.host"],
        &["--allow", "device=vendor.com/card=other"],
    ] {
        build(flags, "zero")
            .exits(1)
            .says("device \"vendor.com/card=zero\" is requested by the build but not allowed")
            .says("hint: allow it with --allow device=vendor.com/card=zero");
    }
    let seen = || world.sh_in("made", "cat /seen; ls /dev/card0 /lib/card.so 2>/dev/null; true");
    build(&["--allow", name], "zero").exits(0);
    assert_eq!(seen(), "library\nall\n0 4711\n 00");
    // Its programs found the root of the step; what one made there is in the layer as what the command makes is.
    let log = std::fs::read_to_string(world.path("cdi/log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        lines,
        [
            "createRuntime none",
            "createContainer root",
            "poststart none",
            "poststop none"
        ]
    );
    assert_eq!(world.sh_in("made", "cat /by-hook"), "made");
    // One that fails is told of.
    build(&["--allow", "device"], "bad").exits(1).says("exit status");
    // A step with it is another one than without.
    build(&["--allow", "device"], "none")
        .exits(0)
        .says("device \"vendor.com/card=none\" is not registered, and left out");
    assert!(!seen().contains("library"), "{}", seen());
    build(&["--allow", "device"], "zero,required")
        .says("CACHED")
        .exits(0);
    assert!(seen().contains("library"), "{}", seen());
    build(&["--allow", "device"], "none,required")
        .exits(1)
        .says("required device \"vendor.com/card=none\" is not registered");
    build(&["--allow", "device="], "zero").exits(125).says("--allow");
    world.clean();
}
