//! What limits become: files and values. Pure; the version-specific parts are in [`crate::v1`] and [`crate::v2`].

use dhow_oci::runtime::{DeviceRule, Resources};
use dhow_types::ErrorKind;

use crate::Error;
use crate::hierarchy::Controllers;

/// One value to write into one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Who has the file.
    pub(crate) controller: Controllers,
    /// Name of the file in the group's directory.
    pub(crate) file: String,
    /// The value.
    pub(crate) value: String,
    /// What to do when the kernel does not have the file.
    pub(crate) missing: Missing,
    /// Whether the first word that is in the file stays before the value (`cpu.max`, of which only the period is new).
    pub(crate) keeps_first: bool,
}

/// What to do when a file does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The limit cannot be held: an error.
    Refuse,
    /// The value is what holds without the file anyway.
    Pass,
    /// Another file with another value (another I/O scheduler).
    Other(&'static str, String),
}

impl Setting {
    pub(crate) fn new(controller: Controllers, file: impl Into<String>, value: impl ToString) -> Self {
        Self {
            controller,
            file: file.into(),
            value: value.to_string(),
            missing: Missing::Refuse,
            keeps_first: false,
        }
    }

    /// The same, with another way when the file does not exist.
    pub(crate) fn or(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    pub(crate) fn is_about_swap(&self) -> bool {
        matches!(
            self.file.as_str(),
            "memory.memsw.limit_in_bytes" | "memory.swap.max"
        )
    }

    /// What a person can do when the kernel refuses the value.
    pub(crate) fn fix(&self) -> &'static str {
        match self.file.as_str() {
            "memory.limit_in_bytes" | "memory.max" => {
                "give more memory: the limit must be at least 6 MiB and, for a running container, above what it uses"
            }
            "memory.memsw.limit_in_bytes" | "memory.swap.max" => {
                "the kernel needs swap accounting (boot with swapaccount=1), and the sum must not be below the memory \
                 limit; leave --memory-swap out otherwise"
            }
            "cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.max" => {
                "the period must be 1000 to 1000000 microseconds and the quota at least 1000"
            }
            "cpuset.cpus" => "name CPUs that are online and that the parent group has, such as 0-1",
            "cpuset.mems" => "name memory nodes that exist, usually 0",
            "pids.max" => "the number must be positive",
            file if file.starts_with("blkio.") || file.starts_with("io.") => {
                "check the device's numbers (lsblk) and that its I/O scheduler supports weights (bfq)"
            }
            _ => "check the value and what the parent group allows",
        }
    }
}

/// A string of the spec that goes into a file: one line of the characters that such files hold. Nothing else gets
/// in, so a value cannot smuggle a second one (the class of CVE-2022-0811).
pub(crate) fn plain<'a>(value: &'a str, what: &str) -> Result<&'a str, Error> {
    let fine =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | ',' | ':' | '=' | '.' | '_' | '+');
    if value.len() <= 4096 && value.chars().all(fine) {
        Ok(value)
    } else {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{what} {:?} has characters that no such file holds",
                value.chars().take(64).collect::<String>()
            ),
        ))
    }
}

/// `8:0`, checked.
pub(crate) fn device_number(major: i64, minor: i64) -> Result<String, Error> {
    let part = |number: i64| u32::try_from(number).ok();
    match (part(major), part(minor)) {
        (Some(major), Some(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{major}:{minor} is no block device number"),
        )),
    }
}

/// A limit of processes as its file takes it. Below zero there is none, and zero is a limit (runtime-spec 1.3,
/// config-linux.md, "PIDs"), written as one: systemd takes no 0 and both drivers must agree, runc 1.4 writes the same, and the
/// kernel lets a group with one process fork as little as one with none.
pub(crate) fn pids(limit: i64) -> String {
    match limit {
        ..0 => "max".to_owned(),
        limit => limit.max(1).to_string(),
    }
}

/// Limits of RDMA devices, the same file in both versions (kernel `cgroup-v1/rdma.rst`).
pub(crate) fn rdma(resources: &Resources, out: &mut Vec<Setting>) -> Result<(), Error> {
    for (device, limit) in &resources.rdma {
        let mut value = plain(device, "RDMA device")?.to_owned();
        if value.is_empty() || value.contains(' ') {
            let message = format!("{device:?} is no name of an RDMA device");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        for (name, number) in [
            ("hca_handle", limit.hca_handles),
            ("hca_object", limit.hca_objects),
        ] {
            if let Some(number) = number {
                value.push_str(&format!(" {name}={number}"));
            }
        }
        out.push(Setting::new(Controllers::RDMA, "rdma.max", value));
    }
    Ok(())
}

/// Limits of huge pages: of those in use, and of those reserved where the kernel counts them (Linux 5.7).
pub(crate) fn hugetlb(resources: &Resources, suffix: &str, out: &mut Vec<Setting>) -> Result<(), Error> {
    for huge in &resources.hugepage_limits {
        let size = plain(&huge.page_size, "huge page size")?;
        if size.is_empty() {
            let message = "a limit of huge pages has no pageSize";
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("name one, such as 2MB"));
        }
        let limit = |name: String| Setting::new(Controllers::HUGETLB, name, huge.limit);
        out.push(limit(format!("hugetlb.{size}.{suffix}")));
        out.push(limit(format!("hugetlb.{size}.rsvd.{suffix}")).or(Missing::Pass));
    }
    Ok(())
}

/// Swappiness, checked; the largest number stands for -1, "not said" (containerd writes it so).
pub(crate) fn swappiness(value: Option<u64>) -> Result<Option<u64>, Error> {
    match value {
        None | Some(u64::MAX) => Ok(None),
        Some(value @ 0..=100) => Ok(Some(value)),
        Some(value) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("invalid memory swappiness value: {value} (valid range is 0-100)"),
        )),
    }
}

/// A device rule with everything checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) allow: bool,
    /// `None` means character and block devices.
    pub(crate) kind: Option<DeviceKind>,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) mknod: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Block,
    Char,
}

impl Access {
    /// Whether it is about every device and every access.
    pub(crate) const fn is_everything(&self) -> bool {
        self.kind.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.read
            && self.write
            && self.mknod
    }

    /// `rwm`, or the part of it that the rule is about.
    pub(crate) fn access_letters(&self) -> String {
        [('r', self.read), ('w', self.write), ('m', self.mknod)]
            .into_iter()
            .filter_map(|(letter, set)| set.then_some(letter))
            .collect()
    }
}

/// The device rules of `resources` (runtime-spec `config-linux.md`, "Allowed Device list").
pub(crate) fn device_rules(resources: &Resources) -> Result<Vec<Access>, Error> {
    resources.devices.iter().map(device_rule).collect()
}

fn device_rule(rule: &DeviceRule) -> Result<Access, Error> {
    let bad = |what: String| {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("device rule: {what}"),
        ))
    };
    let kind = match rule.kind.as_deref() {
        None | Some("" | "a") => None,
        Some("c" | "u") => Some(DeviceKind::Char),
        Some("b") => Some(DeviceKind::Block),
        Some(other) => return bad(format!("{other:?} is no type; use a, b or c")),
    };
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("device rule: {value} is no device number"),
            )
        }),
    };
    let access = rule
        .access
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    if !access.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
        return bad(format!("{access:?} is no access; use some of rwm"));
    }
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    Ok(Access {
        allow: rule.allow,
        kind,
        major,
        minor,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}
