//! One test's own root folder, and the binary in it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest time for one command: the machine may be slow and busy, and a hang must still end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    let path = std::env::var_os("DHOW_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/dhow"),
        PathBuf::from,
    );
    fs::canonicalize(&path)
        .unwrap_or_else(|error| panic!("no binary {}: {error}; run cargo xtask dist", path.display()))
}

/// Whether this is root; if not, says what is left out.
pub(crate) fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: it needs root");
    }
    root
}

/// Whether a program is there; if not, says what is left out.
pub(crate) fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    if !there {
        eprintln!("skipped: it needs {name} (./test installs it as root)");
    }
    there
}

/// A root folder with containers, images and networks of its own; all gone when dropped.
pub(crate) struct World {
    folder: Option<tempfile::TempDir>,
    root: PathBuf,
}

impl World {
    /// An empty root, or none when this is not root.
    pub(crate) fn new() -> Option<Self> {
        root().then(Self::anyone)
    }

    /// An empty root for whoever runs the tests.
    pub(crate) fn anyone() -> Self {
        // Short, since sockets of containers lie below it and the kernel allows 108 bytes for their paths.
        let folder = tempfile::Builder::new().prefix("dhow-t").tempdir().unwrap();
        let root = folder.path().join("r");
        let world = Self {
            folder: Some(folder),
            root,
        };
        // For a run of the whole suite on another back end.
        if let Some(form) = std::env::var_os("DHOW_TEST_SNAPSHOTS") {
            world
                .dhow(&[OsStr::new("system"), OsStr::new("snapshots"), &form])
                .ok();
        }
        world
    }

    /// An empty root for each way to keep layers that this host has; none when this is not root.
    pub(crate) fn of_each_back_end() -> Vec<Self> {
        let Some(directories) = Self::new() else {
            return Vec::new();
        };
        let copies = Self::anyone();
        copies.say("system snapshots copy").ok();
        let images = Self::anyone();
        let chosen = images.say("system layers erofs");
        if chosen.code != 0 {
            eprintln!("skipped the erofs back end: {}", chosen.stderr);
            return vec![directories, copies];
        }
        vec![directories, copies, images]
    }

    /// A root with the image `busybox`, or none when this is not root.
    pub(crate) fn with_busybox() -> Option<Self> {
        let world = Self::new()?;
        world.import_busybox("busybox");
        Some(world)
    }

    /// The same with the folder of run state in memory, as `/run` is: so the index has its log there, too. As root.
    pub(crate) fn with_run_in_memory() -> Option<Self> {
        let world = Self::new()?;
        world.keep_run_in_memory();
        world.import_busybox("busybox");
        Some(world)
    }

    /// Before the first command: mounts memory where run state is kept, unless `DHOW_TEST_RUN` is `disk`.
    pub(crate) fn keep_run_in_memory(&self) {
        let run = self.root.join("run");
        fs::create_dir_all(&run).unwrap();
        if std::env::var_os("DHOW_TEST_RUN").is_none_or(|place| place != "disk") {
            let flags = rustix::mount::MountFlags::NOSUID;
            rustix::mount::mount("dhow-test", &run, "tmpfs", flags, c"size=256m,mode=700").unwrap();
        }
    }

    /// Imports busybox under a name.
    pub(crate) fn import_busybox(&self, name: &str) {
        let tar = crate::samples::busybox_tar();
        self.feed(&["import", "-", name], tar).ok();
    }

    /// The same, in another root folder that the caller owns.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { folder: None, root }
    }

    /// The root folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path for the test's own files, outside of the root folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    /// Writes a file of the test's own.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The command `dhow --root ROOT <args>`.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&self.root).args(args);
        command
            .env_remove("DHOW_ROOT")
            .env_remove("DHOW_INSECURE_REGISTRIES");
        // The person's own credentials, mirrors and proxies are no part of a test.
        command
            .env_remove("DOCKER_CONFIG")
            .env_remove("DOCKER_DEFAULT_PLATFORM")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("XDG_CONFIG_HOME")
            .env("CONTAINERS_REGISTRIES_CONF", "/nonexistent/registries.conf")
            .env("DHOW_CERTS_D", "/nonexistent/certs.d")
            .env("DHOW_DOCKER_DAEMON_JSON", "/nonexistent/daemon.json")
            .env("NETCONFPATH", "/nonexistent/net.d")
            .env("DHOW_CONTAINERS_POLICY", "")
            .env("DHOW_POLICY", "")
            .env("HOME", "/nonexistent");
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs `dhow <args>` to its end.
    pub(crate) fn dhow<A: AsRef<OsStr>>(&self, args: &[A]) -> Ran {
        finish(self.command(args), Vec::new())
    }

    /// Runs `dhow <args>` with these bytes on standard input.
    pub(crate) fn feed<A: AsRef<OsStr>>(&self, args: &[A], input: impl Into<Vec<u8>>) -> Ran {
        finish(self.command(args), input.into())
    }

    /// Runs `dhow <words>`, split at blanks: for arguments without any.
    pub(crate) fn say(&self, line: &str) -> Ran {
        self.dhow(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a shell script in a new container of busybox that is removed.
    pub(crate) fn sh(&self, flags: &str, script: &str) -> Ran {
        let mut args = vec!["run", "--rm"];
        args.extend(flags.split_whitespace());
        args.extend(["busybox", "sh", "-c", script]);
        self.dhow(&args)
    }

    /// What a shell script prints in a container of an image without a network.
    #[track_caller]
    pub(crate) fn sh_in(&self, image: &str, script: &str) -> String {
        self.dhow(&["run", "--rm", "--network", "none", image, "sh", "-c", script])
            .ok()
    }

    /// Starts `dhow <args>` in a process group of its own.
    pub(crate) fn spawn<A: AsRef<OsStr>>(&self, args: &[A]) -> Child {
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.process_group(0).spawn().unwrap()
    }

    /// `inspect --format`, trimmed.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str, format: &str) -> String {
        self.dhow(&["inspect", "--format", format, name]).ok()
    }

    /// Fails unless `system check` says clean.
    #[track_caller]
    pub(crate) fn clean(&self) {
        self.say("system check").ok();
    }

    /// `system check`, healed when it is not clean; then it is.
    #[track_caller]
    pub(crate) fn clean_or_healed(&self) {
        let found = self.say("system check");
        if found.code != 0 {
            self.say("system check --repair").ok();
            self.clean();
        }
    }

    /// Processes that work on this root, monitors too.
    pub(crate) fn processes(&self) -> Vec<String> {
        processes(&format!("--root {} ", self.root.display()))
    }

    /// Ids of all containers that have a folder.
    pub(crate) fn containers(&self) -> Vec<String> {
        names(&self.root.join("containers"))
    }

    /// Fails if anything of this root is left in the kernel: processes, mounts, network devices, control groups.
    #[track_caller]
    pub(crate) fn nothing_left(&self, id: &str) {
        let gone = |what: &str, found: &dyn Fn() -> Vec<String>| {
            let deadline = Instant::now() + PATIENCE;
            while !found().is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(found(), Vec::<String>::new(), "{what} left");
        };
        let root = self.root.to_string_lossy().into_owned();
        gone("processes", &|| self.processes());
        gone("mounts", &|| mounts(&root));
        gone("control groups", &|| groups(id));
        gone("folders", &|| {
            let places = ["containers", "snapshots", "run", "tmp", "trash"].map(|name| self.root.join(name));
            places
                .iter()
                .flat_map(|place| names(place))
                .filter(|name| name.contains(id))
                .collect()
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What is running first, then what the kernel keeps for the root, then the files. A failure here must not
        // hide the test's own; what is left over shows up in the next `nothing_left`.
        let ids = self.containers();
        if !ids.is_empty() {
            let mut args = vec!["rm", "-f"];
            args.extend(ids.iter().map(String::as_str));
            drop(finish(self.command(&args), Vec::new()));
        }
        if self.root.exists() {
            drop(finish(self.command(&["system", "teardown"]), Vec::new()));
        }
        for line in mounts(&self.root.to_string_lossy()) {
            rustix::mount::unmount(line.as_str(), rustix::mount::UnmountFlags::DETACH).unwrap_or(());
        }
    }
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) command: String,
    /// Exit code; 128 and the signal's number when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for Ran {
    /// What a person needs of it; bytes and long output are cut.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |text: &str| text.chars().take(3000).collect::<String>();
        writeln!(f, "$ {}\nexit {}", cut(&self.command), self.code)?;
        write!(
            f,
            "--- stdout\n{}\n--- stderr\n{}",
            cut(&self.stdout),
            cut(&self.stderr)
        )
    }
}

impl Ran {
    /// Standard output, trimmed; fails unless the exit code is 0.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        self.exits(0).stdout.trim().to_owned()
    }

    /// Both streams, standard output last; fails unless the exit code is 0.
    #[track_caller]
    pub(crate) fn all(self) -> String {
        let ran = self.exits(0);
        format!("{}{}", ran.stderr, ran.stdout.trim())
    }

    /// Fails unless this is the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Fails only after a panic: any exit code will do.
    #[track_caller]
    pub(crate) fn exits_any(self) -> Self {
        let code = self.code;
        self.exits(code)
    }

    /// Fails if there is anything on standard output.
    #[track_caller]
    pub(crate) fn silent(self) -> Self {
        assert_eq!(self.stdout, "", "{self:?}");
        self
    }

    /// Fails unless standard error has this in it, in any case of letters.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        let found = self.stderr.to_lowercase().contains(&part.to_lowercase());
        assert!(found, "{part:?} is not said: {self:?}");
        self
    }

    /// Fails unless standard output has this in it.
    #[track_caller]
    pub(crate) fn prints(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "{part:?} is not printed: {self:?}");
        self
    }

    /// Fails unless it ended with this code and said exactly one error on standard error, and nothing as data.
    #[track_caller]
    pub(crate) fn one_error(self, code: i32) -> Self {
        let ran = self.exits(code);
        let errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("dhow: ") || line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "one error, said once: {ran:?}");
        assert_eq!(ran.stdout, "", "an error is not data: {ran:?}");
        ran
    }
}

/// Runs a command with this input to its end, and to the end of its output.
#[track_caller]
pub(crate) fn finish(mut command: Command, input: Vec<u8>) -> Ran {
    let shown = shown(&command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read all of its input is no failure.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = wait(&mut child, PATIENCE).unwrap_or_else(|| {
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap_or(());
        let said = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        panic!(
            "{shown}: no end after {PATIENCE:?}; it said {:?}",
            String::from_utf8_lossy(&said)
        );
    });
    // What it left running must not hold its output: `id=$(dhow run -d ...)` would hang.
    let rest = |channel: mpsc::Receiver<Vec<u8>>, what: &str| {
        channel
            .recv_timeout(Duration::from_secs(10))
            .unwrap_or_else(|_| panic!("{shown}: ended with {status:?}, but something keeps its {what} open"))
    };
    let bytes = rest(stdout, "standard output");
    let stderr = String::from_utf8_lossy(&rest(stderr, "standard error")).into_owned();
    let stdout = String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        command: shown,
        code: status,
        stdout,
        stderr,
        bytes,
    }
}

/// Exit code of a child, or none when it does not end in time.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<i32> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(
                status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            );
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks until it is so; fails after [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A TCP port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The body of `GET /` at an address, or none when nobody answers.
pub(crate) fn http(address: &str, path: &str) -> Option<String> {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// An address of this host that is not loopback.
pub(crate) fn host_address() -> Option<String> {
    let output = Command::new("hostname").arg("-I").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .find(|word| word.contains('.'))
        .map(str::to_owned)
}

/// Names in a folder; none when it is not there.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Processes with this text in their command line, as `pid command`; this process is not one.
fn processes(part: &str) -> Vec<String> {
    let mut found = Vec::new();
    for pid in names(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse::<u32>().ok())
    {
        let Ok(bytes) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        if line.contains(part) && pid != std::process::id() {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// Mount points of this mount namespace with this text in them.
pub(crate) fn mounts(part: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = text.lines().rev().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| point.contains(part))
        .map(str::to_owned)
        .collect()
}

/// Control groups with this text in their name.
pub(crate) fn groups(part: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(part) {
                found.push(entry.path().display().to_string());
            }
            if depth < 4 {
                pending.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        drop(sender.send(bytes));
    });
    receiver
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The URL of a server that gives these bytes to the first who asks.
pub(crate) fn served_once(bytes: Vec<u8>) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _read = stream.read(&mut request).unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    url
}
