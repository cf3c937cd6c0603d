//! Bundles of busybox, and the runtime called on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{Ran, binary, eventually, finish, groups, names, program, root};

/// A bundle of busybox, and a root for its containers; all gone when dropped.
pub(crate) struct Yard {
    folder: tempfile::TempDir,
    pub(crate) id: String,
}

impl Yard {
    /// None without root or busybox.
    pub(crate) fn new() -> Option<Self> {
        if !root() || !program("busybox") {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("dhow-r").tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        let yard = Self { folder, id: name };
        let rootfs = yard.path("bundle/rootfs");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|path| Path::new(path).exists())
            .expect("busybox is in PATH, and not in its usual places");
        fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        for name in [
            "cat", "echo", "env", "false", "id", "ps", "pwd", "sh", "sleep", "true", "tty",
        ] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nu:x:5:5::/home/u:/bin/sh\n",
        )
        .unwrap();
        yard.config(|_| {});
        Some(yard)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the bundle's spec: sleep, in namespaces of its own, with what `change` makes of it.
    pub(crate) fn config(&self, change: impl FnOnce(&mut Value)) {
        let kinds = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
        let mut config = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": ["sleep", "1000"],
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] },
            ],
            "linux": { "namespaces": kinds, "cgroupsPath": format!("/{}", self.id) },
        });
        change(&mut config);
        fs::write(self.path("bundle/config.json"), config.to_string()).unwrap();
    }

    pub(crate) fn sh(&self, script: &str) {
        self.config(|config| config["process"]["args"] = json!(["sh", "-c", script]));
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(["runtime", "--root"])
            .arg(self.path("root"))
            .args(args)
            .current_dir(self.path("bundle"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS");
        command
    }

    /// The same program by the name of crun.
    pub(crate) fn crun(&self, line: &str) -> Command {
        self.called("crun", line)
    }

    /// The same program by another runtime's name.
    pub(crate) fn called(&self, name: &str, line: &str) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(binary());
        command
            .arg0(name)
            .arg("--root")
            .arg(self.path("root"))
            .args(line.split_whitespace())
            .current_dir(self.path("bundle"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS");
        command
    }

    #[track_caller]
    pub(crate) fn say_as_crun(&self, line: &str) -> Ran {
        finish(self.crun(line), Vec::new())
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), Vec::new())
    }

    /// Splits at blanks: for arguments without any.
    pub(crate) fn say(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// `create`, with standard streams that the container may keep.
    #[track_caller]
    pub(crate) fn create(&self, args: &str) {
        let mut words = vec!["create"];
        words.extend(args.split_whitespace());
        self.begin(self.command(&words));
    }

    /// A command that leaves a container, with standard streams that it may keep.
    #[track_caller]
    pub(crate) fn begin(&self, mut command: Command) {
        let log = fs::File::create(self.path("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let status = command.status().unwrap();
        assert!(
            status.success(),
            "{}",
            fs::read_to_string(self.path("log")).unwrap()
        );
    }

    #[track_caller]
    pub(crate) fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.say(&format!("state {id}")).ok()).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn pid(&self, id: &str) -> i64 {
        let state: Value = serde_json::from_str(&self.say(&format!("state {id}")).ok()).unwrap();
        state["pid"].as_i64().unwrap()
    }

    /// What hooks wrote, in order.
    pub(crate) fn trace(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("trace")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A hook of the host that writes its name and the state it gets to the trace.
    pub(crate) fn hook(&self, name: &str, then: &str) -> Value {
        let trace = self.path("trace").display().to_string();
        let script = format!("{{ printf '{name} '; cat; echo; }} >>{trace}; {then}");
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] })
    }

    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        assert_eq!(names(&self.path("root")), Vec::<String>::new());
        eventually("its control groups are gone", || groups(&self.id).is_empty());
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for id in names(&self.path("root")) {
            drop(self.run(&["delete", "--force", &id]));
        }
    }
}
