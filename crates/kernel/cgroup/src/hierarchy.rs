//! Which hierarchies are mounted, and where this process is in them.

use std::ops::BitOr;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// A set of controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controllers(u16);

impl Controllers {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const BLKIO: Self = Self(1);
    pub(crate) const CPU: Self = Self(1 << 1);
    pub(crate) const CPUACCT: Self = Self(1 << 2);
    pub(crate) const CPUSET: Self = Self(1 << 3);
    pub(crate) const DEVICES: Self = Self(1 << 4);
    pub(crate) const FREEZER: Self = Self(1 << 5);
    pub(crate) const HUGETLB: Self = Self(1 << 6);
    pub(crate) const MEMORY: Self = Self(1 << 7);
    pub(crate) const PIDS: Self = Self(1 << 8);

    const NAMES: [(&'static str, Self); 10] = [
        ("blkio", Self::BLKIO),
        ("io", Self::BLKIO),
        ("cpu", Self::CPU),
        ("cpuacct", Self::CPUACCT),
        ("cpuset", Self::CPUSET),
        ("devices", Self::DEVICES),
        ("freezer", Self::FREEZER),
        ("hugetlb", Self::HUGETLB),
        ("memory", Self::MEMORY),
        ("pids", Self::PIDS),
    ];

    /// The controllers that `words` name; other words count for nothing.
    pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        words.fold(Self::NONE, |set, word| {
            Self::NAMES
                .iter()
                .find(|(name, _)| *name == word)
                .map_or(set, |(_, bit)| set | *bit)
        })
    }

    /// What `cgroup.subtree_control` is told to enable these: `+io +memory`.
    pub(crate) fn enable_words(self) -> String {
        let words: Vec<String> = Self::NAMES
            .iter()
            .filter(|(name, bit)| *name != "blkio" && self.intersects(*bit))
            .map(|(name, _)| format!("+{name}"))
            .collect();
        words.join(" ")
    }

    /// Name of the first controller in the set.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, bit)| self.intersects(*bit))
            .map_or("cgroup", |(name, _)| name)
    }

    pub(crate) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Controllers {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// v1: the controllers bound to it. v2: none here; each group says its own.
    pub(crate) controllers: Controllers,
    /// Whether this is the v2 tree.
    pub(crate) unified: bool,
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// This process's own group in it.
    pub(crate) own: PathBuf,
}

/// All hierarchies that can hold processes of ours.
///
/// # Errors
/// `FailedPrecondition` when none is mounted.
pub(crate) fn discover() -> Result<Vec<Hierarchy>, Error> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").context(|| "read /proc/self/cgroup")?;
    // A pure v2 host says so in one line, and its tree is at the usual place: the mount table, which has a line for
    // every mount of every container, need not be read.
    let found =
        if membership.starts_with("0::") && membership.lines().count() == 1 && unified_at_usual_place() {
            vec![usual(&membership)]
        } else {
            let table =
                std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
            parse(&table, &membership)
        };
    if found.is_empty() {
        let message = "no control group hierarchy is mounted";
        return Err(Error::new(ErrorKind::FailedPrecondition, message)
            .with_hint("mount -t cgroup2 none /sys/fs/cgroup"));
    }
    Ok(found)
}

const USUAL: &str = "/sys/fs/cgroup";

fn unified_at_usual_place() -> bool {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    rustix::fs::statfs(USUAL).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(CGROUP2_SUPER_MAGIC))
}

fn usual(membership: &str) -> Hierarchy {
    let own = membership.trim_end().trim_start_matches("0::");
    Hierarchy {
        controllers: Controllers::NONE,
        unified: true,
        root: PathBuf::from(USUAL),
        own: below(Path::new(USUAL), own.trim_start_matches('/')),
    }
}

/// `root` plus `own`, unless `own` lies outside the mounted part of the tree.
fn below(root: &Path, own: &str) -> PathBuf {
    if own.split('/').any(|part| part == "..") {
        root.to_owned()
    } else {
        root.join(own)
    }
}

/// Reads the mount table (proc(5), `mountinfo`) and `/proc/self/cgroup` (cgroups(7)).
pub(crate) fn parse(mountinfo: &str, membership: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let (Some(kind), Some(_), Some(options)) = (right.next(), right.next(), right.next()) else {
            continue;
        };
        let unified = kind == "cgroup2";
        if !unified && kind != "cgroup" {
            continue;
        }
        let mut left = left.split(' ').skip(3);
        let (Some(inside), Some(point)) = (left.next(), left.next()) else {
            continue;
        };
        let controllers = if unified {
            Controllers::NONE
        } else {
            Controllers::parse(options.split(','))
        };
        // A named hierarchy (`name=systemd`) has no controller and is none of our business.
        let known = |other: &Hierarchy| {
            other.unified == unified && (unified || other.controllers.intersects(controllers))
        };
        if (!unified && controllers == Controllers::NONE) || found.iter().any(known) {
            continue;
        }
        let root = PathBuf::from(unescape(point));
        let own = own_path(membership, unified, controllers)
            .and_then(|own| {
                own.strip_prefix(unescape(inside).trim_end_matches('/'))
                    .map(str::to_owned)
            })
            .unwrap_or_default();
        let own = below(&root, own.trim_start_matches('/'));
        found.push(Hierarchy {
            controllers,
            unified,
            root,
            own,
        });
    }
    found
}

fn own_path(membership: &str, unified: bool, controllers: Controllers) -> Option<&str> {
    membership.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        let hit = if unified {
            names.is_empty()
        } else {
            Controllers::parse(names.split(',')).intersects(controllers)
        };
        hit.then_some(path)
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:34 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
35 31 0:33 / /var/elsewhere rw - cgroup cgroup rw,memory
36 31 0:38 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw
nonsense
";

    #[test]
    fn hybrid_host_gives_each_controller_once_and_the_own_group_below_the_mounted_part() {
        let own = "9:name=systemd:/x\n4:memory:/api/1\n3:cpu,cpuacct:/docker/abc/inner\n0::/../up\n";
        let found = parse(TABLE, own);
        let roots: Vec<_> = found
            .iter()
            .map(|h| (h.root.to_str().unwrap(), h.own.to_str().unwrap()))
            .collect();
        assert_eq!(
            roots,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/inner"),
                ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/api/1"),
                ("/sys/fs/cgroup/uni fied", "/sys/fs/cgroup/uni fied"),
            ]
        );
        assert!(
            found[0]
                .controllers
                .contains(Controllers::CPU | Controllers::CPUACCT)
        );
        assert!(found[2].unified);
    }

    #[test]
    fn pure_v2_host_needs_no_mount_table() {
        let hierarchy = usual("0::/user.slice/session-1.scope\n");
        assert_eq!(
            hierarchy.own,
            Path::new("/sys/fs/cgroup/user.slice/session-1.scope")
        );
    }

    #[test]
    fn io_is_the_v2_name_of_blkio() {
        assert_eq!(
            (Controllers::BLKIO | Controllers::PIDS).enable_words(),
            "+io +pids"
        );
        assert_eq!(
            Controllers::parse("io memory rdma".split(' ')),
            Controllers::BLKIO | Controllers::MEMORY
        );
    }
}
