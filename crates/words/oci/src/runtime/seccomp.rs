//! `linux.seccomp`: the filter of system calls (config-linux.md, "Seccomp").

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::State;

document! {
    /// System call filter.
    pub struct Seccomp {
        /// What happens to calls without a rule.
        pub default_action: String,
        /// Errno of the default action.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub default_errno_ret: Option<u32>,
        /// `SCMP_ARCH_X86_64` and so on.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub architectures: Vec<String>,
        /// `SECCOMP_FILTER_FLAG_LOG` and so on. An empty list is something else than none: no flag, not even the
        /// runtime's own choice.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub flags: Option<Vec<String>>,
        /// Socket of an agent for SCMP_ACT_NOTIFY.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub listener_path: Option<PathBuf>,
        /// Opaque text for the agent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub listener_metadata: Option<String>,
        /// Rules.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub syscalls: Vec<SyscallRule>,
    }
}

document! {
    /// One rule of a filter.
    pub struct SyscallRule {
        /// Calls by name.
        pub names: Vec<String>,
        /// `SCMP_ACT_ALLOW` and so on.
        pub action: String,
        /// Errno of SCMP_ACT_ERRNO.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub errno_ret: Option<u32>,
        /// Conditions on arguments, all of which must hold.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub args: Vec<SyscallArgument>,
    }
}

document! {
    /// One condition on an argument.
    pub struct SyscallArgument {
        /// Which argument, 0 to 5.
        pub index: u32,
        /// Compared with this.
        pub value: u64,
        /// Second value of SCMP_CMP_MASKED_EQ.
        pub value_two: u64,
        /// `SCMP_CMP_EQ` and so on.
        pub op: String,
    }
}

document! {
    /// What an agent for `SCMP_ACT_NOTIFY` gets beside the listener (config-linux.md, "containerProcessState").
    pub struct ContainerProcessState {
        /// Version of the spec.
        pub oci_version: String,
        /// Names of the descriptors that came along, in order: `seccompFd`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub fds: Vec<String>,
        /// The process, in the runtime's process id namespace.
        pub pid: i32,
        /// `listenerMetadata` of the profile.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub metadata: Option<String>,
        /// The container.
        pub state: State,
    }
}
