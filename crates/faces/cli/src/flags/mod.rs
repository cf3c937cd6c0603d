//! Flags that several verbs share, and the small languages in their values.

mod chosen;
mod container;
mod device;
mod filter;
mod health;
mod limits;
mod mount;
mod network;
mod platform;
mod podman;
mod port;
pub(crate) mod registry;
mod secret;
mod users;
mod value;

pub(crate) use chosen::Chosen;
pub(crate) use container::{ContainerFlags, ulimit};
pub(crate) use device::DeviceFlags;
pub(crate) use filter::Filters;
pub(crate) use limits::LimitFlags;
pub(crate) use mount::fields as csv;
pub(crate) use platform::{PlatformFlags, usual_platform};
pub(crate) use podman::absolute;
pub(crate) use value::{env_pairs, key_value, labels, restart_policy, seconds};

use std::os::fd::{AsFd, BorrowedFd};

use dhow_engine::Signals as Watched;

use crate::CliError;

/// Signals that a command in the foreground takes instead of dying of them.
#[derive(Debug)]
pub(crate) struct Signals(Watched);

/// Window change, 28 on every architecture we run on.
const SIGWINCH: i32 = 28;
/// HUP INT QUIT USR1 USR2 ALRM TERM CONT: what docker's `--sig-proxy` is used for.
const PROXIED: [i32; 8] = [1, 2, 3, 10, 12, 14, 15, 18];

impl Signals {
    /// Watches the terminal's size and, when asked, the signals that go to the container.
    pub(crate) fn watch(proxy: bool, tty: bool) -> Result<Self, CliError> {
        let mut numbers = Vec::new();
        if tty {
            numbers.push(SIGWINCH);
        }
        if proxy {
            numbers.extend(PROXIED);
        }
        Ok(Self(Watched::watch(&numbers)?))
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<i32> {
        self.0.take()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The flags of a verb as its own type. Fails only where the type and the built flags disagree, which is a bug.
pub(crate) fn read<T: clap::FromArgMatches>(matches: &clap::ArgMatches) -> Result<T, CliError> {
    T::from_arg_matches(matches).map_err(|error| CliError::plain(error.to_string()))
}
