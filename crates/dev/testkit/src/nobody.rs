//! Tests again, as a normal user.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

/// The user `nobody`.
const ID: u32 = 65534;

/// Runs tests of this program a second time as the user `nobody`, with a folder of theirs for what is temporary; when
/// `namespace` is set, as root of a user namespace and a mount namespace that nobody made. Gives what they said, or
/// what is left out when this is not root or a program is missing.
///
/// # Panics
/// When one of them fails, with what it said, and when there are none.
#[must_use]
pub fn as_nobody(tests: &[&str], namespace: bool, variables: &[(&str, &OsStr)]) -> String {
    let program = |name: &str| Path::new("/usr/bin").join(name).exists();
    if !rustix::process::geteuid().is_root() || !program("setpriv") || !program("unshare") {
        return "skipped: to be nobody needs root, setpriv and unshare".to_owned();
    }
    let folder = std::env::temp_dir().join(format!("dhow-nobody-{}-{namespace}", std::process::id()));
    let theirs = folder.join("t");
    std::fs::create_dir_all(&theirs).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(&theirs, Some(ID), Some(ID)).unwrap();
    let copy = folder.join("tests");
    // By another process: a file that this one writes would be busy in what other tests fork meanwhile.
    let copied = Command::new("cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    if namespace {
        command.args(["unshare", "--user", "--map-root-user", "--mount"]);
    }
    command.arg(&copy).args(tests);
    command
        .env("TMPDIR", &theirs)
        .envs(variables.iter().copied())
        .current_dir(&theirs);
    let output = command.output().unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    drop(std::fs::remove_dir_all(&folder));
    assert!(output.status.success(), "as nobody: {said}");
    assert!(!said.contains("running 0 tests"), "as nobody: {said}");
    said.trim().to_owned()
}
