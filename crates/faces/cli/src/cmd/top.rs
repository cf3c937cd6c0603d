//! `top`: the processes of a container, as the host's `/proc` has them.

use std::fs;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use jiff::Timestamp;

use crate::render::{say, table};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "top",
    about: "Display the running processes of a container, or a screen of all containers",
    flags: |command| TopFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct TopFlags {
    /// The container; without one, a screen with all containers, their logs, and keys to stop, start and enter them
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
    /// With podman: names of columns, or options as ps has them
    #[arg(value_name = "COLUMN", trailing_var_arg = true, allow_hyphen_values = true)]
    columns: Vec<String>,
}

/// Largest command line that is read.
const MAX_COMMAND: usize = 64 << 10;

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: TopFlags = crate::flags::read(matches)?;
    let Some(container) = &flags.container else {
        return super::dashboard::run(context);
    };
    let mut processes = context.engine()?.processes(container)?;
    processes.sort_unstable();
    if dialect::spoken().is_podman() {
        return say(&super::top_podman::table(&processes, &flags.columns)?).map(|()| ExitCode::SUCCESS);
    }
    if let Some(word) = flags.columns.first() {
        return Err(CliError::plain(format!(
            "options of ps are not supported: {word}"
        )));
    }
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
        .unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut text = String::from("UID\tPID\tPPID\tC\tSTIME\tTTY\tTIME\tCMD\n");
    for pid in processes {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (stat, status, command) = (read("stat"), read("status"), read("cmdline"));
        let facts = Facts {
            stat: &String::from_utf8_lossy(&stat),
            status: &String::from_utf8_lossy(&status),
            command: &command[..command.len().min(MAX_COMMAND)],
        };
        // One that ended meanwhile is left out.
        if let Some(line) = facts.line(pid, boot, ticks, Timestamp::now(), &passwd) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    say(&table::align(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// What `/proc` says of a process.
struct Facts<'a> {
    stat: &'a str,
    status: &'a str,
    command: &'a [u8],
}

impl Facts<'_> {
    /// The columns of `ps -ef` (proc_pid_stat(5): fields after the name in parentheses begin with the third).
    fn line(&self, pid: i32, boot: u64, ticks: u64, now: Timestamp, passwd: &str) -> Option<String> {
        let open = self.stat.find('(')?;
        let close = self.stat.rfind(')')?;
        let name = self.stat.get(open + 1..close)?;
        let fields: Vec<&str> = self.stat.get(close + 2..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let uid = self
            .status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))?
            .split_ascii_whitespace()
            .nth(1)?;
        let used = (field(14)? + field(15)?) / ticks;
        let begun = boot + field(22)? / ticks;
        let age = u64::try_from(now.as_second())
            .unwrap_or(0)
            .saturating_sub(begun)
            .max(1);
        let started = Timestamp::from_second(i64::try_from(begun).ok()?).ok()?;
        let shape = if age < 86_400 { "%H:%M" } else { "%b%d" };
        Some(format!(
            "{}\t{pid}\t{}\t{}\t{}\t{}\t{:02}:{:02}:{:02}\t{}",
            user(uid, passwd),
            field(4)?,
            (used * 100 / age).min(99),
            started.strftime(shape),
            terminal(field(7)?),
            used / 3600,
            used / 60 % 60,
            used % 60,
            self.command_line(name)
        ))
    }

    fn command_line(&self, name: &str) -> String {
        let words = self.command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let text = words.collect::<Vec<_>>().join(" ");
        let text: String = text
            .trim_end()
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        // Kernel threads and zombies have none.
        if text.is_empty() {
            format!("[{name}]")
        } else {
            text
        }
    }
}

/// The host's name for a user, as `ps` shows it.
fn user(uid: &str, passwd: &str) -> String {
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    named.unwrap_or(uid).to_owned()
}

/// `pts/3` for a pseudo terminal, `?` for none (makedev(3): minor bits 0-7 and 20-31).
pub(super) fn terminal(device: u64) -> String {
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    );
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 if minor < 64 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_line_of_ps() {
        let facts = Facts {
            stat: "42 (a) b) S 1 42 42 34819 42 4194560 1 0 0 0 150 250 0 0 20 0 1 0 1000 1 1 1",
            status: "Name:\ta\nUid:\t0\t33\t0\t0\n",
            command: b"sh\0-c\0x y\0",
        };
        let now = Timestamp::from_second(1_000_110).unwrap();
        let line = facts
            .line(42, 1_000_000, 100, now, "root:x:0:0\nwww-data:x:33:33\n")
            .unwrap();
        assert_eq!(line, "www-data\t42\t1\t4\t13:46\tpts/3\t00:00:04\tsh -c x y");
    }

    #[test]
    fn a_process_that_vanished_or_lies_is_no_line() {
        for stat in ["", "1 (x", "1 ) (", "1 (x) S", "1 (x) S a b c"] {
            let facts = Facts {
                stat,
                status: "Uid:\t0\t0",
                command: b"",
            };
            assert_eq!(facts.line(1, 0, 100, Timestamp::UNIX_EPOCH, ""), None, "{stat}");
        }
    }
}
