//! Which capabilities a container has.

use dhow_oci::runtime::Capabilities;
use dhow_types::ErrorKind;

use crate::Error;

/// What docker gives (moby `oci/caps/defaults.go`), in its order.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All, by number (linux/capability.h), with the kernel that brought the newer ones.
const ALL: [(&str, (u32, u32)); 41] = [
    ("CAP_CHOWN", (0, 0)),
    ("CAP_DAC_OVERRIDE", (0, 0)),
    ("CAP_DAC_READ_SEARCH", (0, 0)),
    ("CAP_FOWNER", (0, 0)),
    ("CAP_FSETID", (0, 0)),
    ("CAP_KILL", (0, 0)),
    ("CAP_SETGID", (0, 0)),
    ("CAP_SETUID", (0, 0)),
    ("CAP_SETPCAP", (0, 0)),
    ("CAP_LINUX_IMMUTABLE", (0, 0)),
    ("CAP_NET_BIND_SERVICE", (0, 0)),
    ("CAP_NET_BROADCAST", (0, 0)),
    ("CAP_NET_ADMIN", (0, 0)),
    ("CAP_NET_RAW", (0, 0)),
    ("CAP_IPC_LOCK", (0, 0)),
    ("CAP_IPC_OWNER", (0, 0)),
    ("CAP_SYS_MODULE", (0, 0)),
    ("CAP_SYS_RAWIO", (0, 0)),
    ("CAP_SYS_CHROOT", (0, 0)),
    ("CAP_SYS_PTRACE", (0, 0)),
    ("CAP_SYS_PACCT", (0, 0)),
    ("CAP_SYS_ADMIN", (0, 0)),
    ("CAP_SYS_BOOT", (0, 0)),
    ("CAP_SYS_NICE", (0, 0)),
    ("CAP_SYS_RESOURCE", (0, 0)),
    ("CAP_SYS_TIME", (0, 0)),
    ("CAP_SYS_TTY_CONFIG", (0, 0)),
    ("CAP_MKNOD", (0, 0)),
    ("CAP_LEASE", (0, 0)),
    ("CAP_AUDIT_WRITE", (0, 0)),
    ("CAP_AUDIT_CONTROL", (0, 0)),
    ("CAP_SETFCAP", (0, 0)),
    ("CAP_MAC_OVERRIDE", (0, 0)),
    ("CAP_MAC_ADMIN", (0, 0)),
    ("CAP_SYSLOG", (0, 0)),
    ("CAP_WAKE_ALARM", (0, 0)),
    ("CAP_BLOCK_SUSPEND", (3, 5)),
    ("CAP_AUDIT_READ", (3, 16)),
    ("CAP_PERFMON", (5, 8)),
    ("CAP_BPF", (5, 8)),
    ("CAP_CHECKPOINT_RESTORE", (5, 9)),
];

/// The bounding set (moby `caps.TweakCapabilities`): privileged has all; `--cap-add ALL` has all but the dropped;
/// `--cap-drop ALL` has the added alone; else docker's without the dropped, with the added.
pub(crate) fn bounding(
    add: &[String],
    drop: &[String],
    privileged: bool,
    kernel: (u32, u32),
) -> Result<Vec<String>, Error> {
    let (add, drop) = (names(add)?, names(drop)?);
    let known = || {
        ALL.iter()
            .filter(|(_, since)| *since <= kernel)
            .map(|(name, _)| *name)
    };
    let has = |list: &[&str], name: &str| list.contains(&name);
    let mut out: Vec<&str> = if privileged {
        known().collect()
    } else if has(&add, "ALL") {
        known().filter(|name| !has(&drop, name)).collect()
    } else if has(&drop, "ALL") {
        add
    } else {
        let kept = DEFAULT.iter().copied().filter(|name| !has(&drop, name));
        kept.chain(add).collect()
    };
    let mut seen = Vec::with_capacity(out.len());
    out.retain(|name| {
        let fresh = !seen.contains(name);
        seen.push(*name);
        fresh
    });
    Ok(out.into_iter().map(str::to_owned).collect())
}

/// Names as people write them: any case, with or without `CAP_`.
fn names(words: &[String]) -> Result<Vec<&'static str>, Error> {
    words
        .iter()
        .map(|word| {
            let upper = word.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if bare == "ALL" {
                return Ok("ALL");
            }
            ALL.iter()
                .map(|(name, _)| *name)
                .find(|name| name.strip_prefix("CAP_") == Some(bare))
                .ok_or_else(|| {
                    let shown: String = word.chars().take(64).collect();
                    Error::new(ErrorKind::InvalidArgument, format!("{shown:?} is no capability"))
                        .with_hint("see capabilities(7); ALL means every one")
                })
        })
        .collect()
}

/// The sets of the first process. A user who is not root starts with the bounding set alone, which is what execve
/// would leave of the others. Inheritable and ambient are empty: CVE-2022-24769.
pub(crate) fn sets(bounding: &[String], uid: u32) -> Capabilities {
    let held = if uid == 0 { bounding.to_vec() } else { Vec::new() };
    Capabilities {
        bounding: bounding.to_vec(),
        effective: held.clone(),
        permitted: held,
        inheritable: Vec::new(),
        ambient: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str], privileged: bool) -> Vec<String> {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        bounding(&own(add), &own(drop), privileged, (6, 1)).unwrap()
    }

    #[test]
    fn adding_and_dropping_follow_docker() {
        assert_eq!(set(&[], &[], false), DEFAULT);
        assert_eq!(set(&[], &[], true).len(), 41);
        assert_eq!(set(&["ALL"], &["sys_admin"], false).len(), 40);
        assert_eq!(
            set(&["net_admin", "CAP_NET_ADMIN"], &["all"], false),
            ["CAP_NET_ADMIN"]
        );
        assert_eq!(set(&[], &["ALL"], false), Vec::<String>::new());
        let mixed = set(&["SYS_PTRACE", "CHOWN"], &["CAP_KILL"], false);
        assert_eq!(mixed.len(), 14);
        assert_eq!(mixed.last().unwrap(), "CAP_SYS_PTRACE");
        assert!(!mixed.contains(&"CAP_KILL".to_owned()));
    }

    #[test]
    fn an_old_kernel_is_not_asked_for_what_it_does_not_know() {
        let all = bounding(&[], &[], true, (5, 4)).unwrap();
        assert_eq!(all.len(), 38);
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(bounding(&["CAP_EVERYTHING".to_owned()], &[], false, (6, 1)).is_err());
        assert!(bounding(&[], &["".to_owned()], true, (6, 1)).is_err());
    }

    #[test]
    fn nobody_gets_inheritable_or_ambient_and_a_plain_user_holds_nothing() {
        let names = set(&[], &[], false);
        let root = sets(&names, 0);
        assert_eq!((root.effective.len(), root.permitted.len()), (14, 14));
        let user = sets(&names, 1000);
        assert_eq!(
            (user.bounding.len(), user.effective.len(), user.permitted.len()),
            (14, 0, 0)
        );
        for sets in [root, user] {
            assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
        }
    }
}
