//! Git for builds: what a name means in a repository, and the files of a commit.
//!
//! The `git` program does it, with nothing of this host around it: an empty home, no configuration, no hooks, no
//! prompt, and only the transports that carry bytes (`GIT_ALLOW_PROTOCOL`), for submodules as well. What the
//! Dockerfile says was checked by the builder and stands behind `--`; credentials go by the environment, for the one
//! host that they are for, and never into arguments or the checkout.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_build::{GitAccess, GitSource};
use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// Transports that carry bytes. `ext` runs a program, `file` reads this host.
const TRANSPORTS: &str = "http:https:git:ssh";
/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes of git's words that are read.
const MAX_WORDS: u64 = 1 << 20;
/// How often a running git is looked after.
const PATIENCE: Duration = Duration::from_millis(20);

/// A way to run git for one repository.
pub(crate) struct Git<'a> {
    access: &'a GitAccess<'a>,
    remote: &'a str,
    home: &'a Path,
}

impl<'a> Git<'a> {
    /// Git with `home`, an empty folder, as its home.
    pub(crate) const fn new(source: &'a GitSource, access: &'a GitAccess<'a>, home: &'a Path) -> Self {
        Self {
            access,
            remote: source.remote.as_str(),
            home,
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(folder)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.home)
            .env("XDG_CONFIG_HOME", self.home)
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TEMPLATE_DIR", self.home)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("GIT_ALLOW_PROTOCOL", TRANSPORTS)
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes")
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"])
            .args(["-c", "protocol.version=2", "-c", "credential.helper="])
            .args([
                "-c",
                "core.symlinks=true",
                "-c",
                "gc.auto=0",
                "-c",
                "maintenance.auto=false",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(agent) = self.access.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        if let Some((key, header)) = self.header() {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", key)
                .env("GIT_CONFIG_VALUE_0", header);
        }
        command
    }

    /// The setting that sends credentials, to the host of the repository only.
    fn header(&self) -> Option<(String, String)> {
        let (scheme, rest) = self.remote.split_once("://")?;
        if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
            return None;
        }
        let authority = rest.split('/').next().unwrap_or(rest);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let value = match (self.access.header, self.access.token) {
            (Some(header), _) => header.to_owned(),
            (None, Some(token)) => {
                format!("basic {}", STANDARD.encode(format!("x-access-token:{token}")))
            }
            (None, None) => return None,
        };
        Some((
            format!("http.{scheme}://{host}/.extraHeader"),
            format!("Authorization: {value}"),
        ))
    }

    fn run(&self, folder: &Path, arguments: &[&str]) -> Result<String, Error> {
        let mut command = self.command(folder);
        command.args(arguments);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let error = Error::new(ErrorKind::Unsupported, "the program git is not installed");
                return Err(error.with_hint("install git, or ADD an archive of the repository"));
            }
            Err(error) => return Err(Error::wrap(error, "run git")),
        };
        let verb = arguments.first().copied().unwrap_or_default();
        finish(child, self.access.cancel).context(|| format!("git {verb}"))
    }

    /// The commit that a repository has under a name, asked without fetching it.
    pub(crate) fn commit(&self, source: &GitSource) -> Result<String, Error> {
        let reference = source.reference.as_deref().unwrap_or("HEAD");
        if is_commit(reference) {
            return Ok(reference.to_owned());
        }
        let names = [
            reference.to_owned(),
            format!("refs/heads/{reference}"),
            format!("refs/tags/{reference}"),
            format!("refs/tags/{reference}^{{}}"),
            format!("{reference}^{{}}"),
        ];
        let mut arguments = vec!["ls-remote", "--", self.remote];
        arguments.extend(names.iter().map(String::as_str));
        let listed = self.run(self.home, &arguments)?;
        chosen(&listed, reference).ok_or_else(|| {
            let message = format!("the repository has no {reference}");
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// When what is checked out in a folder was committed, in seconds since 1970.
    pub(crate) fn time(&self, folder: &Path) -> Result<i64, Error> {
        let text = self.run(folder, &["show", "--no-patch", "--format=%ct", "HEAD"])?;
        let seconds = text.trim().parse();
        seconds.map_err(|error| Error::because(ErrorKind::DataLoss, format!("the time {text:?}"), error))
    }

    /// Writes the files of a commit into an empty folder.
    pub(crate) fn checkout(&self, source: &GitSource, commit: &str, into: &Path) -> Result<(), Error> {
        // The id of a commit tells which hash the repository has.
        let hash = if commit.len() == 64 { "sha256" } else { "sha1" };
        self.run(into, &["init", "--quiet", &format!("--object-format={hash}")])?;
        self.run(into, &["remote", "add", "--", "origin", self.remote])?;
        let shallow = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--",
            "origin",
            commit,
        ];
        // Some servers do not give a commit that no name leads to at once.
        if self.run(into, &shallow).is_err() {
            let whole = [
                "fetch",
                "--quiet",
                "--tags",
                "--no-recurse-submodules",
                "--",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
            ];
            self.run(into, &whole)?;
        }
        self.run(into, &["checkout", "--quiet", "--detach", commit])?;
        let found = self.run(into, &["rev-parse", "HEAD"])?;
        if found.trim() != commit {
            let message = format!("the checkout is at {}, not at {commit}", found.trim());
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        if source.submodules && into.join(".gitmodules").is_file() {
            let all = ["submodule", "--quiet", "update", "--init", "--recursive"];
            // A server of plain files has whole repositories only.
            if self.run(into, &[&all[..], &["--depth=1"]].concat()).is_err() {
                self.run(into, &all)?;
            }
        }
        Ok(())
    }
}

/// A whole id of a commit, of either hash.
fn is_commit(text: &str) -> bool {
    let hex = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    hex && matches!(text.len(), 40 | 64)
}

/// Of what `ls-remote` lists, what the name means: itself, a tag (what it leads to), a branch.
fn chosen(listed: &str, reference: &str) -> Option<String> {
    let find = |name: &str| {
        listed
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find(|(commit, found)| *found == name && is_commit(commit))
            .map(|(commit, _)| commit.to_owned())
    };
    [
        format!("{reference}^{{}}"),
        reference.to_owned(),
        format!("refs/tags/{reference}^{{}}"),
        format!("refs/tags/{reference}"),
        format!("refs/heads/{reference}"),
    ]
    .iter()
    .find_map(|name| find(name))
}

/// Waits for git; ends it when the build is cancelled.
fn finish(mut child: Child, cancel: &AtomicBool) -> Result<String, Error> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::new(ErrorKind::Internal, "git has no output"));
    };
    let read = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut words = Vec::new();
            // What comes beyond the bound is read, too, so that git can end.
            let kept = (&mut pipe).take(MAX_WORDS).read_to_end(&mut words);
            let rest = std::io::copy(&mut pipe, &mut std::io::sink());
            drop((kept, rest));
            String::from_utf8_lossy(&words).into_owned()
        })
    };
    let (out, errors) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let status = loop {
        if cancel.load(Ordering::Relaxed) {
            // One that has ended already cannot be killed, and need not.
            drop(child.kill());
            drop(child.wait());
            return Err(Error::new(ErrorKind::Cancelled, "the build was cancelled"));
        }
        match child.try_wait().context(|| "wait for git")? {
            Some(status) => break status,
            None => std::thread::sleep(PATIENCE),
        }
    };
    let (out, errors) = (out.join().unwrap_or_default(), errors.join().unwrap_or_default());
    if status.success() {
        return Ok(out);
    }
    let words: String = errors
        .trim()
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .take(2000)
        .collect();
    Err(Error::new(ErrorKind::Unavailable, words.replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_itself_a_tag_or_a_branch() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listed = format!(
            "{a}\trefs/heads/x\n{b}\trefs/tags/x\n{c}\trefs/tags/x^{{}}\n{a}\tHEAD\nxx\trefs/heads/y\n"
        );
        assert_eq!(chosen(&listed, "x"), Some(c));
        assert_eq!(chosen(&listed, "refs/heads/x"), Some(a.clone()));
        assert_eq!(chosen(&listed, "HEAD"), Some(a));
        assert_eq!(chosen(&listed, "y"), None);
        assert_eq!(chosen(&listed, "z"), None);
    }

    #[test]
    fn credentials_are_for_the_host_of_the_repository() {
        let cancel = AtomicBool::new(false);
        let access = GitAccess {
            header: None,
            token: Some("hush"),
            agent: None,
            cancel: &cancel,
        };
        let of = |remote: &str| {
            let source = GitSource {
                remote: remote.to_owned(),
                ..GitSource::default()
            };
            Git::new(&source, &access, Path::new("/")).header()
        };
        let (key, value) = of("https://me@example.test:8443/a.git").unwrap();
        assert_eq!(key, "http.https://example.test:8443/.extraHeader");
        assert_eq!(value, "Authorization: basic eC1hY2Nlc3MtdG9rZW46aHVzaA==");
        assert_eq!(of("ssh://example.test/a"), None);
        assert_eq!(of("git@example.test:a"), None);
    }
}
