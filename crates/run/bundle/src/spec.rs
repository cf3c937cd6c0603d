use dhow_oci::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::{Error, Request};

/// What the spec must know of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Whether control groups are version 2 only.
    pub cgroup_v2: bool,
    /// Whether the engine is not root.
    pub rootless: bool,
    /// Kernel version, `(6, 1)`.
    pub kernel: (u32, u32),
}

/// The runtime spec of a container.
///
/// # Errors
/// `InvalidArgument` names the flag's value and what is allowed.
pub fn spec(request: &Request, host: &Host) -> Result<Spec, Error> {
    let _ = (request, host);
    Err(Error::new(
        dhow_types::ErrorKind::Unsupported,
        "the spec is not written yet",
    ))
}
