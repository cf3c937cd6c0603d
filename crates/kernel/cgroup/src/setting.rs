//! What limits become: files and values. Pure; the version-specific parts are in [`crate::v1`] and [`crate::v2`].

use dhow_oci::runtime::{DeviceRule, Resources, Throttle};
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
    /// File and value to take when the first file does not exist (another I/O scheduler).
    pub(crate) otherwise: Option<(&'static str, String)>,
}

impl Setting {
    pub(crate) fn new(controller: Controllers, file: impl Into<String>, value: impl ToString) -> Self {
        Self {
            controller,
            file: file.into(),
            value: value.to_string(),
            otherwise: None,
        }
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
pub(crate) fn device_number(throttle: &Throttle) -> Result<String, Error> {
    let part = |number: i64| u32::try_from(number).ok();
    match (part(throttle.major), part(throttle.minor)) {
        (Some(major), Some(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{}:{} is no block device number", throttle.major, throttle.minor),
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
