//! The program and its rights, compiled: what `create` and `exec` share.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;

use dhow_oci::Labels;
use dhow_oci::runtime::{Process, Rlimit, Seccomp};
use dhow_seccomp::{Arch, Cache, Program as Filter};
use dhow_types::ErrorKind;
use rustix::fs::Mode;
use rustix::process::{Gid, Resource, Uid};
use rustix::termios::Winsize;

use super::capability::Masks;
use super::{Settings, Share, bytes, text};
use crate::Error;
use crate::agent::Agent;
use crate::landlock::Landlock;
use crate::lsm;
use crate::report::Name;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` of `include/uapi/linux/seccomp.h`.
const NEW_LISTENER: u32 = 1 << 3;

/// Where programs are looked for when the environment has no PATH (execvp's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A compiled process.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) argv: dhow_sys::exec::Vector,
    pub(crate) env: dhow_sys::exec::Vector,
    /// Files to try, in order.
    pub(crate) candidates: Vec<CString>,
    /// The program as it was named.
    pub(crate) name: Name,
    pub(crate) cwd: CString,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
    /// Whether the caller's stay in their place.
    pub(crate) keep_groups: bool,
    /// Whether this process is in a user namespace that lets nobody change them (user_namespaces(7)).
    pub(crate) groups_denied: bool,
    pub(crate) umask: Option<Mode>,
    pub(crate) masks: Masks,
    pub(crate) no_new_privileges: bool,
    pub(crate) rlimits: Vec<(Resource, rustix::process::Rlimit)>,
    pub(crate) oom_score_adj: Option<String>,
    /// Its share of the machine, for the few that ask.
    pub(crate) share: Option<Box<Share>>,
    /// What the stub does before it executes the program.
    pub(crate) handover: dhow_sys::stub::Handover,
    pub(crate) filter: Option<Filter>,
    /// Who answers what the filter asks.
    pub(crate) agent: Option<Agent>,
    /// What the process becomes for AppArmor and SELinux.
    pub(crate) labels: Option<lsm::Labels>,
    /// What it gives up by Landlock.
    pub(crate) landlock: Option<Box<Landlock>>,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<Winsize>,
    /// First descriptor that the program does not keep.
    pub(crate) first_closed: u32,
    pub(crate) shared_keyring: bool,
    pub(crate) bare_newlines: bool,
    /// What the spec asks for and is left out, for the caller's log.
    pub(crate) warnings: Vec<String>,
}

impl Program {
    /// The process without a filter for its system calls.
    pub(crate) fn prepare(process: &Process, settings: &Settings) -> Result<Self, Error> {
        let Some(name) = process.args.first().filter(|name| !name.is_empty()) else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "process has no program: args is empty",
            ));
        };
        let cwd = process.cwd.as_os_str().as_bytes();
        if cwd.first() != Some(&b'/') {
            let message = format!("cwd {:?} is not an absolute path", process.cwd);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let (uid, gid) = (
            identity(process.user.uid, "uid")?,
            identity(process.user.gid, "gid")?,
        );
        let mut warnings = Vec::new();
        let masks = Masks::parse(
            process.capabilities.as_ref(),
            process.no_new_privileges,
            &mut warnings,
        )?;
        Ok(Self {
            argv: dhow_sys::exec::Vector::new(texts(&process.args, "argument")?),
            env: dhow_sys::exec::Vector::new(environment(&process.env)?),
            candidates: candidates(name, &process.env)?,
            name: Name {
                text: name.clone(),
                searched: !name.contains('/'),
                found: false,
            },
            cwd: bytes(cwd, "cwd")?,
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups(&process.user.additional_gids)?,
            keep_groups: settings.keep_groups,
            // Not there before Linux 3.19.
            groups_denied: dhow_sys::file::read_text("/proc/self/setgroups", 16)
                .is_ok_and(|word| word.trim_end() == "deny"),
            umask: process.user.umask.map(|mask| Mode::from_raw_mode(mask & 0o777)),
            masks,
            warnings,
            no_new_privileges: process.no_new_privileges,
            rlimits: rlimits(&process.rlimits)?,
            oom_score_adj: process.oom_score_adj.map(oom_score_adj).transpose()?,
            share: None,
            handover: dhow_sys::stub::Handover::None,
            agent: None,
            filter: None,
            labels: lsm::Labels::prepare(process)?,
            landlock: None,
            terminal: process.terminal,
            first_closed: settings.kept_fds.saturating_add(3),
            shared_keyring: settings.shared_keyring,
            bare_newlines: settings.bare_newlines,
            console_size: process.console_size.as_ref().map(|size| Winsize {
                ws_row: size.height,
                ws_col: size.width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            }),
        })
    }

    /// Gives it a filter.
    pub(crate) fn put_filter(&mut self, filtered: Filtered) {
        (self.filter, self.agent) = (filtered.filter, filtered.agent);
    }

    pub(crate) fn with_share(mut self, share: Option<Box<Share>>) -> Self {
        self.share = share;
        self
    }

    /// The same under the Landlock ruleset of the container's annotations, if they have one.
    pub(crate) fn with_landlock(mut self, annotations: &Labels) -> Result<Self, Error> {
        self.landlock = Landlock::prepare(annotations, self.no_new_privileges)?;
        Ok(self)
    }
}

/// What becomes of a process' system calls.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    filter: Option<Filter>,
    agent: Option<Agent>,
}

impl Filtered {
    /// Compiles a profile.
    pub(crate) fn compile(seccomp: Option<&Seccomp>, settings: &Settings) -> Result<Self, Error> {
        let Some(profile) = seccomp else {
            return Ok(Self::default());
        };
        let filter = filter(profile, settings).transpose()?;
        let agent = match &filter {
            Some(filter) if filter.notify => Some(Agent::of(profile)?.behind(filter)),
            _ => None,
        };
        Ok(Self { filter, agent })
    }
}

/// An id as the kernel takes it: -1 means "no change" to setresuid and would keep root (CVE-2024-40635's class).
fn identity(id: u32, what: &str) -> Result<u32, Error> {
    if id == u32::MAX {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{what} {id} is not an id"),
        ));
    }
    Ok(id)
}

fn texts(strings: &[String], what: &str) -> Result<Vec<CString>, Error> {
    strings.iter().map(|string| text(string, what)).collect()
}

/// Exactly the groups of the spec. That the primary group is among them (CVE-2022-36109, CVE-2023-25173) is for who writes
/// the spec, as dhow's engine does.
fn groups(additional: &[u32]) -> Result<Vec<Gid>, Error> {
    additional
        .iter()
        .map(|gid| identity(*gid, "gid").map(Gid::from_raw))
        .collect()
}

/// The environment with each name once: programs differ in which of two they believe. The last one counts, as for a
/// person who adds to what is there.
fn environment(all: &[String]) -> Result<Vec<CString>, Error> {
    let name = |variable: &str| variable.split_once('=').map(|(name, _)| name.to_owned());
    let mut seen = std::collections::HashSet::with_capacity(all.len());
    let mut kept: Vec<_> = all
        .iter()
        .rev()
        .filter(|variable| name(variable).is_none_or(|name| seen.insert(name)))
        .collect();
    kept.reverse();
    kept.into_iter()
        .map(|variable| text(variable, "environment variable"))
        .collect()
}

/// The files that execvp would try for `name`. An empty element of PATH is skipped: it means the working directory,
/// which is the image's to choose.
fn candidates(name: &str, env: &[String]) -> Result<Vec<CString>, Error> {
    if name.contains('/') {
        return Ok(vec![text(name, "program")?]);
    }
    let path = env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let directories = path.split(':').filter(|directory| directory.starts_with('/'));
    directories
        .map(|directory| text(&format!("{}/{name}", directory.trim_end_matches('/')), "program"))
        .collect()
}

fn oom_score_adj(score: i32) -> Result<String, Error> {
    if !(-1000..=1000).contains(&score) {
        let message = format!("oomScoreAdj {score} is not between -1000 and 1000");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(score.to_string())
}

fn filter(profile: &Seccomp, settings: &Settings) -> Option<Result<Filter, Error>> {
    use crate::Context as _;
    // Podman and others write an empty object for "none", which runc takes so.
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        return None;
    }
    if let Some(name) = dhow_seccomp::unknown_call(profile).filter(|_| settings.known_calls) {
        let message = format!("the seccomp profile names the system call {name:?}, which is not known");
        return Some(Err(Error::new(ErrorKind::InvalidArgument, message)));
    }
    let arch = Arch::host();
    let program = match &settings.seccomp_cache {
        Some(directory) => Cache::new(directory).compile(profile, arch),
        None => dhow_seccomp::compile(profile, arch),
    };
    let program = program.context(|| "compile seccomp profile");
    let has_agent = profile
        .listener_path
        .as_ref()
        .is_some_and(|path| !path.as_os_str().is_empty());
    let listen = |mut program: Filter| {
        program.notify = true;
        program.flags |= NEW_LISTENER;
        program
    };
    Some(if settings.always_listen && has_agent {
        program.map(listen)
    } else {
        program
    })
}

fn rlimits(limits: &[Rlimit]) -> Result<Vec<(Resource, rustix::process::Rlimit)>, Error> {
    let mut found: Vec<(Resource, rustix::process::Rlimit)> = Vec::with_capacity(limits.len());
    for limit in limits {
        let resource = resource(&limit.kind)?;
        if found.iter().any(|(known, _)| *known == resource) {
            let message = format!("{} is given twice", limit.kind);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if limit.soft > limit.hard {
            let message = format!(
                "{}: soft limit {} is over the hard limit {}",
                limit.kind, limit.soft, limit.hard
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let finite = |value: u64| (value != u64::MAX).then_some(value);
        let rlimit = rustix::process::Rlimit {
            current: finite(limit.soft),
            maximum: finite(limit.hard),
        };
        found.push((resource, rlimit));
    }
    Ok(found)
}

fn resource(name: &str) -> Result<Resource, Error> {
    Ok(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        other => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("unknown rlimit {other:?}"),
            ));
        }
    })
}
