//! Programs that keep credentials: `docker-credential-<name>` (docker/docker-credential-helpers).
//!
//! A helper is somebody else's program with our secrets in its hands: it is started without a shell, by a name that
//! is no path, in a process group of its own that is ended when it takes too long; what it says is bounded, and its
//! words are shown only without what could drive a terminal. Secrets go through its standard input.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::{Context as _, Error};

/// Longest name of a helper, and most that one may say.
const MAX_NAME: usize = 64;
const MAX_ANSWER: usize = 64 << 10;
/// How long a helper has. It may ask the person to unlock something.
const PATIENCE: Duration = Duration::from_secs(120);
/// What helpers say when they have nothing (their `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user of an identity token.
const TOKEN_USER: &str = "<token>";

/// A program that keeps credentials.
#[derive(Clone, Debug)]
pub struct CredentialProgram {
    name: String,
    program: PathBuf,
    patience: Duration,
}

/// What a helper keeps for a server.
pub(crate) struct Kept {
    pub(crate) user: String,
    pub(crate) secret: String,
}

impl Kept {
    /// Whether the secret is a refresh token and no password.
    pub(crate) fn is_token(&self) -> bool {
        self.user == TOKEN_USER
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    user: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

impl CredentialProgram {
    /// Looks for `docker-credential-<name>` in these folders.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is none, `NotFound`.
    pub fn find(name: &str, folders: &[PathBuf]) -> Result<Self, Error> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(letters) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            let message = format!("{shown:?} is no name of a credential helper");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let file = format!("docker-credential-{name}");
        let absolute = folders.iter().filter(|folder| folder.is_absolute());
        let program = absolute
            .map(|folder| folder.join(&file))
            .find(|path| is_program(path));
        match program {
            Some(program) => Ok(Self {
                name: name.to_owned(),
                program,
                patience: PATIENCE,
            }),
            None => Err(
                Error::new(ErrorKind::NotFound, format!("{file} is in no folder of PATH")).with_hint(
                    "install it, or take it out of the file that names it: credsStore or credHelpers",
                ),
            ),
        }
    }

    #[cfg(test)]
    fn hasty(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What it keeps for a server, if anything.
    ///
    /// # Errors
    /// Whatever starting or asking it said.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Kept>, Error> {
        let said = self.ask("get", server.as_bytes())?;
        let text = String::from_utf8_lossy(&said.output);
        if !said.success {
            if text.trim() == NOT_FOUND {
                return Ok(None);
            }
            return Err(self.failed("get", &text));
        }
        // serde_json's message would quote the text, and the text is secret.
        let answer: Answer =
            serde_json::from_str(&text).map_err(|_| self.failed("get", "not the JSON it should be"))?;
        if answer.username.is_empty() && answer.secret.is_empty() {
            return Ok(None);
        }
        Ok(Some(Kept {
            user: answer.username,
            secret: answer.secret,
        }))
    }

    /// Keeps a secret.
    ///
    /// # Errors
    /// Whatever starting or asking it said.
    pub fn store(&self, server: &str, user: &str, secret: &str) -> Result<(), Error> {
        let entry = serde_json::to_vec(&Entry { server, user, secret })
            .map_err(|error| Error::because(ErrorKind::Internal, "write the credentials", error))?;
        self.done("store", &entry)
    }

    /// Forgets what it keeps for a server; `false` when it kept nothing.
    ///
    /// # Errors
    /// Whatever starting or asking it said.
    pub fn erase(&self, server: &str) -> Result<bool, Error> {
        if self.get(server)?.is_none() {
            return Ok(false);
        }
        self.done("erase", server.as_bytes()).map(|()| true)
    }

    fn done(&self, verb: &str, input: &[u8]) -> Result<(), Error> {
        let said = self.ask(verb, input)?;
        if said.success {
            return Ok(());
        }
        Err(self.failed(verb, &String::from_utf8_lossy(&said.output)))
    }

    fn failed(&self, verb: &str, why: &str) -> Error {
        let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
        let message = format!("docker-credential-{} {verb}: {shown}", self.name);
        Error::new(ErrorKind::FailedPrecondition, message)
    }

    fn ask(&self, verb: &str, input: &[u8]) -> Result<Said, Error> {
        let doing = || format!("run {} {verb}", self.program.display());
        let mut child = Command::new(&self.program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A helper that asks for a passphrase does so on the terminal or by a window, not here.
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context(doing)?;
        let outcome = converse(&mut child, input, Instant::now() + self.patience);
        if outcome.is_err() {
            end_group(&mut child);
        }
        // After its output ended or its group was ended: this does not wait for long.
        let status = child.wait().context(doing);
        match outcome {
            Ok(output) => Ok(Said {
                output,
                success: status?.success(),
            }),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(self.failed(
                verb,
                &format!("no answer within {} seconds", self.patience.as_secs_f32()),
            )),
            Err(error) => Err(error).context(doing),
        }
    }
}

struct Said {
    output: Vec<u8>,
    success: bool,
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Writes the question, which fits into a pipe, and reads the answer to its end.
fn converse(child: &mut Child, input: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    if let Some(mut stdin) = child.stdin.take() {
        if input.len() > 32 << 10 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match stdin.write_all(input) {
            // It may know without reading.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    let Some(mut stdout) = child.stdout.take() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let limit = rustix::time::Timespec::try_from(left).map_err(io::Error::other)?;
        let borrowed = stdout.as_fd();
        let mut wait = [PollFd::new(&borrowed, PollFlags::IN)];
        match rustix::event::poll(&mut wait, Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match stdout.read(&mut buffer)? {
            0 => return Ok(output),
            count if output.len() + count > MAX_ANSWER => return Err(io::ErrorKind::FileTooLarge.into()),
            count => output.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Ends a helper and what it started.
fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // Gone already is as good.
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap_or_default();
    }
    child.kill().unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dhow_types::Failure as _;

    use super::*;

    fn helper(script: &str) -> (CredentialProgram, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = CredentialProgram::find("test", &[folder.path().to_owned()]).unwrap();
        (found, folder)
    }

    #[test]
    fn a_helper_gets_the_server_and_gives_user_and_secret() {
        let (helper, _folder) =
            helper(r#"[ "$1" = get ] && printf '{"ServerURL":"%s","Username":"me","Secret":"s"}' "$(cat)""#);
        let kept = helper.get("r.example:5000").unwrap().unwrap();
        assert_eq!(
            (kept.user.as_str(), kept.secret.as_str(), kept.is_token()),
            ("me", "s", false)
        );
    }

    #[test]
    fn nothing_kept_is_no_failure_and_a_failure_is_said_without_control_characters() {
        let (nothing, _folder) = helper(&format!("cat >/dev/null; echo '{NOT_FOUND}'; exit 1"));
        assert!(nothing.get("r").unwrap().is_none());
        assert!(!nothing.erase("r").unwrap());
        let (locked, _folder) = helper("printf 'the keychain\\033[31m is\\nlocked'; exit 1");
        let error = locked.get("r").err().unwrap();
        assert_eq!(
            error.to_string(),
            "docker-credential-test get: the keychain[31m is locked"
        );
    }

    #[test]
    fn a_helper_that_hangs_floods_or_talks_nonsense_is_one_error() {
        let (hangs, _folder) = helper("sleep 30 & sleep 30");
        let begun = Instant::now();
        let error = hangs.hasty(Duration::from_millis(200)).get("r").err().unwrap();
        assert!(error.to_string().contains("no answer within"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        let (floods, _folder) = helper("exec yes secret");
        assert!(floods.get("r").is_err());
        let (nonsense, _folder) = helper("echo secret");
        let error = nonsense.get("r").err().unwrap();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn names_are_no_paths_and_missing_helpers_say_what_to_do() {
        for name in ["", "../x", "a/b", "a b", "a\0b", &"x".repeat(65)] {
            let error = CredentialProgram::find(name, &[PathBuf::from("/bin")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
        }
        let error = CredentialProgram::find("nobody-has-this", &[PathBuf::from("/bin")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint().unwrap().contains("credsStore"));
        // A relative entry of PATH would take a program of whatever folder one is in.
        assert!(CredentialProgram::find("test", &[PathBuf::from(".")]).is_err());
    }

    #[test]
    fn what_is_stored_goes_through_standard_input() {
        let (helper, folder) = helper(r#"cat > "$(dirname "$0")/said"; echo "$@" >> "$(dirname "$0")/said""#);
        helper.store("r", "me", "pw\"x").unwrap();
        let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
        assert_eq!(
            said,
            "{\"ServerURL\":\"r\",\"Username\":\"me\",\"Secret\":\"pw\\\"x\"}store\n"
        );
    }
}
