//! What a normal user can do, and what they are told about the rest. As root, these run the binary as `nobody`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::world::{Ran, World, binary, eventually, finish};

/// A copy of the binary and a folder that `nobody` can reach.
pub(crate) struct Nobody {
    pub(crate) world: World,
    binary: PathBuf,
    home: PathBuf,
    /// A tap device that everybody may use, as most distributions have it, to be put over the host's.
    tun: Option<PathBuf>,
    /// A file of the machine's for its `/etc/resolv.conf`.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// The same for `/etc/subuid` and `/etc/subgid`.
    ranges: Option<PathBuf>,
}

impl Nobody {
    const ID: u32 = 65534;

    fn new() -> Self {
        let world = World::anyone();
        let copy = world.path("dhow");
        // By another process: a file that this one writes would be busy in what other tests fork meanwhile.
        assert!(
            Command::new("cp")
                .arg(binary())
                .arg(&copy)
                .status()
                .unwrap()
                .success()
        );
        let home = world.path("home");
        fs::create_dir(&home).unwrap();
        for path in [copy.parent().unwrap(), &copy, &home] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&home, Some(Self::ID), Some(Self::ID)).unwrap();
        }
        Self {
            world,
            binary: copy,
            home,
            tun: None,
            resolv_conf: None,
            ranges: None,
        }
    }

    /// With further ids, and busybox as the image `box`; none where they are not to be had.
    pub(crate) fn with_ids() -> Option<Self> {
        let mut nobody = Self::new();
        let files = ["/etc/subuid", "/etc/subgid"]
            .iter()
            .all(|file| fs::exists(file).unwrap());
        let programs = ["newuidmap", "unshare", "setpriv"]
            .iter()
            .all(|name| crate::world::program(name));
        if !rustix::process::geteuid().is_root() || !files || !programs {
            eprintln!("skipped: needs root, the package uidmap, /etc/subuid and /etc/subgid");
            return None;
        }
        nobody.ranges = Some(nobody.world.file("ranges", "nobody:200000:65536\n"));
        nobody
            .feed(&["import", "-", "box"], crate::samples::busybox_tar())
            .ok();
        Some(nobody)
    }

    /// With what a network needs, and busybox as the image `box`; none where that is not to be had.
    pub(crate) fn with_network() -> Option<Self> {
        let mut nobody = Self::new();
        if !crate::world::program("pasta") || fs::metadata("/dev/net/tun").is_err() {
            eprintln!("skipped: needs the package passt and /dev/net/tun");
            return None;
        }
        if fs::metadata("/dev/net/tun").unwrap().permissions().mode() & 0o666 != 0o666 {
            if !rustix::process::geteuid().is_root() {
                eprintln!("skipped: /dev/net/tun is not for everybody");
                return None;
            }
            let tun = nobody.world.path("tun");
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            let kind = rustix::fs::FileType::CharacterDevice;
            let device = rustix::fs::makedev(10, 200);
            rustix::fs::mknodat(rustix::fs::CWD, &tun, kind, mode, device).unwrap();
            fs::set_permissions(&tun, fs::Permissions::from_mode(0o666)).unwrap();
            nobody.tun = Some(tun);
        }
        nobody
            .feed(&["import", "-", "box"], crate::samples::busybox_tar())
            .ok();
        Some(nobody)
    }

    /// One command, its words apart by blanks.
    pub(crate) fn say(&self, line: &str) -> Ran {
        self.dhow(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn feed(&self, args: &[&str], input: Vec<u8>) -> Ran {
        finish(self.command(args), input)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(&self.binary, args)
    }

    /// The program under podman's name.
    pub(crate) fn podman(&self, line: &str) -> Ran {
        let name = self.binary.with_file_name("podman");
        if !name.exists() {
            std::os::unix::fs::symlink(&self.binary, &name).unwrap();
        }
        let args: Vec<&str> = line.split_whitespace().collect();
        finish(self.command_of(&name, &args), Vec::new())
    }

    fn command_of(&self, binary: &std::path::Path, args: &[&str]) -> Command {
        let over = [
            (&self.resolv_conf, "/etc/resolv.conf"),
            (&self.tun, "/dev/net/tun"),
            (&self.ranges, "/etc/subuid"),
            (&self.ranges, "/etc/subgid"),
        ];
        let over: Vec<_> = over
            .into_iter()
            .filter_map(|(path, place)| Some((path.as_ref()?, place)))
            .collect();
        let mut command = match over.is_empty() {
            true => Command::new(binary),
            false => {
                let id = Self::ID;
                let bind =
                    |(path, place): &(&PathBuf, &str)| format!("mount --bind {} {place} && ", path.display());
                let binds: String = over.iter().map(bind).collect();
                let script = format!("{binds}exec setpriv --reuid {id} --regid {id} --clear-groups \"$@\"");
                let mut command = Command::new("unshare");
                command.args(["-m", "sh", "-c", &script, "sh"]).arg(binary);
                command
            }
        };
        command.args(args).env("HOME", &self.home).current_dir(&self.home);
        for name in ["DHOW_ROOT", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        if over.is_empty() && rustix::process::geteuid().is_root() {
            command.uid(Self::ID).gid(Self::ID);
        }
        command
    }

    /// A bundle of busybox that sleeps, for the runtime, in a user namespace of the one id.
    fn bundle(&self) {
        let rootfs = self.home.join("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for name in ["id", "ls", "sh", "sleep"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        self.dhow(&["runtime", "spec", "--rootless"]).ok();
        let config = self.home.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["args"] = serde_json::json!(["sleep", "1000"]);
        spec["process"]["terminal"] = false.into();
        fs::write(&config, spec.to_string()).unwrap();
    }

    /// A command of the runtime on containers of its own.
    fn runtime(&self, words: &str) -> Command {
        let state = self.home.join("state").display().to_string();
        let mut args = vec!["runtime", "--root", &state];
        args.extend(words.split(' '));
        self.command(&args)
    }

    pub(crate) fn dhow(&self, args: &[&str]) -> Ran {
        self.feed(args, Vec::new())
    }
}

#[test]
fn unprivileged_version_and_doctor_work() {
    let nobody = Nobody::new();
    assert!(nobody.dhow(&["--version"]).ok().starts_with("dhow 0."));
    nobody.dhow(&["version"]).exits(0).prints("Version");
    let ran = nobody.dhow(&["doctor"]);
    assert!(ran.code == 0 || ran.code == 1, "{ran:?}");
    for word in [
        "kernel",
        "control groups",
        "overlay",
        "not root",
        "network of the user",
        "low ports",
        "ping",
        "0 ports of this host lead to containers",
    ] {
        assert!(ran.stdout.to_lowercase().contains(word), "{word}: {ran:?}");
    }
}

#[test]
fn unprivileged_images_are_kept_below_the_persons_home() {
    let nobody = Nobody::new();
    assert_eq!(nobody.dhow(&["images", "-q"]).ok(), "");
    let id = nobody
        .feed(&["import", "-", "box"], crate::samples::busybox_tar())
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert!(nobody.home.join(".local/share/dhow").exists());
    let saved = nobody.dhow(&["save", "box"]).exits(0).bytes;
    nobody.dhow(&["rmi", "box"]).ok();
    assert!(
        nobody
            .feed(&["load"], saved)
            .ok()
            .contains("Loaded image: box:latest")
    );
    assert_eq!(nobody.dhow(&["images", "-q", "--no-trunc"]).ok(), id);
    nobody.dhow(&["system", "check"]).ok();
    nobody.dhow(&["history", "box"]).exits(0);
    nobody.dhow(&["ps", "-a"]).exits(0);
}

#[test]
fn unprivileged_another_root_folder_can_be_named() {
    let nobody = Nobody::new();
    let root = nobody.home.join("else").display().to_string();
    let id = nobody
        .feed(
            &["--root", &root, "import", "-", "box"],
            crate::samples::busybox_tar(),
        )
        .ok();
    assert_eq!(
        nobody.dhow(&["--root", &root, "images", "-q", "--no-trunc"]).ok(),
        id
    );
    assert_eq!(nobody.dhow(&["images", "-q"]).ok(), "");
    let forbidden = nobody.world.path("mine").display().to_string();
    if rustix::process::geteuid().is_root() {
        nobody
            .dhow(&["--root", &forbidden, "images"])
            .one_error(1)
            .says("permission denied");
        nobody
            .dhow(&["--root", "/var/lib/dhow-of-root", "images"])
            .one_error(1)
            .says("--root");
    }
}

#[test]
fn unprivileged_run_says_what_is_missing() {
    let nobody = Nobody::new();
    nobody
        .feed(&["import", "-", "box"], crate::samples::busybox_tar())
        .ok();
    // Without the program that makes their network, wherever the rest of the machine has it.
    let mut command = nobody.command(&["run", "--rm", "box", "true"]);
    command.env("PATH", &nobody.home);
    finish(command, Vec::new())
        .one_error(125)
        .says("--network none or --network host");
    let ran = nobody.dhow(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--memory",
        "64m",
        "box",
        "true",
    ]);
    if ran.code != 0 {
        ran.one_error(125).says("delegate a control group");
    }
    nobody.dhow(&["system", "check"]).ok();
}

/// Whoever comes later enters the same user namespace: else nobody but the first command could enter its container.
#[test]
fn unprivileged_containers_live_and_are_worked_on() {
    let nobody = Nobody::new();
    nobody
        .feed(&["import", "-", "box"], crate::samples::busybox_tar())
        .ok();
    let run = |words: &str| nobody.dhow(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(run("run --rm --network none box id -u").ok(), "0");
    let shared = run("run --rm --network host box readlink /proc/self/ns/net").ok();
    assert_eq!(
        fs::read_link("/proc/self/ns/net").unwrap().to_str(),
        Some(shared.as_str())
    );
    for name in ["first", "second"] {
        run(&format!(
            "run -d --name {name} --network none -v data:/data box sleep 1000"
        ))
        .ok();
    }
    assert_eq!(run("exec first sh -c id>/data/id;ls").exits(0).stderr, "");
    assert!(run("exec second cat /data/id").ok().starts_with("uid=0"));
    let seen = run("exec second ps -o pid,args").ok();
    assert!(
        seen.contains("sleep 1000") && !seen.contains("dhow-monitor"),
        "{seen}"
    );
    // Root in there is the user out here, and nobody else.
    assert_eq!(run("exec first id -u").ok(), "0");
    let pid = run("inspect -f {{.State.Pid}} first").ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = if rustix::process::geteuid().is_root() {
        Nobody::ID
    } else {
        rustix::process::geteuid().as_raw()
    };
    assert!(
        status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")),
        "{status}"
    );
    assert!(run("top first").ok().contains("sleep 1000"));
    run("exec first sh -c echo>/made").ok();
    assert!(run("diff first").ok().contains("A /made"));
    run("commit first changed").ok();
    assert_eq!(run("run --rm --network none changed ls /made").ok(), "/made");
    assert_eq!(run("ps -q").ok().lines().count(), 2);
    run("stop -t 0 first").ok();
    run("start first").ok();
    assert_eq!(run("exec first true").ok(), "");
    run("rm -f first second").ok();
    assert_eq!(run("ps -aq").ok(), "");
    run("volume rm data").ok();
    run("system check").ok();
}

/// A program in a container that is root of a namespace it made must not get a command of its user into there, also when
/// nobody else of the user's namespace is left.
#[test]
fn unprivileged_a_container_lures_nobody_into_its_own_namespace() {
    let nobody = Nobody::new();
    nobody
        .feed(&["import", "-", "box"], crate::samples::busybox_tar())
        .ok();
    let run = |words: &str| nobody.dhow(&words.split(' ').collect::<Vec<_>>());
    run("run -d --name bait --network none --security-opt seccomp=unconfined box busybox unshare -U sleep 1000").ok();
    let pid = run("inspect -f {{.State.Pid}} bait").ok();
    let namespace = || fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    let outer = run("run --rm --network host box readlink /proc/self/ns/user").ok();
    crate::world::eventually("the container is in a namespace of its own", || {
        namespace().to_str() != Some(outer.as_str())
    });
    crate::lifecycle::kill(crate::lifecycle::parent(pid.parse().unwrap()));
    let now = run("run --rm --network host box readlink /proc/self/ns/user").ok();
    assert_ne!(namespace().to_str(), Some(now.as_str()));
    run("rm -f bait").ok();
    assert_eq!(run("ps -aq").ok(), "");
}

/// A normal user's container keeps namespaces of the machine (network, time), which its user may not enter again.
#[test]
fn unprivileged_a_container_of_the_runtime_is_entered() {
    let nobody = Nobody::new();
    if !std::path::Path::new("/bin/busybox").exists() {
        eprintln!("skipped: no /bin/busybox");
        return;
    }
    nobody.bundle();
    let runtime = |words: &str| nobody.runtime(words);
    // Without pipes: the container would hold them.
    let created = runtime("run -d a")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(nobody.world.path("said")).unwrap())
        .status()
        .unwrap();
    assert!(
        created.success(),
        "{}",
        fs::read_to_string(nobody.world.path("said")).unwrap()
    );
    let id = finish(runtime("exec a id -u"), Vec::new());
    let root = finish(runtime("exec a ls /"), Vec::new());
    finish(runtime("delete --force a"), Vec::new()).exits(0);
    assert_eq!(id.ok(), "0");
    assert_eq!(root.ok(), "bin\ndev\netc\nproc\nsys\ntmp");
}

/// It has no control group, so that only its first process is known.
#[test]
fn unprivileged_a_container_in_the_processes_of_another_is_killed() {
    let nobody = Nobody::new();
    if !std::path::Path::new("/bin/busybox").exists() {
        eprintln!("skipped: no /bin/busybox");
        return;
    }
    nobody.bundle();
    let runtime = |words: &str| nobody.runtime(words);
    // Without pipes: the containers would hold them.
    let start = |words: &str| {
        let mut command = runtime(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{words}");
    };
    let says = |words: &str| -> serde_json::Value {
        serde_json::from_str(&finish(runtime(words), Vec::new()).ok()).unwrap()
    };
    start("run -d one");
    let config = nobody.home.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let pid = says("state one")["pid"].as_i64().unwrap();
    for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
        let kind = namespace["type"].as_str().unwrap().to_owned();
        if kind == "user" || kind == "pid" {
            namespace["path"] = format!("/proc/{pid}/ns/{kind}").into();
        }
    }
    let linux = spec["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    fs::write(&config, spec.to_string()).unwrap();
    start("run -d two");
    finish(runtime("kill two 9"), Vec::new()).exits(0);
    eventually("it ends", || says("state two")["status"] == "stopped");
    assert_eq!(says("state one")["status"], "running");
    finish(runtime("delete two"), Vec::new()).exits(0);
    finish(runtime("delete --force one"), Vec::new()).exits(0);
}

#[test]
fn unprivileged_containers_and_builds_work_on_plain_copies() {
    let nobody = Nobody::new();
    if nobody.dhow(&["system", "snapshots", "copy"]).code != 0 {
        eprintln!("skipped: this user may not have a namespace");
        return;
    }
    nobody
        .feed(&["import", "-", "box"], crate::samples::busybox_tar())
        .ok();
    let script = "rm /etc/passwd; echo new > /new; ls /etc";
    let run = [
        "run",
        "--network",
        "none",
        "--name",
        "made",
        "box",
        "sh",
        "-c",
        script,
    ];
    nobody.dhow(&run).ok();
    let diff = nobody.dhow(&["diff", "made"]).ok();
    let lines: Vec<&str> = diff.lines().collect();
    assert_eq!(lines, ["C /etc", "D /etc/passwd", "A /new"]);
    nobody.dhow(&["commit", "made", "changed"]).ok();
    let look = [
        "run",
        "--rm",
        "--network",
        "none",
        "changed",
        "sh",
        "-c",
        "cat /new; ls /etc/passwd 2>/dev/null",
    ];
    assert_eq!(nobody.dhow(&look).exits_any().stdout, "new\n");
    let context = nobody.home.join("context");
    fs::create_dir(&context).unwrap();
    fs::write(
        context.join("Dockerfile"),
        "FROM box\nRUN rm /etc/passwd && touch /made\n",
    )
    .unwrap();
    fs::set_permissions(&context, fs::Permissions::from_mode(0o755)).unwrap();
    let context = context.display().to_string();
    nobody
        .dhow(&["build", "-q", "--network", "none", "-t", "built", &context])
        .ok();
    let look = [
        "run",
        "--rm",
        "--network",
        "none",
        "built",
        "sh",
        "-c",
        "test -e /made && test ! -e /etc/passwd",
    ];
    nobody.dhow(&look).ok();
    nobody.dhow(&["rm", "made"]).ok();
    nobody.dhow(&["system", "check"]).ok();
}
