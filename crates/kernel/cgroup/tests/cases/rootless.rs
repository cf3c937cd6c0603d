//! What a user hears who may make no groups: nothing without limits, and a clear word with them.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use dhow_cgroup::{Group, Place};
use dhow_oci::runtime::{MemoryLimit, Resources};
use dhow_types::ErrorKind;

#[test]
fn without_rights_a_container_runs_without_a_group_unless_one_is_asked_for() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root to be somebody else");
        return;
    }
    // Another user and no group of ours: a process of its own, which runs the test below.
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "rootless::as_nobody", "--nocapture"])
        .uid(65_534)
        .gid(65_534)
        .output();
    match ran {
        Err(error) => println!("skipped: nobody may not run this program: {error}"),
        Ok(ran) => {
            let said = String::from_utf8_lossy(&ran.stdout);
            let also = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success() && said.contains("1 passed"), "{said}{also}");
        }
    }
}

#[test]
#[ignore = "run by the test above as another user"]
fn as_nobody() {
    assert!(!rustix::process::geteuid().is_root());
    let id = format!("dhow-test-{}-nobody", std::process::id());
    let limited = Resources {
        memory: Some(MemoryLimit {
            limit: Some(64 << 20),
            ..MemoryLimit::default()
        }),
        ..Resources::default()
    };
    let anywhere = Place::parse(None, &id).unwrap();
    assert!(
        Group::create_at(&anywhere, &Resources::default())
            .unwrap()
            .is_none()
    );
    let error = Group::create_at(&anywhere, &limited).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let v1 = "cannot set memory limit: container could not join or create cgroup";
    let v2 = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
    let text = error.to_string();
    assert!(text.starts_with(v1) || text.starts_with(v2), "{text}");
    let named = Place::parse(Some(&format!("/{id}")), &id).unwrap();
    let error = Group::create_at(&named, &Resources::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("unable to apply cgroup configuration: permission denied"),
        "{error}"
    );
}
