//! Our own registry, as a process beside the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::world::{binary, eventually, free_port, http};

/// `dhow registry serve` on a free port; ends when dropped.
pub(crate) struct Served {
    child: Child,
    root: PathBuf,
    host: String,
}

impl Served {
    /// Starts over this folder and waits until it answers.
    pub(crate) fn start(root: &Path) -> Self {
        Self::start_on(root, "127.0.0.1")
    }

    /// The same on another address of this host.
    pub(crate) fn start_on(root: &Path, address: &str) -> Self {
        let port = free_port();
        let host = format!("127.0.0.1:{port}");
        let mut command = Command::new(binary());
        command
            .args([
                "registry",
                "serve",
                "--listen",
                &format!("{address}:{port}"),
                "--root",
            ])
            .arg(root);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self {
            child,
            root: root.to_owned(),
            host,
        };
        eventually("the registry answers", || http(&served.host, "/v2/").is_some());
        served
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// `127.0.0.1:port/<name>`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Kills it without a warning and starts it again over the same folder, on another port.
    pub(crate) fn crash(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let root = self.root.clone();
        *self = Self::start(&root);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
