//! `top` as podman has it: columns by name, process ids as the container sees them. All of it is read in the host's `/proc`:
//! no program of the container runs for it (CVE-2022-1227).

use std::fs;

use crate::CliError;
use crate::render::table;

/// A column: the names that it goes by, its title, and its value.
type Column = (&'static [&'static str], &'static str, fn(&Process) -> String);

const COLUMNS: [Column; 19] = [
    (&["args", "command", "cmd"], "COMMAND", |p| p.command.clone()),
    (&["comm"], "COMMAND", |p| p.name.clone()),
    (&["etime"], "ELAPSED", |p| elapsed(p.age)),
    (&["group", "gid"], "GROUP", |p| user(&p.gid)),
    (&["hpid"], "HPID", |p| p.host_pid.to_string()),
    (&["hgroup"], "HGROUP", |p| p.host_group.clone()),
    (&["huser"], "HUSER", |p| p.host_user.clone()),
    (&["nice"], "NI", |p| p.nice.to_string()),
    (&["pcpu", "%cpu"], "%CPU", |p| format!("{:.3}", p.cpu)),
    (&["pgid"], "PGID", |p| p.group.to_string()),
    (&["pid"], "PID", |p| p.pid.to_string()),
    (&["ppid"], "PPID", |p| p.parent.to_string()),
    (&["rss"], "RSS", |p| p.resident.to_string()),
    (&["seccomp"], "SECCOMP", |p| p.seccomp.to_owned()),
    (&["state", "stat", "s"], "STATE", |p| p.state.clone()),
    (&["time"], "TIME", |p| elapsed(p.used)),
    (&["tty", "tt"], "TTY", |p| p.terminal.clone()),
    (&["user", "uid"], "USER", |p| user(&p.uid)),
    (&["vsz"], "VSZ", |p| p.size.to_string()),
];
/// What is shown when nobody says.
const USUAL: [&str; 8] = ["user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args"];

/// One process.
#[derive(Debug, Default)]
struct Process {
    host_pid: i32,
    pid: i32,
    parent: i32,
    group: i32,
    name: String,
    command: String,
    state: String,
    uid: String,
    gid: String,
    host_user: String,
    host_group: String,
    terminal: String,
    nice: i64,
    /// Seconds since its start, and seconds of CPU.
    age: f64,
    used: f64,
    /// Percent of one CPU over its life.
    cpu: f64,
    /// KiB.
    resident: u64,
    size: u64,
    seccomp: &'static str,
}

/// The table of these processes. `words` are names of columns, or options as `ps` takes them (`-eo pid,comm`).
pub(crate) fn table(processes: &[i32], words: &[String]) -> Result<String, CliError> {
    let columns = columns(words)?;
    let titles: Vec<&str> = columns.iter().map(|(_, title, _)| *title).collect();
    let mut text = titles.join("\t") + "\n";
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    let mut found: Vec<Process> = processes
        .iter()
        .filter_map(|pid| Process::read(*pid, uptime))
        .collect();
    // Whose parent is none of them comes in from outside, or is the first.
    let inside: Vec<(i32, i32)> = found.iter().map(|one| (one.host_pid, one.pid)).collect();
    for one in &mut found {
        let parent = inside.iter().find(|(host, _)| *host == one.parent);
        one.parent = parent.map_or(0, |(_, pid)| *pid);
    }
    for one in &found {
        let values: Vec<String> = columns.iter().map(|(_, _, value)| value(one)).collect();
        text.push_str(&values.join("\t"));
        text.push('\n');
    }
    Ok(table::align(&text))
}

fn columns(words: &[String]) -> Result<Vec<&'static Column>, CliError> {
    let mut names: Vec<String> = Vec::new();
    for word in words {
        // `-e`, `-eo NAMES` and `-o NAMES` of ps: all processes are shown anyway.
        let word = match word.strip_prefix('-') {
            Some(rest) => rest.trim_start_matches('e').trim_start_matches('o'),
            None => word.as_str(),
        };
        let split = word
            .split([',', ' '])
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names.extend(split.map(str::to_ascii_lowercase));
    }
    if names.is_empty() {
        names = USUAL.map(str::to_owned).into();
    }
    let column = |name: &String| {
        let found = COLUMNS
            .iter()
            .find(|(known, _, _)| known.contains(&name.as_str()));
        found.ok_or_else(|| {
            let known: Vec<&str> = COLUMNS.iter().map(|(names, _, _)| names[0]).collect();
            CliError::plain(format!("unknown descriptor: {name}"))
                .with_hint(format!("use {}", known.join(", ")))
        })
    };
    names.iter().map(column).collect()
}

impl Process {
    /// Reads it; none when it ended meanwhile. The fields are those of proc_pid_stat(5) and proc_pid_status(5).
    fn read(host_pid: i32, uptime: f64) -> Option<Self> {
        let file = |name: &str| fs::read(format!("/proc/{host_pid}/{name}"));
        let (stat, status) = (file("stat").ok()?, file("status").ok()?);
        let (stat, status) = (String::from_utf8_lossy(&stat), String::from_utf8_lossy(&status));
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let fields: Vec<&str> = stat.get(close + 2..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let line = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let id = |name: &str| line(name)?.split_ascii_whitespace().nth(1);
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        let used = (field(14)? + field(15)?) as f64 / ticks;
        let age = (uptime - field(22)? as f64 / ticks).max(0.0);
        let name: String = stat.get(open + 1..close)?.to_owned();
        let kib = |name: &str| {
            line(name)
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or(0)
        };
        Some(Self {
            host_pid,
            // The last number is that of the innermost namespace.
            pid: line("NSpid:")?.split_ascii_whitespace().last()?.parse().ok()?,
            parent: i32::try_from(field(4)?).ok()?,
            group: line("NSpgid:")?.split_ascii_whitespace().last()?.parse().ok()?,
            command: command(&file("cmdline").unwrap_or_default(), &name),
            name,
            state: fields.first()?.to_string(),
            uid: id("Uid:")?.to_owned(),
            gid: id("Gid:")?.to_owned(),
            host_user: named(id("Uid:")?, "/etc/passwd"),
            host_group: named(id("Gid:")?, "/etc/group"),
            terminal: super::top::terminal(u64::try_from(field(7)?).ok()?),
            nice: field(19)?,
            age,
            used,
            cpu: if age > 0.0 { 100.0 * used / age } else { 0.0 },
            resident: kib("VmRSS:"),
            size: kib("VmSize:"),
            seccomp: match line("Seccomp:") {
                Some("2") => "filter",
                Some("1") => "strict",
                _ => "disabled",
            },
        })
    }
}

/// Its words; a thread of the kernel or a zombie has none.
fn command(bytes: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(64 << 10)]).replace('\0', " ");
    let text: String = text
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.is_empty() {
        format!("[{name}]")
    } else {
        text
    }
}

/// Who it is in the container; names of its own users are not looked up there.
fn user(id: &str) -> String {
    if id == "0" {
        "root".to_owned()
    } else {
        id.to_owned()
    }
}

/// The host's name for an id.
fn named(id: &str, file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then_some(name)
    });
    found.unwrap_or(id).to_owned()
}

/// Go's form of a duration.
fn elapsed(seconds: f64) -> String {
    let time = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let (whole, rest) = (time.as_secs(), time.as_secs_f64() % 60.0);
    let rest = (rest * 1000.0).round() / 1000.0;
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_by_their_names_and_in_the_way_of_ps() {
        let titles = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            columns(&words).map(|columns| columns.iter().map(|(_, title, _)| *title).collect::<Vec<_>>())
        };
        assert_eq!(titles(&["-eo", "pid,comm"]).unwrap(), ["PID", "COMMAND"]);
        assert_eq!(titles(&["-eo", "pid comm"]).unwrap(), ["PID", "COMMAND"]);
        assert_eq!(titles(&["huser", "user"]).unwrap(), ["HUSER", "USER"]);
        assert_eq!(titles(&[]).unwrap()[0], "USER");
        assert!(titles(&["nonsense"]).is_err());
    }

    #[test]
    fn this_process_is_a_line() {
        let own = i32::try_from(std::process::id()).unwrap();
        let words = ["hpid".to_owned(), "ppid".to_owned()];
        let text = table(&[own, i32::MAX], &words).unwrap();
        assert_eq!(
            text.lines()
                .nth(1)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>(),
            [own.to_string(), "0".to_owned()]
        );
        assert_eq!(text.lines().count(), 2);
        assert_eq!(
            (elapsed(0.5), elapsed(62.0), elapsed(3661.25)),
            ("0.5s".into(), "1m2s".into(), "1h1m1.25s".into())
        );
    }
}
