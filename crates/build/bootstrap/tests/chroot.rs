//! Runs programs in a root with the host's `unshare` and `chroot`: the product has its own runtime for this.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use dhow_bootstrap::{Configure, Error};
use dhow_types::ErrorKind;

pub(crate) struct Chroot;

const SCRIPT: &str = "root=$1; shift; mount --rbind /dev \"$root/dev\" && mount -t proc proc \"$root/proc\" && \
    exec chroot \"$root\" \"$@\"";

fn command(root: &Path, argv: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--net", "sh", "-c", SCRIPT, "sh"])
        .arg(root)
        .args(argv);
    command.stdin(Stdio::null());
    command
}

impl Configure for Chroot {
    fn run(
        &self,
        root: &Path,
        argv: &[&str],
        env: &[(&str, &str)],
        output: &mut dyn Write,
    ) -> Result<i32, Error> {
        let failure =
            |error: std::io::Error| Error::because(ErrorKind::Internal, "cannot run a program", error);
        let (mut reader, writer) = std::io::pipe().map_err(failure)?;
        let mut command = command(root, argv);
        command.env_clear().envs(env.iter().copied());
        command
            .stdout(writer.try_clone().map_err(failure)?)
            .stderr(writer);
        let mut child = command.spawn().map_err(failure)?;
        drop(command);
        let mut buffer = [0; 4096];
        loop {
            match reader.read(&mut buffer).map_err(failure)? {
                0 => break,
                count => output.write_all(&buffer[..count]).map_err(failure)?,
            }
        }
        Ok(child.wait().map_err(failure)?.code().unwrap_or(255))
    }
}

/// Standard output of a program inside.
pub(crate) fn output(root: &Path, argv: &[&str]) -> String {
    let done = command(root, argv).env("LC_ALL", "C.UTF-8").output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}
