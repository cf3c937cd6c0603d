//! `update`: other limits and another restart policy, for a container that runs too.

use dhow_bundle::Limits;
use dhow_monitor::RestartPolicy;
use dhow_oci::runtime::{PidsLimit, Resources};
use dhow_types::ErrorKind;

use super::stop::open_process;
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// What `update`'s flags say; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateRequest {
    /// New limits.
    pub limits: Limits,
    /// When to start again.
    pub restart: Option<RestartPolicy>,
}

impl Engine {
    /// Changes limits and restart policy: at once for what runs, and for every start from now on.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for limits that contradict each other or what the kernel refuses: then nothing is
    /// written down. `FailedPrecondition` for a restart policy of a container that goes away when it ends.
    pub fn update(&self, wanted: &str, change: &UpdateRequest) -> Result<(), Error> {
        let container = self.containers().find(wanted)?;
        let _edit = self.containers().edit(&container.config.id)?;
        let container = self.containers().load(&container.config.id)?;
        let mut config = container.config.clone();
        let refuse = |why: &str| {
            let message = format!("Cannot update container {}: {why}", config.id);
            Err(Error::new(ErrorKind::FailedPrecondition, message))
        };
        if config.auto_remove && change.restart.is_some_and(|policy| policy != RestartPolicy::No) {
            return refuse(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            );
        }
        let old = &config.request.limits;
        let by_time = change.limits.cpu_quota.is_some() || change.limits.cpu_period.is_some();
        if by_time && change.limits.nano_cpus.is_none() && old.nano_cpus.is_some() {
            return refuse(
                "Conflicting options: CPU Quota or Period cannot be updated as NanoCPUs has already been set",
            );
        }
        if change.limits.nano_cpus.is_some() && (old.cpu_quota.is_some() || old.cpu_period.is_some()) {
            return refuse(
                "Conflicting options: Nano CPUs cannot be updated as CPU Quota or Period has already been set",
            );
        }
        config.request.limits = merged(&config.request.limits, &change.limits);
        config.restart = change.restart.unwrap_or(config.restart);
        // Read before anything is changed, so that limits which make no sense change nothing.
        let mut resources = crate::system::runtime_spec(&config.request)?
            .linux
            .and_then(|linux| linux.resources)
            .unwrap_or_default();
        if change.limits.pids.is_some_and(|pids| pids <= 0) {
            resources.pids = Some(PidsLimit { limit: Some(-1) });
        }
        if change.limits != Limits::default() && open_process(&container)?.is_some() {
            let resources = Resources {
                // Which devices it may use is no limit.
                devices: Vec::new(),
                ..resources
            };
            self.group(&config)?
                .update(&resources)
                .context(|| format!("Cannot update container {}", config.id))?;
        }
        self.containers().write_config(&config)?;
        self.tell(&Event::of(&config, "update"));
        Ok(())
    }
}

fn merged(old: &Limits, new: &Limits) -> Limits {
    Limits {
        memory: new.memory.or(old.memory),
        memory_swap: new.memory_swap.or(old.memory_swap),
        memory_reservation: new.memory_reservation.or(old.memory_reservation),
        nano_cpus: new.nano_cpus.or(old.nano_cpus),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpu_quota: new.cpu_quota.or(old.cpu_quota),
        cpu_period: new.cpu_period.or(old.cpu_period),
        realtime_runtime: new.realtime_runtime.or(old.realtime_runtime),
        realtime_period: new.realtime_period.or(old.realtime_period),
        cpuset_cpus: new.cpuset_cpus.clone().or_else(|| old.cpuset_cpus.clone()),
        cpuset_mems: new.cpuset_mems.clone().or_else(|| old.cpuset_mems.clone()),
        pids: new.pids.or(old.pids),
        blkio_weight: new.blkio_weight.or(old.blkio_weight),
        ..old.clone()
    }
}
