//! A process, forked while there is still one thread, that runs programs in root file systems for threads that
//! must not fork: the steps of a build, the configuration of a base image.
//!
//! The worker is a single-threaded loop. Each job comes as one message with descriptors (a socket for the answer,
//! the output, perhaps the mounted root) and is done by a child of the worker, so that jobs run side by side. The
//! worker ends when the last [`Worker`] handle is closed, and so does every job of a dead build.
//!
//! A job tells how its program ended when nothing of it runs any more, and only then takes away its control group, endpoint
//! and folder, while the build goes on with what the program wrote. [`Worker`] waits for that when it is dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use dhow_bundle::{GeneratedFile, NamespaceMode, Request};
use dhow_cgroup::Group;
use dhow_network::{Endpoint, EndpointRequest};
use dhow_rootpath::Root;
use dhow_runtime::{Create, Namespace, Plan, Rootfs, Stdio};
use dhow_types::{ContainerId, ErrorKind, Failure as _};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::container::{random_bytes, write_file};
use crate::leftover::{CGROUP, StepFolder};
use crate::{Context as _, Engine, Error, Settings};

/// Largest job, as one message. A socket's buffer holds 208 KiB by default.
const MAX_JOB: usize = 128 << 10;

/// A handle of the worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    socket: OwnedFd,
    /// Channels of jobs that have told how they ended and still clean up.
    ending: Mutex<Vec<UnixStream>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let ending = std::mem::take(&mut *self.ending.lock().unwrap_or_else(PoisonError::into_inner));
        for mut job in ending {
            // Its end is all that comes; a failure is one, too.
            drop(job.read(&mut [0]));
        }
    }
}

/// What a job is connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JobNetwork {
    /// The default bridge.
    #[default]
    Bridge,
    /// The host's network.
    Host,
    /// Nothing.
    None,
}

/// One program to run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Job {
    /// What and how; the identity is looked up from `user`.
    pub(crate) request: Request,
    /// The user as text.
    pub(crate) user: String,
    /// How it is connected.
    pub(crate) network: JobNetwork,
    /// The root as a folder, when no mount is sent along.
    pub(crate) folder: Option<PathBuf>,
    /// Lines for `/etc/hosts`, `name:address`.
    pub(crate) extra_hosts: Vec<String>,
    /// Name servers, search domains and options, instead of the host's.
    pub(crate) resolver: Resolver,
    /// Control group below which its own is made, instead of this root's.
    pub(crate) cgroup_parent: Option<String>,
}

/// What a program asks for names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<std::net::IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// What came of a job.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Code(i32),
    Failed {
        kind: usize,
        message: String,
        hint: Option<String>,
    },
}

impl Worker {
    /// Forks the worker. The caller must be single-threaded.
    pub(crate) fn fork(settings: &Settings) -> Result<Self, Error> {
        let what = || "make the worker process";
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(std::io::Error::from)
        .context(what)?;
        if dhow_sys::clone::fork().context(what)?.is_some() {
            return Ok(Self {
                socket: ours,
                ending: Mutex::default(),
            });
        }
        drop(ours);
        dhow_sys::background::settle("dhow-worker");
        serve(&theirs, settings);
        dhow_sys::background::exit_now(0)
    }

    /// Runs one job, its output into `output`; the exit code. May be called from several threads.
    pub(crate) fn run(
        &self,
        job: &Job,
        mount: Option<BorrowedFd<'_>>,
        output: BorrowedFd<'_>,
        cancel: Option<&AtomicBool>,
    ) -> Result<i32, Error> {
        let text = serde_json::to_vec(job)
            .map_err(|error| Error::because(ErrorKind::Internal, "describe the step", error))?;
        if text.len() > MAX_JOB {
            let message = format!(
                "step needs {} bytes of arguments and environment, more than {MAX_JOB}",
                text.len()
            );
            return Err(
                Error::new(ErrorKind::ResourceExhausted, message).with_hint("put long texts into a file")
            );
        }
        let (answer, theirs) = UnixStream::pair().context(|| "make the step's channel")?;
        let mut fds = vec![theirs.as_fd(), output];
        fds.extend(mount);
        dhow_sys::fd::send(&self.socket, &text, &fds).context(|| "hand the step to the worker")?;
        drop(theirs);
        while !is_readable(&answer, 100) {
            if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                // Closing our end makes the job kill its program.
                return Err(Error::new(ErrorKind::Cancelled, "the step was cancelled"));
            }
        }
        let mut text = Vec::new();
        let mut answer = BufReader::new(answer);
        answer
            .read_until(b'\n', &mut text)
            .context(|| "wait for the step")?;
        self.let_end(answer.into_inner());
        match serde_json::from_slice(&text) {
            Ok(Answer::Code(code)) => Ok(code),
            Ok(Answer::Failed { kind, message, hint }) => {
                let kind = ErrorKind::ALL.get(kind).copied().unwrap_or(ErrorKind::Internal);
                let error = Error::new(kind, message);
                Err(match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            }
            Err(_) => Err(Error::new(
                ErrorKind::Internal,
                "the process that ran the step was killed",
            )),
        }
    }

    /// Keeps the channel of a job until it has cleaned up; those that have by now are let go.
    fn let_end(&self, job: UnixStream) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.retain(|job| !is_readable(job, 0));
        ending.push(job);
    }
}

/// Whether the answer, or its end, is there; waits so long for it, less than a second.
fn is_readable(answer: &UnixStream, milliseconds: i64) -> bool {
    let mut fds = [PollFd::new(answer, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: milliseconds * 1_000_000,
    };
    matches!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1))
}

/// The worker's loop.
fn serve(socket: &OwnedFd, settings: &Settings) {
    let mut buffer = vec![0; MAX_JOB];
    while let Ok((count @ 1.., mut fds)) = dhow_sys::fd::receive(socket, &mut buffer) {
        // Jobs that ended since the last one.
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        if fds.len() < 2 {
            continue;
        }
        let mount = (fds.len() > 2).then(|| fds.remove(2));
        let output = fds.remove(1);
        let mut answer = UnixStream::from(fds.remove(0));
        match dhow_sys::clone::fork() {
            Ok(Some(_)) => {}
            Ok(None) => {
                let job = serde_json::from_slice::<Job>(&buffer[..count])
                    .map_err(|error| Error::because(ErrorKind::Internal, "read the step", error));
                match job {
                    Ok(job) => perform(settings, job, mount, output, &mut answer),
                    Err(error) => tell(&mut answer, Err(error)),
                }
                dhow_sys::background::exit_now(0)
            }
            Err(error) => tell(
                &mut answer,
                Err(Error::wrap(error, "fork a process for the step")),
            ),
        }
    }
}

fn tell(answer: &mut UnixStream, outcome: Result<i32, Error>) {
    let text = match outcome {
        Ok(code) => Answer::Code(code),
        Err(error) => Answer::Failed {
            kind: ErrorKind::ALL
                .iter()
                .position(|kind| *kind == error.kind())
                .unwrap_or(4),
            message: chain(&error),
            hint: error.hint().map(str::to_owned),
        },
    };
    if let Ok(mut text) = serde_json::to_vec(&text) {
        text.push(b'\n');
        // Without a listener the build is gone, and nobody wants to know.
        drop(answer.write_all(&text));
    }
}

/// The whole chain of an error as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// What a job made outside of its process, undone when dropped; the folder last, since it says whose the rest is.
struct Made<'a> {
    engine: &'a Engine,
    endpoint: Option<Endpoint>,
    group: Option<Group>,
    folder: StepFolder,
}

impl Made<'_> {
    /// Ends whatever still runs of the job.
    fn kill(&self) {
        if let Some(group) = &self.group {
            drop(group.kill_all());
        }
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            drop(group.delete());
        }
        if let (Some(endpoint), Ok(networks)) = (self.endpoint.take(), self.engine.networks()) {
            // An address that stays is taken back by the next `release_stale`.
            drop(networks.detach(&endpoint));
        }
    }
}

/// Does a job, tells how its program ended, and cleans up.
fn perform(settings: &Settings, job: Job, mount: Option<OwnedFd>, output: OwnedFd, answer: &mut UnixStream) {
    let made = || -> Result<_, Error> {
        let engine = Engine::open(settings.clone())?;
        let id = ContainerId::from_random(random_bytes()?);
        let folder = StepFolder::make(&settings.run, &id)?;
        Ok((engine, id, folder))
    };
    let (engine, id, folder) = match made() {
        Ok(made) => made,
        Err(error) => return tell(answer, Err(error)),
    };
    let mut made = Made {
        engine: &engine,
        endpoint: None,
        group: None,
        folder,
    };
    // It closes the root and the output, whose end the build waits for.
    let outcome = execute(&mut made, &id, job, mount, output, answer);
    made.kill();
    tell(answer, outcome);
}

/// Runs the program of a job; its exit code.
fn execute(
    made: &mut Made<'_>,
    id: &ContainerId,
    job: Job,
    mount: Option<OwnedFd>,
    output: OwnedFd,
    answer: &UnixStream,
) -> Result<i32, Error> {
    let (rootfs, root) = match (mount, &job.folder) {
        (Some(mount), _) => {
            let copy = mount.try_clone().context(|| "duplicate the root's descriptor")?;
            (Rootfs::Mount(mount), Root::from_fd(copy))
        }
        (None, Some(folder)) => {
            let root = Root::open(folder).context(|| "open the step's root")?;
            (Rootfs::Path(folder.clone()), root)
        }
        (None, None) => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "step has no root file system",
            ));
        }
    };
    let mut request = job.request;
    request.identity = crate::container::identity(&root, &job.user)?;
    if request.privileged && crate::rootless::is_rootful() {
        request.devices = crate::container::host_devices(true);
    }
    let netns = connect(made, id, job.network, &mut request)?;
    request.files = files(made, &request, job.network, &job.extra_hosts, job.resolver)?;
    request.cgroup_path = group_path(made, id, job.cgroup_parent.as_deref())?;
    let spec = crate::system::runtime_spec(&request)?;
    let resources = spec
        .linux
        .as_ref()
        .and_then(|linux| linux.resources.clone())
        .unwrap_or_default();
    made.group = Group::create_if_allowed(Path::new(&request.cgroup_path), &resources)
        .context(|| "make the control group")?;
    let plan = Plan::prepare(&spec, &made.engine.runtime_settings()).context(|| "prepare the step")?;
    let null = File::open("/dev/null").context(|| "open /dev/null")?;
    let stdio = Stdio::Fds {
        stdin: null.into(),
        stdout: output.try_clone().context(|| "duplicate the output")?,
        stderr: output,
    };
    let namespaces = netns
        .into_iter()
        .map(|netns| (Namespace::Network, netns))
        .collect();
    let running = dhow_runtime::run(Create {
        plan: &plan,
        rootfs,
        stdio,
        group: made.group.as_ref(),
        namespaces,
        state: None,
    })
    .context(|| "start the step")?;
    // Our side of the answer is never written to by the build: it becomes readable when the build is gone.
    let mut fds = [
        PollFd::new(&running.pidfd, PollFlags::IN),
        PollFd::new(answer, PollFlags::IN),
    ];
    while matches!(rustix::event::poll(&mut fds, None), Err(rustix::io::Errno::INTR)) {}
    if fds[0].revents().is_empty() {
        drop(dhow_runtime::kill(running.pidfd.as_fd(), 9));
    }
    let status = dhow_runtime::wait(running.pidfd.as_fd()).context(|| "wait for the step")?;
    Ok(i32::from(status.code()))
}

/// Where the control group of a step is.
fn group_path(made: &Made<'_>, id: &ContainerId, parent: Option<&str>) -> Result<String, Error> {
    let Some(parent) = parent else {
        return Ok(format!("{}/{id}", made.engine.cgroup_parent()));
    };
    let path = format!("{}/{id}", parent.trim_matches('/'));
    // Nobody looks there for what a killed step left, unless it is written down.
    write_file(&made.folder.path.join(CGROUP), path.as_bytes())?;
    Ok(path)
}

fn connect(
    made: &mut Made<'_>,
    id: &ContainerId,
    network: JobNetwork,
    request: &mut Request,
) -> Result<Option<OwnedFd>, Error> {
    if network == JobNetwork::Host {
        request.namespaces.net = NamespaceMode::Host;
        return Ok(None);
    }
    let netns = dhow_network::sandbox().context(|| "make the network namespace")?;
    if network == JobNetwork::Bridge {
        let networks = made.engine.networks()?;
        let bridge = networks.default_bridge().context(|| "open the default network")?;
        let (endpoint, _) = networks
            .attach(&bridge, netns.as_fd(), &EndpointRequest::new(id))
            .context(|| "join the default network")?;
        made.endpoint = Some(endpoint);
    }
    Ok(Some(netns))
}

fn files(
    made: &Made<'_>,
    request: &Request,
    network: JobNetwork,
    extra_hosts: &[String],
    resolver: Resolver,
) -> Result<Vec<GeneratedFile>, Error> {
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let options = dhow_network::ResolvOptions {
        host_network: network == JobNetwork::Host,
        forwarder: match network {
            JobNetwork::Bridge => made.engine.networks()?.resolver(),
            _ => None,
        },
        servers: resolver.servers,
        search: resolver.search,
        options: resolver.options,
        ..Default::default()
    };
    let resolv = dhow_network::resolv_conf(&host, &options).context(|| "write the step's resolv.conf")?;
    let mut entries = Vec::new();
    for line in extra_hosts {
        let entry = line.split_once('=').or_else(|| line.split_once(':'));
        let entry = entry.and_then(|(name, ip)| {
            Some(dhow_network::HostEntry {
                ip: ip.parse().ok()?,
                names: vec![name.to_owned()],
            })
        });
        let bad = || {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("invalid --add-host {line:?}: write name:address"),
            )
        };
        entries.push(entry.ok_or_else(bad)?);
    }
    // Its own name leads to it with whatever network, as with BuildKit (executor/oci/hosts.go).
    if !request.hostname.is_empty() {
        let loopback = std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
        entries.push(dhow_network::HostEntry {
            ip: made
                .endpoint
                .as_ref()
                .map_or(loopback, |endpoint| endpoint.ip.into()),
            names: vec![request.hostname.clone()],
        });
    }
    let hosts = dhow_network::hosts_file(&entries).context(|| "write the step's hosts file")?;
    let mut files = Vec::new();
    // Buildah's has it, BuildKit's not; a step that looks finds its own name.
    let hostname = format!("{}\n", request.hostname);
    for (name, content) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", hostname)] {
        let source = made.folder.path.join(name);
        write_file(&source, content.as_bytes())?;
        std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .context(|| format!("make {} readable", source.display()))?;
        files.push(GeneratedFile {
            source,
            destination: Path::new("/etc").join(name),
            read_only: true,
        });
    }
    Ok(files)
}
