//! Whether a step may have what it asks for beyond the sandbox.

use dhow_dockerfile::{Instruction, Network, Run, Security};
use dhow_types::{ErrorKind, Platform};

use crate::failure::{Error, Halt, Trouble};
use crate::stage::Stage;

impl Stage<'_, '_> {
    /// Refuses what the person who builds did not allow: a Dockerfile comes from others.
    pub(crate) fn check_entitled(&self, instruction: &Instruction, run: &Run) -> Result<(), Halt> {
        self.check_runnable()?;
        let request = self.build.request;
        let network = request.allow.network_host || request.network == Network::Host;
        let refused = match (run.network, run.security) {
            (Network::Host, _) if !network => Some(("network", "network.host")),
            (_, Security::Insecure) if !request.allow.security_insecure => {
                Some(("security", "security.insecure"))
            }
            _ => None,
        };
        let Some((flag, name)) = refused else {
            return Ok(());
        };
        let message = format!("RUN --{flag}: entitlement {name} is not allowed");
        let error = Error::new(ErrorKind::PermissionDenied, message).with_hint(format!(
            "allow it with --allow {name} if you trust the Dockerfile"
        ));
        Err(Trouble::from(error).at(instruction.flag_at(flag)).into())
    }

    /// Refuses a command for a machine that this one is not, unless the kernel knows how to run its programs.
    fn check_runnable(&self) -> Result<(), Halt> {
        let (wanted, host) = (&self.build.plan.stages[self.index].platform, Platform::host());
        let alike = |one: &str, other: &str| wanted.architecture == one && host.architecture == other;
        let same = wanted.architecture == host.architecture || alike("386", "amd64") || alike("arm", "arm64");
        if wanted.os == host.os && (same || is_emulated(&wanted.architecture)) {
            return Ok(());
        }
        let message = format!("RUN for {wanted} is not possible on {host}: emulation is not supported");
        let error = Error::new(ErrorKind::Unsupported, message).with_hint(
            "build on a machine of that platform, register an emulator with the kernel (binfmt_misc), or let the stage begin \
             with FROM --platform=$BUILDPLATFORM",
        );
        Err(Trouble::from(error).into())
    }

    /// Whether the stage takes nothing from the cache.
    pub(crate) fn is_uncached(&self) -> bool {
        let request = self.build.request;
        let name = self.build.file.stages[self.index].name.as_deref();
        let stages = &request.uncached_stages;
        request.no_cache
            || name.is_some_and(|name| stages.contains(name))
            || stages.contains(&self.index.to_string())
    }
}

/// Whether the kernel has an emulator for an architecture that it opened when it was registered (flag `F`): only such a
/// one is there in a container (kernel `admin-guide/binfmt-misc.rst`).
fn is_emulated(architecture: &str) -> bool {
    let name = match architecture {
        "arm64" => "aarch64",
        "amd64" => "x86_64",
        "386" => "i386",
        other => other,
    };
    let entry = std::fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{name}")).unwrap_or_default();
    let flags = entry.lines().find_map(|line| line.strip_prefix("flags:"));
    entry.starts_with("enabled") && flags.is_some_and(|flags| flags.contains('F'))
}
