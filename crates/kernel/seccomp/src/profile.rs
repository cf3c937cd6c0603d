//! Profiles as docker and podman keep them in files: the runtime spec's, with rules that hold on some kernels,
//! machines and for some capabilities only.

use dhow_oci::runtime::{Seccomp, SyscallArgument, SyscallRule};
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::{Arch, Error};

/// Largest profile that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// A profile whose rules may depend on where it is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    default_action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    architectures: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    arch_map: Vec<Family>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener_path: Option<std::path::PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener_metadata: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    syscalls: Vec<Rule>,
}

/// An architecture with those that its kernels run too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Family {
    architecture: String,
    #[serde(deserialize_with = "or_default")]
    sub_architectures: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    /// The one call of old profiles.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    names: Vec<String>,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    args: Vec<SyscallArgument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    includes: Option<Where>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excludes: Option<Where>,
}

/// Where a rule holds, or does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Where {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    caps: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    arches: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_kernel: Option<String>,
}

/// Go writes lists that are nil as `null`.
fn or_default<'de, T, D>(input: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// `ResourceExhausted` over 1 MiB; `InvalidArgument` for what is no profile, or says a thing in two ways.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > LARGEST {
            let message = format!("seccomp profile has {} bytes, more than {LARGEST}", text.len());
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        // A list would be read as the fields in order, and an empty one as no filter at all.
        if !text.trim_start().starts_with('{') {
            let message = "decoding seccomp profile failed: it is no JSON object";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let profile: Self = serde_json::from_str(text).map_err(|error| {
            Error::because(
                ErrorKind::InvalidArgument,
                "decoding seccomp profile failed",
                error,
            )
        })?;
        let twice = |one: &str, other: &str| {
            let message = format!(
                "both '{one}' and '{other}' are specified in the seccomp profile, use either '{one}' or '{other}'"
            );
            Err(Error::new(ErrorKind::InvalidArgument, message))
        };
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            return twice("architectures", "archMap");
        }
        for rule in &profile.syscalls {
            if !rule.name.is_empty() && !rule.names.is_empty() {
                return twice("name", "names");
            }
            for place in [&rule.includes, &rule.excludes].into_iter().flatten() {
                place.min_kernel.as_deref().map(version).transpose()?;
            }
        }
        Ok(profile)
    }

    /// The rules that hold for a container with these capabilities (`CAP_SYS_ADMIN`) on a kernel of this version.
    ///
    /// # Errors
    /// `InvalidArgument` for a kernel version that is none.
    pub fn resolve(&self, arch: Arch, capabilities: &[String], kernel: (u32, u32)) -> Result<Seccomp, Error> {
        let (own, name) = match arch {
            Arch::Aarch64 => ("SCMP_ARCH_AARCH64", "arm64"),
            Arch::X86_64 => ("SCMP_ARCH_X86_64", "amd64"),
        };
        let mut architectures = self.architectures.clone();
        if let Some(family) = self.arch_map.iter().find(|family| family.architecture == own) {
            architectures.push(family.architecture.clone());
            architectures.extend(family.sub_architectures.iter().cloned());
        }
        let mut syscalls = Vec::with_capacity(self.syscalls.len());
        for rule in &self.syscalls {
            let (mut holds, here) = (true, |place: &Where| place.arches.iter().any(|arch| arch == name));
            if let Some(place) = &rule.excludes {
                let newer = place.min_kernel.as_deref().map(version).transpose()?;
                holds &= !here(place)
                    && !place.caps.iter().any(|cap| capabilities.contains(cap))
                    && newer.is_none_or(|newer| kernel < newer);
            }
            if let Some(place) = &rule.includes {
                let newer = place.min_kernel.as_deref().map(version).transpose()?;
                holds &= (place.arches.is_empty() || here(place))
                    && place.caps.iter().all(|cap| capabilities.contains(cap))
                    && newer.is_none_or(|newer| kernel >= newer);
            }
            if !holds {
                continue;
            }
            let mut names = rule.names.clone();
            if !rule.name.is_empty() {
                names.push(rule.name.clone());
            }
            syscalls.push(SyscallRule {
                names,
                action: rule.action.clone(),
                errno_ret: rule.errno_ret,
                args: rule.args.clone(),
            });
        }
        Ok(Seccomp {
            default_action: self.default_action.clone(),
            default_errno_ret: self.default_errno_ret,
            architectures,
            flags: self.flags.clone(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls,
        })
    }
}

/// `4.8` as two numbers.
fn version(text: &str) -> Result<(u32, u32), Error> {
    let numbers = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u8>().ok()?, minor.parse::<u8>().ok()?)));
    numbers
        .filter(|numbers| *numbers != (0, 0))
        .map(|(major, minor)| (major.into(), minor.into()))
        .ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            let message = format!("invalid kernel version: {shown:?}, expected \"<kernel>.<major>\"");
            Error::new(ErrorKind::InvalidArgument, message)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONDITIONAL: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}
        ],
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}, "excludes": {}},
            {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}, "comment": "x"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}}
        ]
    }"#;

    fn names(arch: Arch, capabilities: &[&str], kernel: (u32, u32)) -> Vec<String> {
        let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
        let profile = Profile::parse(CONDITIONAL).unwrap();
        let resolved = profile.resolve(arch, &capabilities, kernel).unwrap();
        resolved
            .syscalls
            .into_iter()
            .flat_map(|rule| rule.names)
            .collect()
    }

    #[test]
    fn rules_hold_where_they_say() {
        assert_eq!(
            names(Arch::X86_64, &[], (6, 1)),
            ["read", "ptrace", "clone", "arch_prctl"]
        );
        assert_eq!(
            names(Arch::Aarch64, &["CAP_SYS_ADMIN"], (4, 4)),
            ["read", "old", "mount"]
        );
        let profile = Profile::parse(CONDITIONAL).unwrap();
        let on = |arch| profile.resolve(arch, &[], (6, 1)).unwrap().architectures;
        assert_eq!(on(Arch::X86_64), ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
        assert_eq!(on(Arch::Aarch64), ["SCMP_ARCH_AARCH64"]);
    }

    #[test]
    fn a_profile_survives_being_written() {
        let profile = Profile::parse(CONDITIONAL).unwrap();
        let written = serde_json::to_string(&profile).unwrap();
        assert_eq!(Profile::parse(&written).unwrap(), profile);
    }

    #[test]
    fn what_says_a_thing_twice_or_is_no_profile_is_refused() {
        for (text, word) in [
            ("{", "decoding"),
            ("[]", "decoding"),
            (r#"{"architectures": ["a"], "archMap": [{}]}"#, "archMap"),
            (r#"{"syscalls": [{"name": "a", "names": ["b"]}]}"#, "names"),
            (
                r#"{"syscalls": [{"includes": {"minKernel": "4"}}]}"#,
                "kernel version",
            ),
            (
                r#"{"syscalls": [{"includes": {"minKernel": "0.0"}}]}"#,
                "kernel version",
            ),
            (
                r#"{"syscalls": [{"includes": {"minKernel": "4.8.1"}}]}"#,
                "kernel version",
            ),
        ] {
            let error = Profile::parse(text).unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
        let long = " ".repeat(LARGEST + 1);
        assert_eq!(
            Profile::parse(&long).unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_profile_or_an_error(text in "[\\[\\]{}\":,a-zA-Z0-9. ]{0,200}") {
            if let Ok(profile) = Profile::parse(&text) {
                prop_assert!(profile.resolve(Arch::X86_64, &[], (6, 1)).is_ok());
            }
        }
    }
}
