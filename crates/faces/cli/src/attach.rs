//! The command in the foreground of a container: its streams here, the keyboard there.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use dhow_engine::frame::{self, Frames};
use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags};

use crate::CliError;
use crate::terminal::{self, RawMode};

/// What of the person's side is connected.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    /// Whether the keyboard goes to the container.
    pub(crate) stdin: bool,
    /// Whether the container's output is shown.
    pub(crate) stdout: bool,
    /// Whether its error output is shown.
    pub(crate) stderr: bool,
    /// The keys that leave it running.
    pub(crate) keys: Keys,
    /// Whether the container has a terminal.
    pub(crate) tty: bool,
    /// Whether signals that this command gets go to the container.
    pub(crate) signals: bool,
}

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The container ended with this code.
    Exit(i32),
    /// The person detached, or the monitor is gone.
    Detached,
}

/// Docker's key sequence to leave a container running.
pub(crate) const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// A sequence of keys; none leaves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys(Vec<u8>);

impl Keys {
    /// Keys with commas between them: a character, or `ctrl-` and a letter or one of `@ [ \\ ] ^ _` (moby `term`,
    /// `ToBytes`).
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let key = |word: &str| {
            let control = word.strip_prefix("ctrl-").map(str::as_bytes);
            match (word.as_bytes(), control) {
                ([one], _) => Some(*one),
                (_, Some([letter])) if matches!(letter.to_ascii_uppercase(), b'@'..=b'_') => {
                    Some(letter.to_ascii_uppercase() & 0x1f)
                }
                _ => None,
            }
        };
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(Self).ok_or_else(|| {
            format!("{text:?} are no detach keys: write a character or ctrl-CHARACTER, with commas between")
        })
    }
}

/// Moves bytes both ways until the container ends or the person leaves. `signal` is called with each signal that this
/// command gets meanwhile.
pub(crate) fn pump(
    mut socket: UnixStream,
    how: Attached,
    mut signal: impl FnMut(i32),
) -> Result<End, CliError> {
    let raw = if how.tty && how.stdin {
        RawMode::enter()
    } else {
        None
    };
    let signals = crate::flags::Signals::watch(how.signals, how.tty)?;
    if how.tty {
        resize(&mut socket)?;
    }
    let mut frames = Frames::new();
    let shown = (how.stdout, how.stderr);
    let mut buffer = vec![0; frame::MAX_BODY];
    let mut open = how.stdin;
    let mut typed = Vec::new();
    let end = loop {
        let stdin = std::io::stdin();
        let mut fds = vec![
            PollFd::new(&socket, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        if open {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        if matches!(rustix::event::poll(&mut fds, None), Err(errno) if errno != rustix::io::Errno::INTR) {
            return Err(CliError::plain("cannot wait for the container's output"));
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[1] {
            for number in signals.take() {
                if number == rustix::process::Signal::WINCH.as_raw() {
                    resize(&mut socket)?;
                } else {
                    signal(number);
                }
            }
        }
        if ready[0] {
            match socket.read(&mut buffer) {
                Ok(0) => break End::Detached,
                Ok(count) => {
                    if let Some(code) = show(&mut frames, &buffer[..count], shown)? {
                        break End::Exit(code);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break End::Detached,
            }
        }
        if open && ready.get(2) == Some(&true) {
            match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Ok(count @ 1..) => {
                    if raw.is_some() && detaches(&how.keys, &mut typed, &buffer[..count]) {
                        break End::Detached;
                    }
                    // A container that ended does not read; its exit code comes next.
                    drop(socket.write_all(&frame::frame(frame::STDIN, &buffer[..count])));
                }
                _ => {
                    open = false;
                    drop(socket.write_all(&frame::frame(frame::STDIN_END, &[])));
                }
            }
        }
    };
    drop(raw);
    Ok(end)
}

/// Whether the keys so far end in the detach sequence.
fn detaches(sequence: &Keys, typed: &mut Vec<u8>, keys: &[u8]) -> bool {
    let Keys(sequence) = sequence;
    typed.extend_from_slice(keys);
    let start = typed.len().saturating_sub(sequence.len());
    typed.drain(..start);
    !sequence.is_empty() && typed == sequence
}

fn show(frames: &mut Frames, bytes: &[u8], (stdout, stderr): (bool, bool)) -> Result<Option<i32>, CliError> {
    let mut code = None;
    frames.push(bytes, |kind, body| {
        // A reader of ours that went away (`| head`) must not end the container.
        match kind {
            frame::STDOUT if stdout => drop(std::io::stdout().write_all(body)),
            frame::STDERR if stderr => drop(std::io::stderr().write_all(body)),
            frame::EXIT => code = <[u8; 4]>::try_from(body).ok().map(i32::from_be_bytes),
            _ => {}
        }
        Ok(())
    })?;
    std::io::stdout().flush().or_else(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(CliError::from(dhow_types_io(error))),
    })?;
    Ok(code)
}

fn dhow_types_io(error: std::io::Error) -> std::io::Error {
    error
}

fn resize(socket: &mut UnixStream) -> Result<(), CliError> {
    if let Some((rows, columns)) = terminal::size() {
        let ([r1, r0], [c1, c0]) = (rows.to_be_bytes(), columns.to_be_bytes());
        socket
            .write_all(&frame::frame(frame::RESIZE, &[r1, r0, c1, c0]))
            .or_else(|error| {
                if error.kind() == std::io::ErrorKind::BrokenPipe {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
    }
    Ok(())
}

/// Exit code of a process as this command's own.
pub(crate) fn exit_byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(255)
}

/// Exit code of a container that could not be started (docker run(1), "EXIT STATUS").
pub(crate) const fn start_failure(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound => 127,
        ErrorKind::PermissionDenied => 126,
        _ => 125,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_characters_and_controls() {
        assert_eq!(Keys::parse(DETACH_KEYS), Ok(Keys(vec![0x10, 0x11])));
        assert_eq!(Keys::parse("a,ctrl-],ctrl-@"), Ok(Keys(vec![b'a', 0x1d, 0])));
        for bad in ["ab", "ctrl-", "ctrl-pq", "ctrl-1", "a,,b", ","] {
            assert!(Keys::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_whole_sequence_leaves_and_an_empty_one_never_does() {
        let keys = Keys::parse(DETACH_KEYS).unwrap();
        let mut typed = Vec::new();
        assert!(!detaches(&keys, &mut typed, b"x\x10"));
        assert!(detaches(&keys, &mut typed, b"\x11"));
        assert!(!detaches(&Keys::parse("").unwrap(), &mut Vec::new(), b"abc"));
    }
}
