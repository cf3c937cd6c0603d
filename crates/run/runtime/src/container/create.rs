//! Making a container that has a folder.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_cgroup::Group;
use dhow_cgroup::systemd::StandIn;
use dhow_oci::runtime::{DeviceRule, Resources, Spec, State};
use dhow_sys::clone::Child;
use dhow_types::ErrorKind;
use rustix::thread::UnshareFlags;

use super::driver::{self, Made, Systemd};
use super::folder::{Folder, Lock};
use super::record::{self, Record};
use super::vital::Vital;
use super::{Container, Kept, Status, enter, notify, resctrl};
use crate::agent::Agent;
use crate::create::{Create, Rootfs, Stdio, begin};
use crate::hooks::{self, Stage, Surroundings};
use crate::init::staged::Staged;
use crate::parent::{self, Answer, Link};
use crate::plan::{self, Filtered};
use crate::report::Name;
use crate::{Context as _, Error, Plan, Settings};

/// A bundle: the folder, and its spec.
#[derive(Debug)]
pub struct Bundle {
    /// The folder, absolute.
    pub path: PathBuf,
    /// `config.json` as it is there.
    pub config: Vec<u8>,
    /// What it says, with what the caller adds.
    pub spec: Spec,
}

/// How a container is made.
#[derive(Debug)]
pub struct Options {
    /// How the spec is compiled.
    pub settings: Settings,
    /// Standard streams.
    pub stdio: Stdio,
    /// The systemd that makes the control group; without one, this program does.
    pub systemd: Option<Systemd>,
    /// Where in the container the folder is with the socket on which the program says that it is ready (sd_notify(3)); without,
    /// there is none.
    pub notify: Option<PathBuf>,
    /// What becomes of a container whose control group may not be made, and that asks for none by path or limit.
    pub without_group: WithoutGroup,
    /// What hooks run with.
    pub hooks: Surroundings,
}

/// What becomes of a container whose control group may not be made, and that asks for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutGroup {
    /// It is refused.
    #[default]
    Refused,
    /// It runs in the group of its starter, if all groups are read-only here, as inside of another container.
    WhereReadOnly,
    /// It runs in the group of its starter.
    Allowed,
    /// It runs there even if one could be made, whatever the spec says of a group and its limits.
    Wanted,
}

/// A container whose first process is there.
#[derive(Debug)]
pub struct Begun {
    /// The container.
    pub container: Container,
    /// Process id of the first process; it is a child of the caller.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// The socket on which the program says that it is ready, of a container that was asked for with
    /// [`Options::notify`] and is started.
    pub notify: Option<OwnedFd>,
    /// What the spec asks for and was left out.
    pub warnings: Vec<String>,
}

/// Makes a container that waits for [`Container::start`], by whatever process.
///
/// # Errors
/// The step that failed. Nothing of the container is left then.
pub fn create(root: &Path, id: &str, bundle: &Bundle, options: Options) -> Result<Begun, Error> {
    let mut plan = prepare(root, id, bundle, &options)?;
    let (reserved, rest) = reserve(root, id, bundle, &mut plan, &options)?;
    let (mut birth, stdio) = Birth::of(id, bundle, &plan, reserved, options);
    let listener = birth.take(rest).and_then(|()| birth.folder.listen());
    let outcome = listener.and_then(|listener| {
        let terminal = birth.bear(stdio, Some(&listener))?;
        birth.publish()?;
        // From here on the process waits for a start, whatever becomes of this one.
        birth.tell();
        Ok(terminal)
    });
    birth.finish(outcome)
}

/// Makes a container and starts it, with one process less to wait for.
///
/// # Errors
/// The step that failed; `NotFound` and `PermissionDenied` for the program. Nothing of the container is left then.
pub fn run(root: &Path, id: &str, bundle: &Bundle, options: Options) -> Result<Begun, Error> {
    let mut plan = prepare(root, id, bundle, &options)?;
    let (reserved, rest) = reserve(root, id, bundle, &mut plan, &options)?;
    let (mut birth, stdio) = Birth::of(id, bundle, &plan, reserved, options);
    let outcome = birth
        .take(rest)
        .and_then(|()| birth.hear())
        .and_then(|()| birth.bear(stdio, None))
        .and_then(|terminal| {
            if !birth.begun_early {
                birth.publish()?;
                birth.tell();
            }
            birth.start()?;
            Ok(terminal)
        });
    birth.finish(outcome)
}

/// The plan without its filter.
fn prepare(root: &Path, id: &str, bundle: &Bundle, options: &Options) -> Result<Plan, Error> {
    check_version(&bundle.spec.oci_version)?;
    if bundle
        .spec
        .root
        .as_ref()
        .is_none_or(|root| root.path.as_os_str().is_empty())
    {
        return Err(Error::new(ErrorKind::InvalidArgument, "spec has no root.path"));
    }
    let noted = options.notify.as_ref().map(|inside| {
        let mut spec = bundle.spec.clone();
        notify::add(&mut spec, root, id, inside);
        spec
    });
    let spec = noted.as_ref().unwrap_or(&bundle.spec);
    // The process alone is copied: a spec with docker's filter holds a thousand names besides.
    let mut process = spec.process.clone();
    if let Some(process) = &mut process {
        enter::set_home(process, || enter::open_root(&rootfs(bundle)));
    }
    let path = std::path::absolute(&bundle.path).context(|| "find the bundle")?;
    let settings = Settings {
        bundle: Some(path),
        ..options.settings.clone()
    };
    Plan::without_filter(spec, process.as_ref(), &settings)
}

/// The whole plan.
pub(super) fn prepare_whole(
    root: &Path,
    id: &str,
    bundle: &Bundle,
    options: &Options,
) -> Result<Plan, Error> {
    let mut plan = prepare(root, id, bundle, options)?;
    let filtered = Filtered::compile(plan::profile(&bundle.spec), &options.settings)?;
    plan.program.put_filter(filtered);
    Ok(plan)
}

/// What a container has of the host before it is born.
struct Reserved {
    folder: Folder,
    lock: Lock,
    group: Option<Group>,
    /// In the unit until the first process is.
    stand_in: Option<StandIn>,
}

/// What a second thread makes meanwhile: the network namespace, if it can. A failure is that of the filter.
type Rest = Result<Option<OwnedFd>, Error>;

/// Reserves the id, keeps the spec, makes the control group; and what needs none of these, the filter of the plan and the network
/// namespace, on another processor meanwhile.
fn reserve(
    root: &Path,
    id: &str,
    bundle: &Bundle,
    plan: &mut Plan,
    options: &Options,
) -> Result<(Reserved, Rest), Error> {
    let filtered = || Filtered::compile(plan::profile(&bundle.spec), &options.settings);
    // The stand-in in a unit of systemd is a fork, which is not for a process with threads.
    if !plan.lends_network() || options.systemd.is_some() {
        plan.program.put_filter(filtered()?);
        return Ok((Reserved::make(root, id, bundle, plan, options)?, Ok(None)));
    }
    let here = || Reserved::make(root, id, bundle, plan, options);
    // A network namespace that cannot be made is asked for again when the others are, and told with them.
    let there = || Ok((filtered()?, parent::network_of_a_thread().ok()));
    let (reserved, rest) = dhow_sys::beside::both(here, there).context(|| "make a container's parts")?;
    let reserved = reserved?;
    let rest = rest.map(|(filtered, network)| {
        plan.program.put_filter(filtered);
        network
    });
    Ok((reserved, rest))
}

impl Reserved {
    fn make(root: &Path, id: &str, bundle: &Bundle, plan: &Plan, options: &Options) -> Result<Self, Error> {
        let (folder, lock) = Folder::make(root, id)?;
        let made = folder
            .write_config(&bundle.config)
            .and_then(|()| {
                if options.notify.is_some() {
                    notify::make(&folder)
                } else {
                    Ok(())
                }
            })
            .and_then(|()| driver::make(&bundle.spec, id, plan, options));
        match made {
            Ok(Made { group, stand_in }) => Ok(Self {
                folder,
                lock,
                group,
                stand_in,
            }),
            // The first failure is the one to tell; what cannot be removed is seen by `delete`.
            Err(error) => match folder.remove() {
                Ok(()) | Err(_) => Err(error),
            },
        }
    }
}

/// The version of the spec is one of semver, and of this major number (runtime-spec, "Specification version").
fn check_version(version: &str) -> Result<(), Error> {
    let wrong = |why: &str| {
        let message = format!("ociVersion {version:?} {why}");
        Err(Error::new(ErrorKind::InvalidArgument, message))
    };
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let number =
        |word: &&str| !word.is_empty() && word.len() < 10 && word.bytes().all(|byte| byte.is_ascii_digit());
    if numbers.len() != 3 || !numbers.iter().all(number) {
        return wrong("is not a semantic version");
    }
    if numbers.first() != Some(&"1") {
        return wrong("is not supported: this runtime knows versions 1.x");
    }
    Ok(())
}

pub(super) fn rootfs(bundle: &Bundle) -> PathBuf {
    let root = bundle.spec.root.as_ref().map(|root| root.path.as_path());
    bundle.path.join(root.unwrap_or(Path::new("rootfs")))
}

/// A container on its way into the world.
struct Birth<'a> {
    plan: &'a Plan,
    rootfs: PathBuf,
    folder: Folder,
    /// Free from the moment the record is there.
    lock: Option<Lock>,
    group: Option<Group>,
    /// In the unit until the first process is.
    stand_in: Option<StandIn>,
    /// Whether the program may say that it is ready.
    hears: bool,
    notify: Option<OwnedFd>,
    spec: &'a Spec,
    record: Record,
    /// Its network namespace, if it is made already.
    network: Option<OwnedFd>,
    /// As hooks get it.
    state: State,
    /// What they run with.
    hooks: Surroundings,
    born: Option<(Child, Link)>,
    /// Whether the process was told to go on before it was ready.
    begun_early: bool,
}

impl<'a> Birth<'a> {
    fn of(
        id: &str,
        bundle: &'a Bundle,
        plan: &'a Plan,
        reserved: Reserved,
        options: Options,
    ) -> (Self, Stdio) {
        let Reserved {
            folder,
            lock,
            group,
            stand_in,
        } = reserved;
        let record = Record {
            oci_version: bundle.spec.oci_version.clone(),
            created: now(),
            bundle: bundle.path.clone(),
            rootfs: rootfs(bundle),
            cgroup_paths: group.as_ref().map(Group::paths).unwrap_or_default(),
            annotations: bundle.spec.annotations.clone(),
            own_processes: plan.new.contains(UnshareFlags::NEWPID),
            systemd: options.systemd,
            ..Record::default()
        };
        let birth = Self {
            plan,
            rootfs: rootfs(bundle),
            folder,
            lock: Some(lock),
            group,
            stand_in,
            hears: options.notify.is_some(),
            notify: None,
            spec: &bundle.spec,
            state: State {
                id: id.to_owned(),
                ..record.state()
            },
            record,
            hooks: options.hooks,
            network: None,
            born: None,
            begun_early: false,
        };
        (birth, options.stdio)
    }

    /// What was made besides.
    fn take(&mut self, rest: Rest) -> Result<(), Error> {
        rest.map(|network| self.network = network)
    }

    /// Makes the socket on which the program says that it is ready, if it is to.
    fn hear(&mut self) -> Result<(), Error> {
        self.notify = if self.hears {
            notify::listen(&self.folder)?
        } else {
            None
        };
        Ok(())
    }

    /// Clones the first process and waits until it is set up; returns the master of its terminal.
    fn bear(&mut self, stdio: Stdio, listener: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Error> {
        let classes = resctrl::enter(&self.folder, self.plan.class.as_ref())?;
        let ready = self.network.take();
        let create = Create {
            plan: self.plan,
            rootfs: Rootfs::Path(self.rootfs.clone()),
            stdio,
            group: self.group.as_ref(),
            namespaces: Vec::new(),
            state: Some(&self.state),
        };
        let staged = Staged {
            state: &self.state,
            around: self.hooks.around(),
            listener: listener.map(|listener| listener.as_fd()),
            classes: &classes,
        };
        let (child, link) = begin(&create, Some(&staged), ready)?;
        drop(create);
        drop(self.stand_in.take());
        drop(classes);
        self.record.pid = child.pid.as_raw_pid();
        self.record.start = Vital::now(self.record.pid).map_or(0, |vital| vital.start);
        self.state.pid = self.record.pid;
        self.born = Some((child, link));
        let hooks = &self.plan.hooks;
        let agent = self.plan.program.agent.as_ref();
        // The agent of a filter is told before the child is: the word would be taken for its answer.
        let waits = listener.is_some()
            || agent.is_some_and(Agent::comes_first)
            || Stage::BEFORE_START
                .iter()
                .any(|stage| !stage.of(hooks).is_empty());
        self.record_meanwhile(waits)?;
        let Some((child, link)) = &self.born else {
            return Err(Error::new(ErrorKind::Internal, "a container without a process"));
        };
        loop {
            match link.answer() {
                Answer::Ready(terminal) => return self.introduce().map(|()| terminal),
                Answer::Hooks => {
                    self.record.creating = true;
                    record::write(&self.folder, &self.record)?;
                    self.record.creating = false;
                    record::draft(&self.folder, &self.record)?;
                    for stage in [Stage::Prestart, Stage::CreateRuntime] {
                        let around = self.hooks.around();
                        hooks::run(stage, stage.of(&self.plan.hooks), &self.state, around, None)?;
                    }
                    link.tell();
                }
                answer => {
                    let plan = self.plan;
                    let error = answer.into_error(child, &plan.program.name, Some(&plan.program), Some(plan));
                    return Err(error);
                }
            }
        }
    }

    /// Writes the record while the child is at work. For one that waits only the renaming is left to do once it is ready. Any
    /// other is told to go on at once, and finds that word when it comes to it: each process that waits for the other one
    /// costs the waking of a processor. Until it executes its program it is being created, for all who ask.
    fn record_meanwhile(&mut self, waits: bool) -> Result<(), Error> {
        if waits {
            return record::draft(&self.folder, &self.record);
        }
        self.record.creating = true;
        record::write(&self.folder, &self.record)?;
        self.begun_early = true;
        self.tell();
        Ok(())
    }

    /// Lets the child go on.
    fn tell(&self) {
        if let Some((_, link)) = &self.born {
            link.tell();
        }
    }

    /// Gives the listener to the agent of a filter that is loaded before the start.
    fn introduce(&self) -> Result<(), Error> {
        let program = &self.plan.program;
        let (Some((child, link)), Some(agent)) = (&self.born, &program.agent) else {
            return Ok(());
        };
        if !agent.comes_first() {
            return Ok(());
        }
        let state = State {
            status: Status::Creating.word().to_owned(),
            ..self.state.clone()
        };
        match parent::executed(link, state.pid, child.pidfd.as_fd(), Some(agent), Some(&state))? {
            Answer::Ready(_) => Ok(()),
            answer => Err(answer.into_failure(&program.name, Some(program), Some(self.plan))),
        }
    }

    /// Writes that the container is there, and frees its lock: the first process, which will outlive this one, has a copy
    /// of the lock's descriptor until it executes its program.
    fn publish(&mut self) -> Result<(), Error> {
        record::publish(&self.folder)?;
        drop(self.lock.take());
        Ok(())
    }

    /// Waits for the program to begin, then runs what comes after.
    fn start(&mut self) -> Result<(), Error> {
        let Some((child, link)) = &self.born else {
            return Err(Error::new(ErrorKind::Internal, "a container without a process"));
        };
        let program = &self.plan.program;
        let (pidfd, agent) = (child.pidfd.as_fd(), program.agent.as_ref());
        match parent::executed(link, self.state.pid, pidfd, agent, Some(&self.state))? {
            Answer::Closed => {}
            answer => {
                if matches!(answer, Answer::Said(_)) {
                    let hooks = &self.plan.hooks.poststart;
                    hooks::run_after_failure(hooks, &self.state, self.hooks.around());
                }
                let name = Name {
                    found: true,
                    ..program.name.clone()
                };
                return Err(answer.into_failure(&name, None, None));
            }
        }
        self.record.creating = false;
        drop(self.lock.take());
        let hooks = &self.plan.hooks.poststart;
        hooks::run(Stage::Poststart, hooks, &self.state, self.hooks.around(), None)
    }

    /// The container, or the failure with everything undone.
    fn finish(self, outcome: Result<Option<OwnedFd>, Error>) -> Result<Begun, Error> {
        let terminal = match outcome {
            Ok(terminal) => terminal,
            Err(error) => return Err(self.undo(error)),
        };
        let Some((child, link)) = self.born else {
            return Err(Error::new(ErrorKind::Internal, "a container without a process"));
        };
        drop(link);
        let warnings = warnings(self.plan, self.spec, self.group.is_some());
        Ok(Begun {
            container: Container {
                folder: self.folder,
                record: Some(self.record),
                kept: Some(Kept {
                    group: self.group,
                    poststop: self.plan.hooks.poststop.clone(),
                }),
            },
            pid: child.pid.as_raw_pid(),
            pidfd: child.pidfd,
            terminal,
            notify: self.notify,
            warnings,
        })
    }

    /// Takes everything back, then runs the last hooks: the lifecycle goes on at its end (runtime-spec, "Lifecycle", step 12).
    fn undo(self, error: Error) -> Error {
        let begun = self.born.is_some();
        if let Some((child, _)) = &self.born {
            parent::end(child);
        }
        let mut failures = dhow_types::Failures::new();
        if let Some(group) = self.group {
            failures.record("kill the processes", group.kill_all());
            drop(self.stand_in);
            let systemd = self.record.systemd.as_ref();
            let removed = driver::remove(systemd, self.spec, &self.state.id, group);
            failures.record("remove the control group", removed);
        }
        failures.record("leave resctrl", resctrl::leave(&self.folder));
        failures.record("remove the folder", self.folder.remove());
        if begun {
            // Of those that fail nobody is left to hear: the failure before them is what is told.
            drop(hooks::run_last(
                &self.plan.hooks.poststop,
                &self.state,
                self.hooks.around(),
            ));
        }
        match failures.into_result() {
            // What else failed matters less than why it had to be undone; what is left is seen by `delete`.
            Ok(()) | Err(_) => error,
        }
    }
}

/// What the spec limits. Where it has rules for devices, those that every container has (runtime-spec, "Default Devices")
/// are allowed after them, as is making the node of any, as with runc: clients begin with a rule that denies all.
pub(super) fn resources(wanted: Option<&Resources>) -> Resources {
    const ALWAYS: [(i64, Option<i64>); 9] = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    let mut resources = wanted.cloned().unwrap_or_default();
    if resources.devices.is_empty() {
        return resources;
    }
    let rule = |kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| DeviceRule {
        allow: true,
        kind: Some(kind.to_owned()),
        major,
        minor,
        access: Some(access.to_owned()),
    };
    let nodes = ["c", "b"].map(|kind| rule(kind, None, None, "m"));
    resources.devices.extend(nodes);
    let always = ALWAYS.map(|(major, minor)| rule("c", Some(major), minor, "rwm"));
    resources.devices.extend(always);
    resources
}

/// What the caller should know of a container that is there.
pub(super) fn warnings(plan: &Plan, spec: &Spec, has_group: bool) -> Vec<String> {
    let mut warnings = plan.program.warnings.clone();
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let memory = resources.and_then(|resources| resources.memory.as_ref());
    if memory.is_some_and(|memory| memory.kernel.is_some() || memory.kernel_tcp.is_some()) {
        // Not recommended by the spec, and gone since Linux 5.16; runc's words.
        warnings.push("Kernel memory settings are ignored and will be removed".to_owned());
    }
    if !has_group && !plan.new.contains(UnshareFlags::NEWPID) {
        // runc's words and reason.
        warnings.push(
            "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is strongly \
             discouraged (as it is impossible to properly kill all container's processes)"
                .to_owned(),
        );
    }
    warnings
}

/// The present time, RFC 3339 in UTC with nanoseconds.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs(), Some(since.subsec_nanos()))
}

/// A time in seconds since 1970 as a date, RFC 3339 in UTC; with nanoseconds if there are any.
// The days-to-civil algorithm over eras of 400 years.
#[must_use]
pub fn rfc3339(seconds: u64, nanoseconds: Option<u32>) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = nanoseconds.map_or(String::new(), |nanoseconds| format!(".{nanoseconds:09}"));
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        assert_eq!(rfc3339(0, None), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400, Some(5)), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(
            rfc3339(1_795_228_799, Some(999_999_999)),
            "2026-11-21T02:39:59.999999999Z"
        );
        assert_eq!(rfc3339(4_102_444_799, None), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn a_version_is_semantic_and_of_the_first_major() {
        for sound in ["1.0.0", "1.3.0", "1.0.2-dev", "1.2.1+build.5", "1.99.0"] {
            assert!(check_version(sound).is_ok(), "{sound}");
        }
        for wrong in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "a.b.c",
            "0.2.0",
            "2.0.0",
            "1..0",
            "-1.0.0",
            "1.0.99999999999",
        ] {
            assert_eq!(
                check_version(wrong).unwrap_err().kind(),
                ErrorKind::InvalidArgument
            );
        }
    }
}
