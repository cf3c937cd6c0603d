use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};

use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// Writes `/proc/sys/net/<key>` of the namespace that the thread is in. The keys are built from device names that
/// this crate made or checked.
pub(crate) fn write(key: &str, value: &str) -> Result<(), Error> {
    put(key, value).context(|| format!("set net/{key} to {value}"))
}

/// As [`write`]; a key that is not there is done. For IPv6, which a kernel may lack.
pub(crate) fn write_if_there(key: &str, value: &str) -> Result<(), Error> {
    match write(key, value) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes `value` unless it is there already: a write to a forwarding switch walks every interface, and `/proc/sys`
/// may be read-only where an administrator has set all this before.
pub(crate) fn ensure(key: &str, value: &str) -> Result<(), Error> {
    if is(key, value) { Ok(()) } else { write(key, value) }
}

fn path(key: &str) -> String {
    format!("/proc/sys/net/{key}")
}

fn put(key: &str, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path(key))?
        .write_all(value.as_bytes())
}

/// Whether the kernel knows IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether the administrator left it on.
pub(crate) fn host_wants_ipv6() -> bool {
    has_ipv6() && !is("ipv6/conf/all/disable_ipv6", "1")
}

/// Whether the key is there and has this short value.
pub(crate) fn is(key: &str, value: &str) -> bool {
    let mut now = [0; 16];
    File::open(path(key))
        .and_then(|mut file| file.read(&mut now))
        .is_ok_and(|length| now[..length].trim_ascii_end() == value.as_bytes())
}
