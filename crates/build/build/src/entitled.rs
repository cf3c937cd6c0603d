//! Whether a step may have what it asks for beyond the sandbox.

use dhow_dockerfile::{Instruction, Network, Run, Security};
use dhow_types::ErrorKind;

use crate::failure::{Error, Halt, Trouble};
use crate::stage::Stage;

impl Stage<'_, '_> {
    /// Refuses what the person who builds did not allow: a Dockerfile comes from others.
    pub(crate) fn check_entitled(&self, instruction: &Instruction, run: &Run) -> Result<(), Halt> {
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
