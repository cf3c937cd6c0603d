//! The document that `features` prints (runtime-spec 1.3 `features.md`): what a runtime can do, whatever the host can.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! answers {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$kind>,)*
        }
    )*};
}

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Features {
    /// Oldest version of the spec that is understood.
    pub oci_version_min: String,
    /// Newest version of the spec that is understood.
    pub oci_version_max: String,
    /// Stages of hooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<String>>,
    /// Words that are not handed to the file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_options: Option<Vec<String>>,
    /// What is particular to Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
    /// Free strings.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Annotations that change what the runtime does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub potentially_unsafe_config_annotations: Option<Vec<String>>,
}

answers! {
    /// What is particular to Linux; an absent answer means "not said".
    pub struct Linux {
        /// Kinds of namespaces.
        namespaces: Vec<String>,
        /// Capabilities by name.
        capabilities: Vec<String>,
        /// Control groups.
        cgroup: Cgroup,
        /// System call filters.
        seccomp: Seccomp,
        /// AppArmor.
        apparmor: Answer,
        /// SELinux.
        selinux: Answer,
        /// Intel RDT.
        intel_rdt: IntelRdt,
        /// NUMA policies.
        memory_policy: MemoryPolicy,
        /// Kinds of mounts.
        mount_extensions: MountExtensions,
        /// Network devices handed to containers.
        net_devices: Answer,
    }

    /// Whether there is code for it.
    pub struct Answer {
        /// The answer.
        enabled: bool,
    }

    /// Control groups.
    pub struct Cgroup {
        /// Version 1.
        v1: bool,
        /// Version 2.
        v2: bool,
        /// By way of systemd.
        systemd: bool,
        /// By way of a user's systemd.
        systemd_user: bool,
        /// RDMA limits.
        rdma: bool,
    }

    /// System call filters.
    pub struct Seccomp {
        /// Whether there is code for it.
        enabled: bool,
        /// `SCMP_ACT_ALLOW` and so on.
        actions: Vec<String>,
        /// `SCMP_CMP_EQ` and so on.
        operators: Vec<String>,
        /// `SCMP_ARCH_X86_64` and so on.
        archs: Vec<String>,
        /// Flags by name.
        known_flags: Vec<String>,
        /// Those of them that are set when asked for.
        supported_flags: Vec<String>,
    }

    /// Intel RDT.
    pub struct IntelRdt {
        /// Whether there is code for it.
        enabled: bool,
        /// Whether `schemata` is known.
        schemata: bool,
        /// Whether `enableMonitoring` is known.
        monitoring: bool,
    }

    /// NUMA policies.
    pub struct MemoryPolicy {
        /// `MPOL_BIND` and so on.
        modes: Vec<String>,
        /// `MPOL_F_STATIC_NODES` and so on.
        flags: Vec<String>,
    }

    /// Kinds of mounts.
    pub struct MountExtensions {
        /// Mounts with an id mapping of their own.
        idmap: Answer,
    }
}
