//! The network namespace in which a normal user's bridges are. The host gives a normal user no bridge of its own, and a user
//! namespace of theirs all rights over a network of their own: one for all their containers, so that these reach each other,
//! with an uplink that the program pasta carries out (passt(1), <https://passt.top>).
//!
//! ```text
//! <folder>/holder.json  the process that lives in the namespace, by number and start
//! <folder>/PID-START    the same: it is in the user's namespace, through which others enter that
//! <folder>/pasta.pid    the process of the uplink, which has this path among its arguments
//! ```
//! Nothing is there without a container: the first that attaches makes it (70 ms, most of them pasta's), under the networks'
//! lock, and the holder ends it when nobody has been on any network for [`LINGER`]. It sleeps until then, woken by the time
//! stamp that every attach and detach sets. A holder that was killed is followed by another; its containers stay cut off.
//!
//! Who comes joins the namespace of that process only, and only if the own user namespace has the rights over it: a
//! program in a container can neither write the record nor be it.

mod errand;
mod pasta;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::store::{Durable, Networks, read_record, write_record};
use crate::watch::{Watch, retire_from_caller};
use crate::{Context as _, Endpoint, Error, namespace};

pub(crate) use errand::{errand, fetch};

/// How long the namespace stays when nobody is on a network.
const LINGER: Duration = Duration::from_secs(5);
/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
const RECORD: &str = "holder.json";
const PASTA: &str = "pasta.pid";

/// Where a user's namespace is written down.
#[derive(Clone, Debug)]
pub(crate) struct UserNamespace {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: i32,
    start: u64,
    /// False until it has its uplink.
    ready: bool,
    /// Whether the uplink leads to the host at [`pasta::HOST`].
    #[serde(default)]
    host: bool,
}

impl UserNamespace {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The namespace, if it is there. Under the networks' lock.
    pub(crate) fn existing(&self) -> Result<Option<OwnedFd>, Error> {
        Ok(match self.holder()? {
            Some(holder) if holder.ready => open(holder.pid, holder.start),
            _ => None,
        })
    }

    /// The namespace, made if need be. Under the networks' lock.
    pub(crate) fn ensure(&self, networks: &Networks) -> Result<OwnedFd, Error> {
        if let Some(netns) = self.existing()? {
            return Ok(netns);
        }
        // A holder without its uplink, an uplink without its holder: what a kill has left.
        self.end()?;
        pasta::check()?;
        fs::create_dir_all(&self.folder).context(|| format!("create {}", self.folder.display()))?;
        let what = || "make the network namespace of the user's containers";
        let (pid, go) = hold(networks).context(what)?;
        let start = dhow_sys::process::started(pid).unwrap_or(0);
        let mut holder = Holder {
            pid,
            start,
            ready: false,
            host: false,
        };
        self.write(&holder)?;
        // From here on it is known, and lives without us.
        (&go).write_all(&[1]).context(what)?;
        let Some(netns) = open(pid, start) else {
            return Err(Error::new(ErrorKind::Internal, what()));
        };
        let copy = netns.try_clone().context(what)?;
        holder.host = match pasta::start(copy, &self.folder.join(PASTA)) {
            Ok(host) => host,
            Err(error) => {
                // The first failure is the one to report; what stays is ended by the next attach.
                drop(self.end());
                return Err(error);
            }
        };
        let member = self.folder.join(format!("{pid}-{start}"));
        File::create(&member).context(|| format!("write {}", member.display()))?;
        holder.ready = true;
        self.write(&holder)?;
        Ok(netns)
    }

    /// Ends holder and uplink, and with them the namespace.
    pub(crate) fn end(&self) -> Result<(), Error> {
        if let Some(holder) = self.holder()? {
            kill(holder.pid, |pid| {
                dhow_sys::process::started(pid) == Some(holder.start)
            });
        }
        self.end_uplink();
        for name in [RECORD, PASTA] {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("remove {}", self.folder.join(name).display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn end_uplink(&self) {
        let path = self.folder.join(PASTA);
        let pid = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        // The file goes with a root that is removed; the process does not.
        let pid = pid.or_else(|| pasta::find(&path));
        if let Some(pid) = pid {
            kill(pid, |pid| pasta::is(pid, &path));
        }
    }

    fn holder(&self) -> Result<Option<Holder>, Error> {
        match read_record(&self.folder.join(RECORD)) {
            Err(error) if error.kind() == ErrorKind::DataLoss => Ok(None),
            other => other,
        }
    }

    fn write(&self, holder: &Holder) -> Result<(), Error> {
        write_record(&self.folder, RECORD, holder, Durable::No)
    }

    /// In the holder: whether it is still the one.
    fn is_held_by_us(&self) -> bool {
        let own = i32::try_from(std::process::id()).ok();
        matches!(self.holder(), Ok(Some(holder)) if Some(holder.pid) == own)
    }
}

/// The network namespace of a process of ours.
fn open(pid: i32, start: u64) -> Option<OwnedFd> {
    let netns = File::open(format!("/proc/{pid}/ns/net")).ok()?;
    // Opened, it is still that process and not a later one of its number.
    (dhow_sys::process::started(pid) == Some(start) && is_ours(&netns)).then(|| netns.into())
}

/// Whether the own user namespace has the rights over a network namespace.
pub(crate) fn is_ours(netns: &File) -> bool {
    let identity = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let (Ok(owner), Ok(own)) = (
        dhow_sys::namespace::owner(netns),
        File::open("/proc/self/ns/user"),
    ) else {
        return false;
    };
    identity(owner.as_fd()).is_some_and(|owner| Some(owner) == identity(own.as_fd()))
}

/// Kills a process, if it is the one that is meant, and waits until it is gone.
fn kill(pid: i32, is_meant: impl Fn(i32) -> bool) {
    let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return;
    };
    if is_meant(pid) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        // One that takes longer is as dead.
        _ = poll(&mut fds, Some(&timespec(PATIENCE)));
    }
}

fn timespec(time: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Makes the holder, which belongs to nobody and ends unless a byte comes through the pipe; its process id.
fn hold(networks: &Networks) -> io::Result<(i32, io::PipeWriter)> {
    let (mut said, tell) = io::pipe()?;
    let (wait, go) = io::pipe()?;
    let child = dhow_sys::clone::spawn(&dhow_sys::clone::Options::default(), || {
        match dhow_sys::clone::fork() {
            // Its parent ends at once, so that whoever reaps orphans reaps it.
            Ok(Some(_)) => 0,
            Ok(None) => i32::from(live(networks, &wait, &tell).is_err()),
            Err(_) => 1,
        }
    })?;
    drop(tell);
    drop(wait);
    let mut pid = [0; 4];
    let read = said.read_exact(&mut pid);
    _ = rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty());
    read?;
    Ok((i32::from_ne_bytes(pid), go))
}

/// The holder's life.
fn live(networks: &Networks, wait: &io::PipeReader, tell: &io::PipeWriter) -> io::Result<()> {
    retire_from_caller()?;
    dhow_sys::namespace::unshare(UnshareFlags::NEWNET)?;
    namespace::loopback_up()?;
    // Else nobody but the host's root could open its namespaces (proc(5)): entering a user namespace takes that away.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    let mut watch = Watch::new(networks)?;
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    { tell }.write_all(&pid.to_ne_bytes())?;
    let mut kept = watch.fds();
    kept.push(wait.as_fd());
    dhow_sys::fd::close_all_but(3, &kept)?;
    dhow_sys::background::settle("dhow-net");
    { wait }.read_exact(&mut [0])?;
    watch.outlast_containers(networks, LINGER, || networks.end_user_namespace());
    dhow_sys::background::exit_now(0)
}

impl Networks {
    /// Where containers reach the name servers of the host that listen on its loopback, if anywhere.
    #[must_use]
    pub fn resolver(&self) -> Option<IpAddr> {
        self.user.as_ref().map(|_| pasta::RESOLVER.into())
    }

    /// Where a container with this endpoint reaches the host (docker's `host-gateway`); none on an internal network.
    ///
    /// # Errors
    /// `Unsupported` with a pasta that cannot do it.
    pub fn host(&self, endpoint: &Endpoint) -> Result<Option<IpAddr>, Error> {
        let gateway = endpoint.gateway.map(IpAddr::V4);
        let Some(user) = self.user.as_ref().filter(|_| gateway.is_some()) else {
            return Ok(gateway);
        };
        match user.holder()? {
            Some(holder) if holder.host => Ok(Some(pasta::HOST.into())),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "the pasta of this host is too old to lead a container to the host",
            )
            .with_hint("install a passt of August 2024 or later, or name an address of the host")),
        }
    }

    /// In the holder: ends what is outside of the own process, unless somebody has come. A holder that was replaced
    /// just ends.
    fn end_user_namespace(&self) -> bool {
        let Some(user) = &self.user else {
            return true;
        };
        let Ok(_lock) = self.lock() else {
            user.end_uplink();
            return true;
        };
        if !user.is_held_by_us() {
            return true;
        }
        if !self.is_deserted() {
            return false;
        }
        user.end_uplink();
        for name in [RECORD, PASTA] {
            drop(fs::remove_file(user.folder.join(name)));
        }
        true
    }
}
