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
    pub(crate) inheritable: CapabilitySet,
    pub(crate) ambient: CapabilitySet,
}

impl Masks {
    /// Masks of a spec; none given means none held. What is named and cannot be had is told in `warnings`, as the standard
    /// wants it.
    ///
    /// The spec's inheritable set would hand capabilities to every program with inheritable file capabilities, also for a
    /// user who is not root (CVE-2022-29162). So it is taken over under `no_new_privileges` alone, where the capabilities of
    /// files give nothing. Else exactly the ambient ones are inheritable, as the kernel wants, if the spec has them so.
    pub(crate) fn parse(
        sets: Option<&Capabilities>,
        no_new_privileges: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let Some(sets) = sets else {
            let none = CapabilitySet::empty();
            return Ok(Self {
                bounding: none,
                effective: none,
                permitted: none,
                inheritable: none,
                ambient: none,
            });
        };
        let mut unknown = Vec::new();
        let mut mask = |names| mask(names, &mut unknown);
        let (bounding, inheritable) = (mask(&sets.bounding), mask(&sets.inheritable));
        let (effective, permitted, ambient) =
            (mask(&sets.effective), mask(&sets.permitted), mask(&sets.ambient));
        if !unknown.is_empty() {
            warnings.push(format!(
                "ignoring unknown or unavailable capabilities: [{}]",
                unknown.join(" ")
            ));
        }
        // The kernel's own answer to such an inheritable set (cap_capset), which would be lost with the set.
        if let Some(name) = names(inheritable - bounding).next() {
            let message = format!(
                "inheritable capability {name} is not in the bounding set: operation not permitted{}",
                warnings
                    .iter()
                    .map(|warning| format!("; {warning}"))
                    .collect::<String>()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let raised = ambient & inheritable & permitted;
        for name in names(ambient - raised) {
            warnings.push(format!(
                "can't raise ambient capability {name}: it is not inheritable and permitted"
            ));
        }
        Ok(Self {
            bounding,
            effective,
            permitted,
            inheritable: if no_new_privileges { inheritable } else { raised },
            ambient: raised,
        })
    }
}

fn names(set: CapabilitySet) -> impl Iterator<Item = String> {
    let held = move |at: usize| set.bits() & (1 << at) != 0;
    let all = NAMES.iter().enumerate();
    all.filter(move |(at, _)| held(*at))
        .map(|(_, name)| format!("CAP_{name}"))
}

/// The capabilities of these names; a name that is none goes to `unknown`, once.
fn mask(names: &[String], unknown: &mut Vec<String>) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    for name in names {
        let number = name
            .strip_prefix("CAP_")
            .and_then(|name| NAMES.iter().position(|known| *known == name));
        match number {
            Some(number) => set |= CapabilitySet::from_bits_retain(1 << number),
            None if unknown.contains(name) => {}
            None => unknown.push(name.clone()),
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[String]) -> CapabilitySet {
        mask(names, &mut Vec::new())
    }

    fn set(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_have_the_numbers_of_the_kernel() {
        let all: Vec<String> = NAMES.iter().map(|name| format!("CAP_{name}")).collect();
        assert_eq!(known(&all).bits(), (1 << 41) - 1);
        assert_eq!(known(&set(&["CAP_SYS_ADMIN"])), CapabilitySet::SYS_ADMIN);
        assert_eq!(
            known(&set(&["CAP_CHECKPOINT_RESTORE"])),
            CapabilitySet::CHECKPOINT_RESTORE
        );
        assert_eq!(known(&set(&["CAP_SETFCAP"])), CapabilitySet::SETFCAP);
        assert!(names(known(&all)).eq(all));
    }

    #[test]
    fn what_cannot_be_had_is_told_and_left_out() {
        let mut warnings = Vec::new();
        let sets = Capabilities {
            bounding: set(&["CAP_KILL", "CAP_CHOWN", "CAP_SYS_GOD"]),
            permitted: set(&["CAP_KILL", "CAP_CHOWN", "CHOWN"]),
            effective: set(&["CAP_SYS_GOD"]),
            inheritable: set(&["CAP_KILL"]),
            ambient: set(&["CAP_KILL", "CAP_CHOWN"]),
        };
        let masks = Masks::parse(Some(&sets), false, &mut warnings).unwrap();
        assert_eq!(masks.bounding, CapabilitySet::KILL | CapabilitySet::CHOWN);
        assert_eq!(masks.ambient, CapabilitySet::KILL);
        assert!(masks.effective.is_empty());
        let [unknown, ambient] = warnings.as_slice() else {
            panic!("{warnings:?}");
        };
        assert!(unknown.ends_with(": [CAP_SYS_GOD CHOWN]"), "{unknown}");
        assert!(
            ambient.starts_with("can't raise ambient capability CAP_CHOWN:"),
            "{ambient}"
        );
    }

    #[test]
    fn an_inheritable_capability_has_to_be_in_the_bounding_set() {
        let sets = Capabilities {
            inheritable: set(&["CAP_KILL"]),
            ..Capabilities::default()
        };
        let error = Masks::parse(Some(&sets), false, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("operation not permitted"), "{error}");
    }

    #[test]
    fn the_inheritable_set_counts_only_where_it_gives_nothing() {
        let sets = Capabilities {
            bounding: set(&["CAP_KILL", "CAP_CHOWN"]),
            permitted: set(&["CAP_KILL"]),
            inheritable: set(&["CAP_KILL", "CAP_CHOWN"]),
            ambient: set(&["CAP_KILL"]),
            ..Capabilities::default()
        };
        let inheritable = |no_new_privileges| {
            let masks = Masks::parse(Some(&sets), no_new_privileges, &mut Vec::new());
            masks.unwrap().inheritable
        };
        assert_eq!(inheritable(false), CapabilitySet::KILL);
        assert_eq!(inheritable(true), CapabilitySet::KILL | CapabilitySet::CHOWN);
    }
}
