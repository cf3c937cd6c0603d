//! What a normal user can do, and what they are told about the rest. As root, these run the binary as `nobody`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::world::{Ran, World, binary, finish};

/// A copy of the binary and a folder that `nobody` can reach.
struct Nobody {
    world: World,
    binary: PathBuf,
    home: PathBuf,
}

impl Nobody {
    const ID: u32 = 65534;

    fn new() -> Self {
        let world = World::anyone();
        let copy = world.path("dhow");
        // By another process: a file that this one writes would be busy in what other tests fork meanwhile.
        assert!(
            Command::new("cp")
                .arg(binary())
                .arg(&copy)
                .status()
                .unwrap()
                .success()
        );
        let home = world.path("home");
        fs::create_dir(&home).unwrap();
        for path in [copy.parent().unwrap(), &copy, &home] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&home, Some(Self::ID), Some(Self::ID)).unwrap();
        }
        Self {
            world,
            binary: copy,
            home,
        }
    }

    fn feed(&self, args: &[&str], input: Vec<u8>) -> Ran {
        let mut command = Command::new(&self.binary);
        command.args(args).env("HOME", &self.home).current_dir(&self.home);
        for name in ["DHOW_ROOT", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(Self::ID).gid(Self::ID);
        }
        finish(command, input)
    }

    fn dhow(&self, args: &[&str]) -> Ran {
        self.feed(args, Vec::new())
    }
}

#[test]
fn unprivileged_version_and_doctor_work() {
    let nobody = Nobody::new();
    assert!(nobody.dhow(&["--version"]).ok().starts_with("dhow 0."));
    nobody.dhow(&["version"]).exits(0).prints("Version");
    let ran = nobody.dhow(&["doctor"]);
    assert!(ran.code == 0 || ran.code == 1, "{ran:?}");
    for word in ["kernel", "control groups", "overlay", "not root"] {
        assert!(ran.stdout.to_lowercase().contains(word), "{word}: {ran:?}");
    }
}

#[test]
fn unprivileged_images_are_kept_below_the_persons_home() {
    let nobody = Nobody::new();
    assert_eq!(nobody.dhow(&["images", "-q"]).ok(), "");
    let id = nobody
        .feed(&["import", "-", "box"], crate::samples::busybox_tar())
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert!(nobody.home.join(".local/share/dhow").exists());
    let saved = nobody.dhow(&["save", "box"]).exits(0).bytes;
    nobody.dhow(&["rmi", "box"]).ok();
    assert!(
        nobody
            .feed(&["load"], saved)
            .ok()
            .contains("Loaded image: box:latest")
    );
    assert_eq!(nobody.dhow(&["images", "-q", "--no-trunc"]).ok(), id);
    nobody.dhow(&["system", "check"]).ok();
    nobody.dhow(&["history", "box"]).exits(0);
    nobody.dhow(&["ps", "-a"]).exits(0);
}

#[test]
fn unprivileged_another_root_folder_can_be_named() {
    let nobody = Nobody::new();
    let root = nobody.home.join("else").display().to_string();
    let id = nobody
        .feed(
            &["--root", &root, "import", "-", "box"],
            crate::samples::busybox_tar(),
        )
        .ok();
    assert_eq!(
        nobody.dhow(&["--root", &root, "images", "-q", "--no-trunc"]).ok(),
        id
    );
    assert_eq!(nobody.dhow(&["images", "-q"]).ok(), "");
    let forbidden = nobody.world.path("mine").display().to_string();
    if rustix::process::geteuid().is_root() {
        nobody
            .dhow(&["--root", &forbidden, "images"])
            .one_error(1)
            .says("permission denied");
        nobody
            .dhow(&["--root", "/var/lib/dhow-of-root", "images"])
            .one_error(1)
            .says("--root");
    }
}

#[test]
fn unprivileged_run_says_what_is_missing() {
    let nobody = Nobody::new();
    nobody
        .feed(&["import", "-", "box"], crate::samples::busybox_tar())
        .ok();
    let ran = nobody.dhow(&["run", "--rm", "box", "true"]);
    if ran.code != 0 {
        let said = ran.one_error(125).stderr.to_lowercase();
        assert!(said.contains("root"), "it says who can: {said}");
    }
    nobody.dhow(&["system", "check"]).ok();
}
