//! Capability names and masks.

use dhow_oci::runtime::Capabilities;
use dhow_types::ErrorKind;
use rustix::thread::CapabilitySet;

use crate::Error;

/// Names by number (`include/uapi/linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The sets a process ends up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) bounding: CapabilitySet,
    pub(crate) effective: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
    pub(crate) ambient: CapabilitySet,
}

impl Masks {
    /// Masks of a spec; none given means none held.
    ///
    /// The spec's inheritable set is not taken over: it would hand capabilities to every program with inheritable
    /// file capabilities, also for a user who is not root (CVE-2022-29162). The kernel wants ambient capabilities to be
    /// inheritable, so exactly those are.
    pub(crate) fn parse(sets: Option<&Capabilities>) -> Result<Self, Error> {
        let none = Capabilities::default();
        let sets = sets.unwrap_or(&none);
        mask(&sets.inheritable)?;
        Ok(Self {
            bounding: mask(&sets.bounding)?,
            effective: mask(&sets.effective)?,
            permitted: mask(&sets.permitted)?,
            ambient: mask(&sets.ambient)?,
        })
    }
}

fn mask(names: &[String]) -> Result<CapabilitySet, Error> {
    let mut set = CapabilitySet::empty();
    for name in names {
        let number = name
            .strip_prefix("CAP_")
            .and_then(|name| NAMES.iter().position(|known| *known == name));
        let Some(number) = number else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("unknown capability {name:?}"),
            ));
        };
        set |= CapabilitySet::from_bits_retain(1 << number);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_numbers_of_the_kernel() {
        let all: Vec<String> = NAMES.iter().map(|name| format!("CAP_{name}")).collect();
        assert_eq!(mask(&all).unwrap().bits(), (1 << 41) - 1);
        assert_eq!(mask(&["CAP_SYS_ADMIN".into()]).unwrap(), CapabilitySet::SYS_ADMIN);
        assert_eq!(
            mask(&["CAP_CHECKPOINT_RESTORE".into()]).unwrap(),
            CapabilitySet::CHECKPOINT_RESTORE
        );
        assert_eq!(mask(&["CAP_SETFCAP".into()]).unwrap(), CapabilitySet::SETFCAP);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert_eq!(
            mask(&["CAP_SYS_GOD".into()]).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        assert_eq!(
            mask(&["CHOWN".into()]).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
}
