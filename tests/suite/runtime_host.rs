//! The runtime and what starts it: systemd, a supervisor that waits for word, a terminal.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

use crate::world::{PATIENCE, binary, eventually, finish};
use crate::yard::Yard;

#[test]
fn without_systemd_its_control_groups_are_refused_by_name() {
    let Some(yard) = Yard::new() else { return };
    if Path::new("/run/systemd/system").exists() {
        println!("skipped: systemd runs here (tests/vm has cases for it)");
        return;
    }
    for option in ["--systemd-cgroup", "--cgroup-manager=systemd"] {
        for verb in ["create", "run"] {
            yard.run(&[option, verb, "a"])
                .exits(1)
                .says("systemd not running on this host, cannot use systemd cgroups manager");
        }
    }
    assert!(fs::read_dir(yard.path("root")).unwrap().next().is_none());
    yard.nothing_left();
}

#[test]
fn intel_rdt_is_refused_where_there_is_none() {
    let Some(yard) = Yard::new() else { return };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.contains(" - resctrl ") {
        println!("skipped: resctrl is mounted here");
        return;
    }
    for wanted in [
        json!({}),
        json!({ "closID": "gold", "l3CacheSchema": "L3:0=f" }),
        json!({ "enableMonitoring": true }),
    ] {
        yard.config(|config| config["linux"]["intelRdt"] = wanted);
        yard.say("run a")
            .exits(1)
            .says("no resctrl file system is mounted")
            .says("leave linux.intelRdt out");
        yard.nothing_left();
    }
    yard.config(|config| config["linux"]["intelRdt"] = json!({ "closID": "../gold" }));
    yard.say("run a")
        .exits(1)
        .says("\\\"../gold\\\" is not the name of a class");
    yard.config(|_| {});
    yard.create("a");
    yard.say("update --l3-cache-schema L3:0=f a")
        .exits(1)
        .says("container has no class of service of Intel RDT");
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

#[test]
fn landlock_holds_for_the_program_its_hooks_and_what_exec_adds() {
    let Some(yard) = Yard::new() else { return };
    let rules = json!({
        "handledAccessFS": ["write_file", "make_reg", "execute"],
        "pathBeneath": [
            { "allowedAccess": ["execute"], "paths": ["/bin"] },
            { "allowedAccess": ["write_file", "make_reg"], "paths": ["/tmp", "/dev"] },
        ],
    });
    let script = "echo x >/etc/$0 2>/dev/null || echo $0 denied; echo x >/tmp/$0";
    let ask = |rules: &Value, program: &[&str]| {
        yard.config(|config| {
            config["process"]["args"] = json!(program);
            config["annotations"] = json!({ "org.dhow.landlock": rules.to_string() });
            config["process"]["noNewPrivileges"] = json!(true);
            config["hooks"] =
                json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script, "hook"] }] });
        });
    };
    ask(&rules, &["true"]);
    let first = yard.say("run first");
    if first.stderr.contains("this kernel has no Landlock") {
        println!("skipped: {}", first.stderr);
        return;
    }
    first.exits(0);
    ask(&rules, &["sleep", "1000"]);
    yard.create("a");
    yard.say("start a").exits(0).silent();
    assert_eq!(
        yard.run(&["exec", "a", "sh", "-c", script, "exec"]).ok(),
        "exec denied"
    );
    for name in ["hook", "exec"] {
        assert!(yard.path(&format!("bundle/rootfs/tmp/{name}")).exists(), "{name}");
        assert!(
            !yard.path(&format!("bundle/rootfs/etc/{name}")).exists(),
            "{name}"
        );
    }
    yard.say("delete --force a").ok();
    for (wrong, said) in [
        (json!({ "handledAccessFS": ["fly"] }), "unknown right"),
        (json!({ "handledAccessFS": [] }), "handles nothing"),
        (
            json!({ "handled": ["execute"] }),
            "org.dhow.landlock is not understood",
        ),
    ] {
        ask(&wrong, &["true"]);
        yard.say("run a").exits(1).says(said);
        yard.nothing_left();
    }
}

/// A supervisor's socket in the yard.
fn supervisor(yard: &Yard) -> (UnixDatagram, String) {
    let path = yard.path("supervisor");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path.display().to_string())
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn readiness_is_passed_on_to_the_supervisor_with_the_process_to_watch() {
    let Some(yard) = Yard::new() else { return };
    let (socket, path) = supervisor(&yard);
    yard.config(|config| {
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["process"]["env"] = json!(["PATH=/bin", "NOTIFY_SOCKET=/wrong"]);
    });
    let log = || fs::File::create(yard.path("log")).unwrap();
    let begin = |verb: &str, args: &[&str]| {
        let mut command = yard.command(&[&[verb], args].concat());
        command
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log());
        command
    };
    // As the program does it: by its variable, in its own view of the files.
    let tell = |pid: i64, message: &str| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        let name = text
            .split('\0')
            .find_map(|line| line.strip_prefix("NOTIFY_SOCKET="))
            .unwrap()
            .to_owned();
        assert_eq!(name, "/run/notify/notify.sock");
        let client = UnixDatagram::unbound().unwrap();
        client
            .send_to(message.as_bytes(), format!("/proc/{pid}/root{name}"))
            .unwrap();
    };
    assert!(begin("create", &["a"]).status().unwrap().success());
    let pid = yard.pid("a");
    let mut start = begin("start", &["a"]).spawn().unwrap();
    eventually("it runs", || yard.status("a") == "running");
    tell(pid, "STATUS=not yet");
    std::thread::sleep(Duration::from_millis(100));
    assert!(start.try_wait().unwrap().is_none(), "start waits for the word");
    tell(pid, "STATUS=up\nREADY=1\n");
    assert_eq!(next(&socket), "READY=1\n");
    assert_eq!(next(&socket), format!("MAINPID={pid}\n"));
    assert_eq!(next(&socket), "BARRIER=1");
    assert_eq!(crate::world::wait(&mut start, PATIENCE), Some(0));
    yard.say("delete --force a").ok();
    // In the foreground the supervisor watches the runtime itself, which ends with the program.
    let mut run = begin("run", &["a"]).spawn().unwrap();
    eventually("it runs", || yard.say("state a").stdout.contains("running"));
    tell(yard.pid("a"), "READY=1");
    assert_eq!(next(&socket), "READY=1\n");
    assert_eq!(next(&socket), format!("MAINPID={}\n", run.id()));
    yard.say("kill a KILL").ok();
    assert_eq!(crate::world::wait(&mut run, PATIENCE), Some(137));
    // One that ends without a word holds nobody up.
    yard.config(|config| config["process"]["args"] = json!(["true"]));
    let mut run = begin("run", &["-d", "a"]).spawn().unwrap();
    assert_eq!(crate::world::wait(&mut run, PATIENCE), Some(0));
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

#[test]
fn sockets_of_systemd_are_passed_with_their_number_before_other_descriptors() {
    let Some(yard) = Yard::new() else { return };
    yard.sh("cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; cat <&5 2>/dev/null || echo closed");
    fs::write(yard.path("one"), "first ").unwrap();
    fs::write(yard.path("two"), "second ").unwrap();
    let (one, two) = (yard.path("one"), yard.path("two"));
    let script = format!(
        "export LISTEN_FDS=1 LISTEN_PID=$$; exec {} runtime --root {} run --preserve-fds 1 a 3<{} 4<{} 5<{}",
        binary().display(),
        yard.path("root").display(),
        one.display(),
        two.display(),
        two.display(),
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(yard.path("bundle"));
    assert_eq!(finish(command, Vec::new()).ok(), "first second 1 1\nclosed");
    yard.nothing_left();
}

#[test]
fn a_script_without_its_interpreter_is_told_from_a_program_that_is_not_there() {
    let Some(yard) = Yard::new() else { return };
    let script = yard.path("bundle/rootfs/bin/script");
    fs::write(&script, "#!/nope\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    yard.config(|config| config["process"]["args"] = json!(["/bin/script"]));
    let ran = yard
        .say("run a")
        .exits(1)
        .says("exec /bin/script: no such file or directory");
    assert!(!ran.stderr.contains("stat "), "{ran:?}");
    yard.nothing_left();
    yard.create("a");
    yard.say("start a")
        .exits(1)
        .says("exec /bin/script: no such file or directory");
}

/// What the counters of a container are called, as the readers of runc's know them.
#[test]
fn statistics_have_the_names_that_readers_of_runcs_know() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 9 } })
    });
    yard.create("a");
    let told: Value = serde_json::from_str(&yard.say("events --stats a").ok()).unwrap();
    let data = &told["data"];
    let number = |path: &str| data.pointer(path).and_then(Value::as_u64);
    assert!(number("/cpu/usage/total").is_some_and(|time| time > 0), "{told}");
    for path in [
        "/cpu/usage/kernel",
        "/cpu/usage/user",
        "/cpuset/cpu_exclusive",
        "/memory/kernelTCP/limit",
        "/memory/usage/failcnt",
    ] {
        assert!(number(path).is_some(), "{path}: {told}");
    }
    assert_eq!(
        (number("/pids/limit"), number("/pids/current")),
        (Some(9), Some(1)),
        "{told}"
    );
    assert!(
        data["intel_rdt"].is_object() && data["network_interfaces"].is_null() && data["hugetlb"].is_object()
    );
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert!(
            data.pointer("/cpu/psi/some/avg10").is_some_and(Value::is_number),
            "{told}"
        );
    } else {
        let times = data
            .pointer("/cpu/usage/percpu")
            .and_then(Value::as_array)
            .unwrap();
        let all: u64 = times.iter().filter_map(Value::as_u64).sum();
        assert!(
            all > 0 && times.len() >= std::thread::available_parallelism().unwrap().get(),
            "{told}"
        );
        let sets = data.pointer("/cpuset/cpus").and_then(Value::as_array).unwrap();
        assert!(
            !sets.is_empty() && data.pointer("/cpuset/mems").is_some(),
            "{told}"
        );
        for entry in data["hugetlb"].as_object().unwrap().values() {
            assert!(entry["failcnt"].is_u64(), "{told}");
        }
    }
}

/// A terminal of the person who calls the runtime.
struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    said: String,
}

impl Terminal {
    fn new(rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
        let terminal = Self {
            master,
            slave,
            said: String::new(),
        };
        terminal.resize(rows, columns);
        terminal
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    fn spawn(&self, mut command: Command) -> Child {
        let end = || Stdio::from(self.slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    fn mode(&self) -> (LocalModes, InputModes, OutputModes) {
        let mode = tcgetattr(&self.slave).unwrap();
        (mode.local_modes, mode.input_modes, mode.output_modes)
    }

    fn types(&self, text: &str) {
        assert_eq!(
            rustix::io::write(&self.master, text.as_bytes()).unwrap(),
            text.len()
        );
    }

    #[track_caller]
    fn shows(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.contains(wanted) {
            assert!(Instant::now() < deadline, "{wanted:?} is not in {:?}", self.said);
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let soon = Timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            if poll(&mut fds, Some(&soon)).unwrap() > 0 {
                let mut bytes = [0; 512];
                let length = rustix::io::read(&self.master, &mut bytes).unwrap_or(0);
                self.said.push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        }
    }
}

#[test]
fn the_callers_terminal_is_raw_while_it_is_lent_and_as_before_afterwards() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["args"] = json!(["sh", "-c",
            "trap 'busybox stty size' WINCH; trap 'exit 3' TERM; busybox stty size; read line; echo got $line; \
             while :; do sleep 0.05; done"]);
    });
    let mut own = Terminal::new(33, 77);
    let before = own.mode();
    assert!(before.0.contains(LocalModes::ICANON | LocalModes::ECHO));
    let mut run = own.spawn(yard.command(&["run", "a"]));
    own.shows("33 77");
    assert!(
        !own.mode()
            .0
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    );
    own.types("typed\n");
    own.shows("got typed");
    let signal =
        |child: &Child, signal| rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
    own.resize(44, 88);
    signal(&run, Signal::WINCH);
    own.shows("44 88");
    // Another process has a terminal of its own, of the size of its caller's.
    let mut second = Terminal::new(11, 22);
    let mode = second.mode();
    let script = "busybox stty size; read line; echo got $line; exit 4";
    let mut exec = second.spawn(yard.command(&["exec", "-t", "a", "sh", "-c", script]));
    second.shows("11 22");
    second.types("more\n");
    second.shows("got more");
    assert_eq!(crate::world::wait(&mut exec, PATIENCE), Some(4));
    assert_eq!(second.mode(), mode);
    // The key that interrupts goes to the container's terminal as a byte.
    let mut exec = second.spawn(yard.command(&[
        "exec",
        "-t",
        "a",
        "sh",
        "-c",
        "trap 'exit 6' INT; echo is on; while :; do sleep 0.05; done",
    ]));
    second.shows("is on");
    second.types("\x03");
    assert_eq!(crate::world::wait(&mut exec, PATIENCE), Some(6));
    assert_eq!(second.mode(), mode);
    signal(&run, Signal::TERM);
    assert_eq!(crate::world::wait(&mut run, PATIENCE), Some(3));
    assert_eq!(own.mode(), before);
    yard.nothing_left();
}
