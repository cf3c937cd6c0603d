//! Which hierarchies are mounted, and where this process is in them.

use std::ops::BitOr;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::{Context as _, Error, dir};

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
    pub(crate) const NET_CLS: Self = Self(1 << 9);
    pub(crate) const NET_PRIO: Self = Self(1 << 10);
    pub(crate) const PERF_EVENT: Self = Self(1 << 11);
    pub(crate) const RDMA: Self = Self(1 << 12);
    pub(crate) const MISC: Self = Self(1 << 13);
    pub(crate) const DMEM: Self = Self(1 << 14);
    /// Those of a v2 tree that are enabled by word.
    pub(crate) const OF_V2: Self = Self(
        Self::BLKIO.0
            | Self::CPU.0
            | Self::CPUSET.0
            | Self::HUGETLB.0
            | Self::MEMORY.0
            | Self::PIDS.0
            | Self::RDMA.0
            | Self::MISC.0
            | Self::DMEM.0,
    );

    const NAMES: [(&'static str, Self); 16] = [
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
        ("net_cls", Self::NET_CLS),
        ("net_prio", Self::NET_PRIO),
        ("perf_event", Self::PERF_EVENT),
        ("rdma", Self::RDMA),
        ("misc", Self::MISC),
        ("dmem", Self::DMEM),
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
            .filter(|(name, bit)| *name != "blkio" && self.intersects(*bit) && Self::OF_V2.intersects(*bit))
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
    /// v1: its controllers or its name as `/proc/<pid>/cgroup` has them. v2: nothing.
    pub(crate) label: String,
    /// Whether this is the v2 tree.
    pub(crate) unified: bool,
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// Which group of it is mounted there; the top one outside of containers.
    pub(crate) inside: PathBuf,
    /// This process's own group in it.
    pub(crate) own: PathBuf,
}

impl Hierarchy {
    /// Directory of the process with this `/proc/<pid>/cgroup`; `None` when it is outside of the part that is mounted.
    pub(crate) fn place_of(&self, membership: &str) -> Option<PathBuf> {
        let path = own_path(membership, &self.label)?;
        let below = Path::new(path).strip_prefix(&self.inside).ok()?;
        let plain = below
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        plain.then(|| self.root.join(below))
    }
}

/// All hierarchies that have controllers.
///
/// # Errors
/// `FailedPrecondition` when none is mounted.
pub(crate) fn discover() -> Result<Vec<Hierarchy>, Error> {
    let mut found = discover_all()?;
    found.retain(|hierarchy| hierarchy.unified || hierarchy.controllers != Controllers::NONE);
    Ok(found)
}

/// Refuses hosts whose controllers are not all in the v2 tree.
///
/// # Errors
/// `Unsupported` there.
pub(crate) fn only_unified() -> Result<(), Error> {
    if discover()?.iter().all(|hierarchy| hierarchy.unified) {
        return Ok(());
    }
    let message = "the systemd driver needs a host whose control groups are all version 2";
    Err(Error::new(ErrorKind::Unsupported, message)
        .with_hint("boot with systemd.unified_cgroup_hierarchy=1, or leave --systemd-cgroup out"))
}

/// The same with those that have a name only, such as the one in which systemd of a v1 host keeps its units.
///
/// # Errors
/// As [`discover`].
pub(crate) fn discover_all() -> Result<Vec<Hierarchy>, Error> {
    let read = |file: &str| {
        let text = dhow_sys::file::read_text(file, dir::MOST_BYTES);
        text.context(|| format!("read {file}"))
    };
    let membership = read("/proc/self/cgroup")?;
    // A pure v2 host says so in one line, and its tree is at the usual place: the mount table, which has a line for
    // every mount of every container, need not be read.
    let found =
        if membership.starts_with("0::") && membership.lines().count() == 1 && unified_at_usual_place() {
            vec![usual(&membership)]
        } else {
            parse(&read("/proc/self/mountinfo")?, &membership)
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
        label: String::new(),
        unified: true,
        root: PathBuf::from(USUAL),
        inside: PathBuf::from("/"),
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
        let label = if unified { String::new() } else { label(options) };
        if !unified && label.is_empty() {
            continue;
        }
        let root = PathBuf::from(unescape(point));
        // Of several places the usual one counts, where programs look; else the first.
        let same = |other: &Hierarchy| other.unified == unified && other.label == label;
        let known = found.iter().position(same);
        if let Some(known) = known.and_then(|at| found.get(at))
            && (known.root.starts_with(USUAL) || !root.starts_with(USUAL))
        {
            continue;
        }
        let own = own_path(membership, &label)
            .and_then(|own| {
                own.strip_prefix(unescape(inside).trim_end_matches('/'))
                    .map(str::to_owned)
            })
            .unwrap_or_default();
        let own = below(&root, own.trim_start_matches('/'));
        let hierarchy = Hierarchy {
            controllers,
            label,
            unified,
            root,
            inside: PathBuf::from(unescape(inside)),
            own,
        };
        match known.and_then(|at| found.get_mut(at)) {
            Some(known) => *known = hierarchy,
            None => found.push(hierarchy),
        }
    }
    found
}

/// The controllers and the name among the options of a v1 mount. Controllers that nobody here knows count, too.
fn label(options: &str) -> String {
    const OTHERS: [&str; 8] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "none",
        "all",
    ];
    let words = options
        .split(',')
        .filter(|word| !OTHERS.contains(word) && (!word.contains('=') || word.starts_with("name=")));
    words.collect::<Vec<_>>().join(",")
}

/// The path of a process in the hierarchy of this label. The table of mounts and this file may name controllers in
/// another order.
pub(crate) fn own_path<'a>(membership: &'a str, label: &str) -> Option<&'a str> {
    membership.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        let hit = if label.is_empty() {
            names.is_empty()
        } else {
            names
                .split(',')
                .any(|name| label.split(',').any(|word| word == name))
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
    use proptest::prelude::*;

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
            .filter(|hierarchy| !hierarchy.label.starts_with("name="))
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
        assert!(found[3].unified);
        assert_eq!(found[2].label, "name=systemd");
        assert_eq!(found[2].own, Path::new("/sys/fs/cgroup/systemd/x"));
        let of = |index: usize, membership: &str| found[index].place_of(membership);
        assert_eq!(
            of(0, "3:cpu,cpuacct:/docker/abc/a/b\n").as_deref(),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"))
        );
        assert_eq!(of(0, "3:cpu,cpuacct:/docker/other\n"), None);
        assert_eq!(of(3, "0::/../up\n"), None);
    }

    #[test]
    fn of_several_places_of_a_hierarchy_the_usual_one_counts() {
        let table = "1 0 0:33 / /box/memory rw - cgroup cgroup rw,memory
2 0 0:34 / /box/pids rw - cgroup cgroup rw,pids
3 0 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
4 0 0:33 / /later/memory rw - cgroup cgroup rw,memory
";
        let found = parse(table, "4:memory:/a\n3:pids:/b\n");
        let roots: Vec<_> = found.iter().map(|one| one.own.to_str().unwrap()).collect();
        assert_eq!(roots, ["/sys/fs/cgroup/memory/a", "/box/pids/b"]);
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
            Controllers::parse("io memory unheard".split(' ')),
            Controllers::BLKIO | Controllers::MEMORY
        );
    }

    proptest! {
        #[test]
        fn hostile_tables_give_hierarchies_or_nothing(table in ".{0,200}", own in "[0-9a-z:,/=.\n]{0,80}") {
            for hierarchy in parse(&table, &own) {
                prop_assert!(hierarchy.own.starts_with(&hierarchy.root));
            }
        }

        #[test]
        fn an_own_group_is_never_outside_of_the_mounted_part(
            inside in "/[a-z./]{0,12}", own in "/[a-z./]{0,24}",
        ) {
            let table = format!("33 31 0:33 {inside} /m rw - cgroup cgroup rw,memory\n");
            let found = parse(&table, &format!("4:memory:{own}\n"));
            prop_assert_eq!(found.len(), 1);
            prop_assert!(found[0].own.starts_with("/m"));
            prop_assert!(!found[0].own.components().any(|part| part == std::path::Component::ParentDir));
        }
    }
}
