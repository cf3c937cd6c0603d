//! AppArmor and SELinux, where the kernel has them; what is said where it has not.

use std::path::Path;
use std::process::Command;

use dhow_runtime::lsm::{apparmor_enabled, selinux_enabled};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, linux, process};

tests! {
    a_profile_is_refused_where_there_is_no_apparmor
    a_label_is_refused_where_there_is_no_selinux
    unconfined_is_what_everybody_is
    the_process_and_those_that_join_are_under_the_profile
    a_profile_that_is_not_loaded_is_an_error
    a_procfs_of_the_image_does_not_take_the_profile_away
    the_process_its_keys_and_its_files_have_their_labels
}

/// Loads a profile of a test's own; none, said, where that cannot be.
struct Profile(&'static str);

impl Profile {
    fn load(name: &'static str) -> Option<Self> {
        if !apparmor_enabled() {
            println!("skipped: this kernel has no AppArmor");
            return None;
        }
        let me = Self(name);
        if !me.parser("--replace") {
            println!("skipped: apparmor_parser (package apparmor) cannot load a profile");
            return None;
        }
        Some(me)
    }

    fn parser(&self, action: &str) -> bool {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  network,\n  capability,\n  signal,\n  \
             mount,\n  umount,\n  deny /tmp/forbidden w,\n}}\n",
            self.0
        );
        let scratch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(scratch.path(), text).unwrap();
        let mut parser = Command::new("apparmor_parser");
        parser.args(["-Kq", action]).arg(scratch.path());
        parser.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

fn a_profile_is_refused_where_there_is_no_apparmor() {
    if apparmor_enabled() {
        println!("skipped: this kernel has AppArmor");
        return;
    }
    let image = Image::new();
    let spec = Image::shell("true", |spec| {
        process(spec).apparmor_profile = Some("acme".into())
    });
    let (kind, message) = image.refused(&spec);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(
        message.contains("apparmor: config provided but apparmor not supported"),
        "{message}"
    );
}

fn a_label_is_refused_where_there_is_no_selinux() {
    if selinux_enabled() {
        println!("skipped: this kernel has SELinux");
        return;
    }
    let image = Image::new();
    let label = || Some("system_u:system_r:container_t:s0:c1,c2".to_owned());
    let (kind, message) = image.refused(&Image::shell("true", |spec| {
        process(spec).selinux_label = label();
    }));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(
        message.contains("selinux is disabled or not supported"),
        "{message}"
    );
    // One for files alone confines nothing.
    let out = image.sh("echo fine", |spec| linux(spec).mount_label = label());
    assert_eq!(out, "fine\n");
}

fn unconfined_is_what_everybody_is() {
    let image = Image::new();
    let out = image.sh("echo fine", |spec| {
        process(spec).apparmor_profile = Some("unconfined".into())
    });
    assert_eq!(out, "fine\n");
}

fn the_process_and_those_that_join_are_under_the_profile() {
    let Some(profile) = Profile::load("dhow-test-joined") else {
        return;
    };
    let image = Image::new();
    let script = "cat /proc/self/attr/current; touch /tmp/forbidden 2>&1 || echo refused";
    for no_new_privileges in [false, true] {
        let out = image.sh(script, |spec| {
            process(spec).apparmor_profile = Some(profile.0.into());
            process(spec).no_new_privileges = no_new_privileges;
            process(spec).user.uid = 1000;
        });
        assert!(
            out.contains("dhow-test-joined (enforce)") && out.contains("refused"),
            "{out}"
        );
    }
    let sleeper = image.sleeping(|_| ());
    let out = sleeper.sh(script, |process| {
        process.apparmor_profile = Some(profile.0.into())
    });
    assert!(
        out.contains("dhow-test-joined (enforce)") && out.contains("refused"),
        "{out}"
    );
}

fn a_profile_that_is_not_loaded_is_an_error() {
    if !apparmor_enabled() {
        println!("skipped: this kernel has no AppArmor");
        return;
    }
    let image = Image::new();
    let spec = Image::shell("echo ran", |spec| {
        process(spec).apparmor_profile = Some("dhow-test-nowhere".into());
    });
    let (_, message) = image.refused(&spec);
    assert!(
        message.contains("unable to apply apparmor profile \"dhow-test-nowhere\""),
        "{message}"
    );
}

/// CVE-2019-16884, CVE-2023-28642: what is found at /proc in the container is the image's.
fn a_procfs_of_the_image_does_not_take_the_profile_away() {
    let Some(profile) = Profile::load("dhow-test-faked") else {
        return;
    };
    let image = Image::new();
    let fake = image.beside("fake");
    for folder in ["self/attr/apparmor", "thread-self/attr/apparmor", "self/attr"] {
        std::fs::create_dir_all(fake.join(folder)).unwrap();
        std::fs::write(fake.join(folder).join("exec"), "").unwrap();
    }
    // A mount over procfs, which a volume of the image could bring.
    let out = image.sh("touch /tmp/forbidden 2>&1 || echo refused", |spec| {
        process(spec).apparmor_profile = Some(profile.0.into());
        linux(spec).masked_paths.clear();
        linux(spec).readonly_paths.clear();
        let bind = crate::fixture::mount("/proc", "bind", fake.to_str().unwrap(), &["bind"]);
        spec.mounts.push(bind);
    });
    assert!(out.contains("refused"), "{out}");
    assert_eq!(std::fs::read(fake.join("self/attr/exec")).unwrap(), b"");
}

fn the_process_its_keys_and_its_files_have_their_labels() {
    if !selinux_enabled() {
        println!("skipped: this kernel has no SELinux");
        return;
    }
    if !Path::new("/etc/selinux").exists() {
        println!("skipped: no policy is installed");
        return;
    }
    let image = Image::new();
    let files = "system_u:object_r:container_file_t:s0:c1,c2";
    let status = Command::new("chcon")
        .args(["-R", files])
        .arg(image.root())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: the policy has no container_file_t (package with container-selinux)");
        return;
    }
    let label = "system_u:system_r:container_t:s0:c1,c2";
    let script =
        "cat /proc/self/attr/current; echo; touch /dev/shm/x; ls -Z /dev/shm/x; grep ' / ' /proc/keys; true";
    let change = |spec: &mut dhow_oci::runtime::Spec| {
        process(spec).selinux_label = Some(label.into());
        linux(spec).mount_label = Some(files.into());
    };
    let out = image.sh(script, change);
    assert!(out.contains(label), "{out}");
    assert!(out.contains(files), "{out}");
    let sleeper = image.sleeping(change);
    let out = sleeper.sh("cat /proc/self/attr/current", |process| {
        process.selinux_label = Some(label.into())
    });
    assert!(out.contains(label), "{out}");
}
