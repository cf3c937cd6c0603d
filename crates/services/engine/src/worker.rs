//! A process, forked while there is still one thread, that runs programs in root file systems for threads that
//! must not fork: the steps of a build, the configuration of a base image.
//!
//! The worker is a single-threaded loop around children. Each job comes as one message with descriptors (a socket for the answer,
//! the output, perhaps the mounted root) and is received by a child, which tells the worker that it has one. From the second
//! job on the child is there before its job, with a folder for it, and jobs run side by side. The worker ends when [`Worker`]
//! is dropped or its process dies, and so does every job of a dead build.
//!
//! A job tells how its program ended when nothing of it runs any more, and only then hands its connection on to the next and
//! takes away its control group and folder, while the build goes on with what the program wrote. [`Worker`] waits for that
//! when it is dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use dhow_bundle::{GeneratedFile, NamespaceMode, Request};
use dhow_cgroup::Group;
use dhow_rootpath::Root;
use dhow_runtime::{Create, Namespace, Plan, Rootfs, Running, Stdio};
use dhow_types::{ContainerId, ErrorKind, Failure as _};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use crate::connection::{Connection, Pool};
use crate::container::hooks::{self, Bundle};
use crate::container::{random_bytes, write_file};
use crate::leftover::{CGROUP, StepFolder};
use crate::{Context as _, Engine, Error, Settings};

/// Largest job, as one message. A socket's buffer holds 208 KiB by default.
const MAX_JOB: usize = 128 << 10;
/// How much of its output is read at a time.
const OUTPUT: usize = 32 << 10;

/// The worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    socket: OwnedFd,
    process: Pid,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Closing is not enough: a process that this one made may have the socket, too.
        let _gone = rustix::net::shutdown(&self.socket, Shutdown::Both);
        while matches!(
            waitpid(Some(self.process), WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
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
    /// Groups of the root's own that it is in besides those of the user.
    pub(crate) groups: Vec<String>,
    /// Devices of the host.
    pub(crate) devices: JobDevices,
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

/// Devices by the Container Device Interface, and where the files about them are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct JobDevices {
    pub(crate) names: Vec<String>,
    pub(crate) folders: Vec<PathBuf>,
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
        let pools = Pools::new()?;
        if let Some(process) = dhow_sys::clone::fork().context(what)? {
            return Ok(Self {
                socket: ours,
                process,
            });
        }
        drop(ours);
        dhow_sys::background::settle("dhow-worker");
        serve(&theirs, settings, &pools);
        dhow_sys::background::exit_now(0)
    }

    /// Runs one job, and hands on what it says; the exit code. May be called from several threads.
    ///
    /// # Errors
    /// What kept it from running, `Cancelled`, or that of `output`.
    pub(crate) fn run(
        &self,
        job: &Job,
        mount: Option<BorrowedFd<'_>>,
        cancel: Option<&AtomicBool>,
        output: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
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
        let (mut reader, writer) = std::io::pipe().context(|| "make a pipe")?;
        let mut fds = vec![theirs.as_fd(), writer.as_fd()];
        fds.extend(mount);
        dhow_sys::fd::send(&self.socket, &text, &fds).context(|| "hand the step to the worker")?;
        drop((theirs, writer));
        // Whoever gives up closes the channel by that, and the job kills its program.
        let go_on = || match cancel {
            Some(cancel) if cancel.load(Ordering::Relaxed) => {
                Err(Error::new(ErrorKind::Cancelled, "the step was cancelled"))
            }
            _ => Ok(()),
        };
        let mut buffer = vec![0; OUTPUT];
        // Its end comes before the answer: the job closes it first.
        loop {
            go_on()?;
            if !is_readable(&reader) {
                continue;
            }
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => output(&buffer[..count]).context(|| "pass on the step's output")?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::wrap(error, "read the step's output")),
            }
        }
        while !is_readable(&answer) {
            go_on()?;
        }
        let mut text = Vec::new();
        BufReader::new(answer)
            .read_until(b'\n', &mut text)
            .context(|| "wait for the step")?;
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
}

/// Whether there is something to read, or its end; waits a little for it.
fn is_readable(from: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(from, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    matches!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1))
}

/// The worker's loop: a child for each job.
fn serve(socket: &OwnedFd, settings: &Settings, pools: &Pools) {
    // A build may have no job at all, and then nothing is made ready for one.
    if !has_job(socket) {
        return;
    }
    while let Ok((mut took, tells)) = std::io::pipe() {
        // Jobs that ended since the last one.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        match dhow_sys::clone::fork() {
            Ok(Some(_)) => {
                drop(tells);
                // Without a word it has met the end of the build.
                if !matches!(took.read(&mut [0]), Ok(1)) {
                    break;
                }
            }
            Ok(None) => {
                drop(took);
                child(socket, settings, pools, tells);
                dhow_sys::background::exit_now(0)
            }
            Err(error) => {
                let Some((_, mut answer, ..)) = receive(socket, &mut vec![0; MAX_JOB]) else {
                    break;
                };
                tell(
                    &mut answer,
                    Err(Error::wrap(error, "fork a process for the step")),
                );
            }
        }
    }
    // They clean up, and the build waits for this process.
    while matches!(
        rustix::process::wait(WaitOptions::empty()),
        Ok(Some(_)) | Err(Errno::INTR)
    ) {}
    if let Ok(engine) = Engine::open(settings.clone()) {
        pools.bridge.close(&engine);
    }
}

/// Waits for the first message; false at the end.
fn has_job(socket: &OwnedFd) -> bool {
    loop {
        match rustix::net::recv(socket, &mut [0][..], RecvFlags::PEEK) {
            Ok((_, count)) => return count > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A job as it comes: its text, the channel for its answer, its output, its root.
type Message<'a> = (&'a [u8], UnixStream, OwnedFd, Option<OwnedFd>);

/// Waits for a message; none at the end of the build.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Option<Message<'a>> {
    let (count, fds) = dhow_sys::fd::receive(socket, buffer).ok()?;
    let mut fds = fds.into_iter();
    let (answer, output, mount) = (fds.next()?, fds.next()?, fds.next());
    Some((buffer.get(..count)?, UnixStream::from(answer), output, mount))
}

/// Makes ready for a job, waits for it, tells the worker so, and does it.
fn child(socket: &OwnedFd, settings: &Settings, pools: &Pools, mut tells: PipeWriter) {
    let ready = Ready::new(settings);
    let mut buffer = vec![0; MAX_JOB];
    let Some((text, mut answer, output, mount)) = receive(socket, &mut buffer) else {
        return;
    };
    let job = serde_json::from_slice::<Job>(text)
        .map_err(|error| Error::because(ErrorKind::Internal, "read the step", error));
    // The worker makes the next child by that, beside this one's work.
    drop(tells.write_all(&[1]));
    drop(tells);
    match (job, ready) {
        (Ok(job), Ok(ready)) => ready.perform(job, pools, mount, output, &mut answer),
        (Err(error), _) | (_, Err(error)) => tell(&mut answer, Err(error)),
    }
}

/// Networks that steps handed on.
#[derive(Debug)]
struct Pools {
    bridge: Pool,
    alone: Pool,
}

impl Pools {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            bridge: Pool::new()?,
            alone: Pool::new()?,
        })
    }
}

/// What a job needs whatever it is.
struct Ready {
    engine: Engine,
    id: ContainerId,
    folder: StepFolder,
}

impl Ready {
    fn new(settings: &Settings) -> Result<Self, Error> {
        let engine = Engine::open(settings.clone())?;
        let id = ContainerId::from_random(random_bytes()?);
        let folder = StepFolder::make(&settings.run, &id)?;
        Ok(Self { engine, id, folder })
    }

    /// Does a job, tells how its program ended, and cleans up.
    fn perform(
        self,
        job: Job,
        pools: &Pools,
        mount: Option<OwnedFd>,
        output: OwnedFd,
        answer: &mut UnixStream,
    ) {
        let mut made = Made {
            engine: &self.engine,
            pools,
            connection: None,
            may_hand_on: may_hand_on(&job),
            group: None,
            folder: self.folder,
        };
        // It closes the root and the output, whose end the build waits for.
        let outcome = execute(&mut made, &self.id, job, mount, output, answer);
        made.kill();
        // Before the next step is told of, which looks for it.
        made.hand_on();
        tell(answer, outcome);
    }
}

/// Whether a program leaves its network namespace as it found it: neither it nor hooks of a device may change it.
fn may_hand_on(job: &Job) -> bool {
    let request = &job.request;
    !request.privileged && request.cap_add.is_empty() && job.devices.names.is_empty()
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
    pools: &'a Pools,
    connection: Option<Connection>,
    may_hand_on: bool,
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

    /// Hands the connection on, if that may be, when nothing runs of the job.
    fn hand_on(&mut self) {
        if self.may_hand_on {
            let connection = self.connection.take();
            self.connection = connection.and_then(|connection| match connection.endpoint() {
                Some(_) => self.pools.bridge.give(connection),
                None => self.pools.alone.give(connection),
            });
        }
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            drop(group.delete());
        }
        if let Some(connection) = self.connection.take() {
            connection.close(self.engine);
        }
    }
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
    request.extra_groups = crate::container::groups(&root, &job.groups)?;
    if request.privileged && crate::rootless::is_rootful() {
        request.devices = crate::container::host_devices(true);
    }
    let netns = connect(made, job.network, &mut request)?;
    request.files = files(made, &request, job.network, &job.extra_hosts, job.resolver)?;
    request.cgroup_path = group_path(made, id, job.cgroup_parent.as_deref())?;
    let mut spec = crate::system::runtime_spec(&request)?;
    crate::container::add_devices(&job.devices.names, &job.devices.folders, &mut spec)?;
    let resources = spec
        .linux
        .as_ref()
        .and_then(|linux| linux.resources.clone())
        .unwrap_or_default();
    made.group = Group::create_if_allowed(Path::new(&request.cgroup_path), &resources)
        .context(|| "make the control group")?;
    let plan = Plan::prepare(&spec, &made.engine.runtime_settings()).context(|| "prepare the step")?;
    let stdio = streams(output)?;
    let namespaces = netns
        .into_iter()
        .map(|netns| (Namespace::Network, netns))
        .collect();
    // Devices may come with programs that are to run beside it.
    let bundle = Bundle::make(made.folder.path.join("bundle"), id, &spec)?;
    let running = start(
        Create {
            plan: &plan,
            rootfs,
            stdio,
            group: made.group.as_ref(),
            namespaces,
            state: None,
        },
        bundle.as_ref(),
    )?;
    // Our side of the answer is never written to by the build: it becomes readable when the build is gone.
    let mut fds = [
        PollFd::new(&running.pidfd, PollFlags::IN),
        PollFd::new(answer, PollFlags::IN),
    ];
    while matches!(rustix::event::poll(&mut fds, None), Err(Errno::INTR)) {}
    if fds[0].revents().is_empty() {
        drop(dhow_runtime::kill(running.pidfd.as_fd(), 9));
    }
    let status = dhow_runtime::wait(running.pidfd.as_fd()).context(|| "wait for the step")?;
    if let Some(bundle) = bundle {
        bundle.finish();
    }
    Ok(i32::from(status.code()))
}

/// Both outputs are one, and nothing is read.
fn streams(output: OwnedFd) -> Result<Stdio, Error> {
    let null = File::open("/dev/null").context(|| "open /dev/null")?;
    Ok(Stdio::Fds {
        stdin: null.into(),
        stdout: output.try_clone().context(|| "duplicate the output")?,
        stderr: output,
    })
}

/// Starts the program; the root of one with hooks is where they look for it.
fn start(create: Create<'_>, bundle: Option<&Bundle>) -> Result<Running, Error> {
    let what = || "start the step";
    let Some(bundle) = bundle else {
        return dhow_runtime::run(create).context(what);
    };
    let create = Create {
        rootfs: match create.rootfs {
            Rootfs::Mount(mount) => Rootfs::Shown(mount, bundle.place()),
            rootfs => rootfs,
        },
        state: Some(&bundle.state),
        ..create
    };
    dhow_runtime::run_with_hooks(create, &hooks::surroundings(), &mut |_| ()).context(what)
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
    network: JobNetwork,
    request: &mut Request,
) -> Result<Option<OwnedFd>, Error> {
    let connection = match network {
        JobNetwork::Host => {
            request.namespaces.net = NamespaceMode::Host;
            return Ok(None);
        }
        JobNetwork::Bridge => made
            .pools
            .bridge
            .take()
            .map_or_else(|| Connection::joined(made.engine), Ok)?,
        JobNetwork::None => made.pools.alone.take().map_or_else(Connection::alone, Ok)?,
    };
    let connection = made.connection.insert(connection);
    let netns = connection.namespace().try_clone_to_owned();
    netns.context(|| "duplicate the network namespace").map(Some)
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
                .connection
                .as_ref()
                .and_then(Connection::endpoint)
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
        // Nobody else knows the folder yet.
        File::create_new(&source)
            .and_then(|mut file| {
                file.write_all(content.as_bytes())?;
                file.set_permissions(std::fs::Permissions::from_mode(0o644))
            })
            .context(|| format!("write {}", source.display()))?;
        files.push(GeneratedFile {
            source,
            destination: Path::new("/etc").join(name),
            read_only: true,
        });
    }
    Ok(files)
}
