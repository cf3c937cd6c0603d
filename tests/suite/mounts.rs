//! `--mount` in its rarer forms: images, parts of volumes and images, mounts below a bind's source.

use std::path::Path;

use crate::world::{Ran, World};

impl World {
    /// A shell script in a container with one mount.
    fn with_mount(&self, mount: &str, script: &str) -> Ran {
        self.dhow(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--mount",
            mount,
            "busybox",
            "sh",
            "-c",
            script,
        ])
    }
}

/// A folder with a tmpfs below it, unmounted when dropped.
struct Below(std::path::PathBuf);

impl Below {
    fn new(world: &World) -> Self {
        let folder = world.path("top");
        std::fs::create_dir_all(folder.join("mnt")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount(
            "tmpfs",
            folder.join("mnt"),
            "tmpfs",
            flags,
            None::<&std::ffi::CStr>,
        )
        .unwrap();
        std::fs::write(folder.join("mnt/below"), "x").unwrap();
        Self(folder)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let how = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.0.join("mnt"), how).unwrap_or(());
    }
}

#[test]
fn an_image_is_mounted_and_kept_as_long_as_a_container_has_it() {
    for world in World::of_each_back_end() {
        world.import_busybox("busybox");
        let tar = crate::samples::busybox_tar();
        world
            .feed(&["import", "--change", "LABEL x=1", "-", "tools"], tar)
            .ok();
        let script =
            "ls /tools/bin/busybox && ! touch /tools/x 2>/dev/null && cmp /bin/busybox /tools/bin/busybox";
        world
            .with_mount("type=image,source=tools,target=/tools", script)
            .exits(0);
        world
            .with_mount("type=image,src=tools,dst=/b,image-subpath=bin", "ls /b/busybox")
            .exits(0);
        world
            .with_mount(
                "type=image,src=tools,dst=/b,image-subpath=bin/busybox",
                "test -f /b",
            )
            .exits(0);
        // Written to, it is as new the next time.
        let args = [
            "create",
            "--name",
            "some",
            "--network",
            "none",
            "--mount",
            "type=image,source=tools,target=/tools,rw=true",
            "busybox",
            "sh",
            "-c",
            "ls /tools/new 2>/dev/null; touch /tools/new && echo wrote",
        ];
        world.dhow(&args).ok();
        for _ in 0..2 {
            assert_eq!(world.say("start -a some").ok(), "wrote");
        }
        world.say("rmi tools").exits(1).says("container");
        world.say("image prune -af").ok();
        assert_eq!(world.say("start -a some").ok(), "wrote");
        world.clean();
        world.say("rm some").ok();
        world.say("rmi tools").ok();
        world.clean();
        world
            .with_mount("type=image,src=busybox,dst=/b,image-subpath=no/such", "true")
            .exits(127)
            .says("cannot access path");
        world
            .with_mount("type=image,src=busybox,dst=/b,image-subpath=../x", "true")
            .exits(125)
            .says("subpath must be a relative path within the image");
    }
}

#[test]
fn a_part_of_a_volume_stays_in_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let fill = "mkdir -p /v/sub/deep && echo hello > /v/sub/file && ln -s /etc /v/out && ln -s sub /v/in && echo top > /v/top";
    world.with_mount("type=volume,src=data,dst=/v", fill).exits(0);
    let part = |path: &str, script: &str| {
        world.with_mount(
            &format!("type=volume,src=data,dst=/v,volume-subpath={path}"),
            script,
        )
    };
    assert_eq!(part("sub", "cat /v/file; ls /v").ok(), "hello\ndeep\nfile");
    assert_eq!(part("in/file", "cat /v").ok(), "hello");
    part("sub/deep", "touch /v/new").exits(0);
    assert!(Path::new(&world.root().join("volumes/data/_data/sub/deep/new")).exists());
    // A link to elsewhere means a place inside.
    part("out", "true").exits(127).says("cannot access path");
    part("no/such", "true").exits(127).says("cannot access path");
    part("/etc", "true")
        .exits(125)
        .says("subpath must be a relative path within the volume");
    part("../x", "true")
        .exits(125)
        .says("subpath must be a relative path within the volume");
    world
        .with_mount("type=volume,dst=/v,volume-subpath=x", "true")
        .exits(125)
        .says("anonymous volumes");
    // An empty part takes what the image has there, and nothing else does.
    world
        .with_mount("type=volume,src=data,dst=/v", "mkdir /v/etc")
        .exits(0);
    world
        .with_mount(
            "type=volume,src=data,dst=/etc,volume-subpath=etc",
            "test -e /etc/passwd",
        )
        .exits(0);
    world
        .with_mount(
            "type=volume,src=data,dst=/etc,volume-subpath=sub,volume-nocopy",
            "! test -e /etc/passwd",
        )
        .exits(0);
    world
        .with_mount(
            "type=volume,src=made,dst=/m,volume-label=a=b,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
            "grep -q 'tmpfs /m ' /proc/mounts || grep ' /m ' /proc/mounts",
        )
        .exits(0);
    assert_eq!(world.inspect("made", "{{.Labels.a}}"), "b");
}

#[test]
fn what_is_mounted_below_a_bind_comes_along_as_it_is_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let below = Below::new(&world);
    let top = below.0.display();
    let bind = |more: &str, script: &str| {
        world
            .with_mount(&format!("type=bind,src={top},dst=/m{more}"), script)
            .exits(0);
    };
    let written = "touch /m/mnt/x";
    let refused = "! touch /m/mnt/x 2>/dev/null && test -e /m/mnt/below";
    bind("", written);
    bind(",readonly", refused);
    bind(",readonly,bind-recursive=enabled", refused);
    bind(
        ",readonly,bind-recursive=writable",
        "! touch /m/x 2>/dev/null && touch /m/mnt/x",
    );
    bind(
        ",readonly,bind-recursive=readonly,bind-propagation=rprivate",
        refused,
    );
    bind(",bind-recursive=disabled", "! test -e /m/mnt/below");
    bind(",bind-nonrecursive", "! test -e /m/mnt/below");
    world
        .with_mount(
            &format!("type=bind,src={top},dst=/m,bind-recursive=writable"),
            "true",
        )
        .exits(125)
        .says("requires 'readonly'");
    world
        .with_mount("type=cache,dst=/m", "true")
        .exits(125)
        .says("use bind, volume, tmpfs or image");
}
