//! Kernel settings of a container, restricted to what its own namespaces confine.

use std::collections::BTreeMap;
use std::ffi::CString;

use dhow_types::ErrorKind;
use rustix::thread::UnshareFlags;

use super::text;
use crate::Error;

/// One setting: file below `/proc` and value.
#[derive(Debug)]
pub(crate) struct Sysctl {
    pub(crate) name: String,
    pub(crate) file: CString,
    pub(crate) value: Vec<u8>,
    /// The namespace that confines it.
    pub(crate) needs: UnshareFlags,
}

/// Settings that an IPC namespace has its own copy of.
const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

/// Checks every setting against the namespaces that the container has of its own: any other would be the host's
/// (CVE-2022-0811: a `kernel.core_pattern` reached through a list that was not checked).
///
/// The names of the machine have fields of their own, `hostname` and `domainname`: a setting may say the same, not another.
pub(crate) fn sysctls(
    settings: &BTreeMap<String, String>,
    own: UnshareFlags,
    hostname: Option<&str>,
    domainname: Option<&str>,
) -> Result<Vec<Sysctl>, Error> {
    let mut found = Vec::with_capacity(settings.len());
    for (name, value) in settings {
        let needed = if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
            UnshareFlags::NEWIPC
        } else if name.starts_with("net.") {
            UnshareFlags::NEWNET
        } else if name == "kernel.hostname" || name == "kernel.domainname" {
            let field = name.trim_start_matches("kernel.");
            let own = if field == "hostname" { hostname } else { domainname };
            if own.is_some_and(|own| own != value) {
                let message =
                    format!("sysctl {name:?} is not allowed as it conflicts with the OCI field {field:?}");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            UnshareFlags::NEWUTS
        } else {
            let message = format!("sysctl {name:?} is not in a separate kernel namespace");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        if !own.contains(needed) {
            let message =
                format!("sysctl {name:?} is not allowed: the container shares that namespace with the host");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        // sysctl(8): the separator is a dot, and a dot inside a component (an interface name) is written as a slash.
        let path: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("sysctl name {name:?} is malformed"),
            ));
        }
        let file = text(&format!("sys/{path}"), "sysctl name")?;
        found.push(Sysctl {
            name: name.clone(),
            file,
            value: value.clone().into_bytes(),
            needs: needed,
        });
    }
    Ok(found)
}
