//! `generate systemd`: a unit for a container that is here. Who begins writes a Quadlet file instead; this is for what runs already.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::Container;
use dhow_types::ErrorKind;

use crate::render::{note, say};
use crate::{CliError, Context, Verb};

pub(crate) const SYSTEMD: Verb = Verb {
    name: "systemd",
    about: "Write a systemd unit for a container",
    flags: |command| SystemdFlags::augment_args(command),
    run,
};

/// How long a stop may take besides the container's own time.
const AFTER_STOP: u64 = 60;

#[derive(Args, Debug)]
struct SystemdFlags {
    /// Write a file for each unit into this folder, not to standard output
    #[arg(short, long)]
    files: bool,
    /// Name the unit after the container's name, not its id
    #[arg(short, long)]
    name: bool,
    /// A unit that makes the container anew whenever it starts, from the command that made this one
    #[arg(long)]
    new: bool,
    /// When systemd starts it again
    #[arg(long, value_name = "POLICY", value_parser = ["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"])]
    restart_policy: Option<String>,
    /// Seconds until it is started again
    #[arg(long, value_name = "SECONDS")]
    restart_sec: Option<u64>,
    /// Seconds to wait before killing the container; its own when absent
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// Seconds that the start may take
    #[arg(long, value_name = "SECONDS")]
    start_timeout: Option<u64>,
    /// What the names of units begin with
    #[arg(long, value_name = "PREFIX", default_value = "container")]
    container_prefix: String,
    /// What stands between the prefix and the name
    #[arg(long, value_name = "TEXT", default_value = "-")]
    separator: String,
    /// A variable of the unit: NAME=VALUE
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Units to start with it
    #[arg(long, value_name = "UNIT", value_delimiter = ',')]
    wants: Vec<String>,
    /// Units to start before it
    #[arg(long, value_name = "UNIT", value_delimiter = ',')]
    after: Vec<String>,
    /// Units that it cannot be without
    #[arg(long, value_name = "UNIT", value_delimiter = ',')]
    requires: Vec<String>,
    /// Leave out the comment at the top
    #[arg(long)]
    no_header: bool,
    /// Write an object of units by their names
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SystemdFlags = crate::flags::read(matches)?;
    let bad = flags.env.iter().find(|pair| !pair.contains('='));
    if let Some(pair) = bad {
        return Err(CliError::plain(format!("invalid variable {pair:?}: write NAME=VALUE")).with_code(125));
    }
    let engine = context.engine()?;
    let container = match engine.containers().find(&flags.container) {
        Err(error) if error.kind() == ErrorKind::NotFound && engine.pod(&flags.container).is_ok() => {
            return Err(CliError::plain("units of pods are not written here")
                .with_hint("write a .pod Quadlet file, and Pod= into those of its containers (dhow quadlet)")
                .with_code(125));
        }
        found => found?,
    };
    if container.config.extras.pod.is_some() {
        return Err(
            CliError::plain(format!("container {} is of a pod", container.config.name))
                .with_hint("write Quadlet files for the pod and its containers (dhow quadlet)")
                .with_code(125),
        );
    }
    let unit = Unit::of(&flags, &container, context.environment.root())?;
    let name = format!("{}.service", unit.name);
    let text = unit.text(&flags);
    if flags.files {
        let path = std::env::current_dir()
            .unwrap_or_else(|_| PathBuf::from("."))
            .join(&name);
        std::fs::write(&path, text)
            .map_err(|error| CliError::plain(format!("write {}: {error}", path.display())))?;
        say(&format!("{}\n", path.display()))?;
    } else if flags.format.is_some() {
        say(&format!("{:#}\n", serde_json::json!({ name: text })))?;
    } else {
        say(&text)?;
    }
    if crate::dialect::spoken().is_podman() {
        note(
            "DEPRECATED command:\nIt is recommended to use Quadlets for running containers and pods under systemd.\n\nPlease refer to podman-systemd.unit(5) for details.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What a unit says.
struct Unit {
    name: String,
    mounts: String,
    restart: String,
    stop_timeout: u64,
    /// `Key=value` lines of how it is started and stopped.
    service: Vec<String>,
}

impl Unit {
    fn of(flags: &SystemdFlags, container: &Container, root: &std::path::Path) -> Result<Self, CliError> {
        let config = &container.config;
        let called = if flags.name {
            config.name.clone()
        } else {
            config.id.to_string()
        };
        let name = match flags.container_prefix.as_str() {
            "" => called.clone(),
            prefix => format!("{prefix}{}{called}", flags.separator),
        };
        let grace = flags.stop_timeout.unwrap_or(config.stop_timeout);
        let program = super::quadlet::program();
        let (service, own) = if flags.new {
            anew(&program, config.extras.command_line.as_slice(), grace)?
        } else {
            (again(&program, root, &called, grace), None)
        };
        Ok(Self {
            name,
            mounts: root.display().to_string(),
            restart: flags
                .restart_policy
                .clone()
                .or(own)
                .unwrap_or_else(|| "on-failure".to_owned()),
            stop_timeout: grace.saturating_add(AFTER_STOP),
            service,
        })
    }

    fn text(&self, flags: &SystemdFlags) -> String {
        let mut lines = vec![format!("# {}.service", self.name)];
        if !flags.no_header {
            lines.push(format!("# autogenerated by dhow {}", env!("CARGO_PKG_VERSION")));
            lines.push(format!(
                "# {}",
                jiff::Zoned::now().strftime("%a %b %e %H:%M:%S %Z %Y")
            ));
        }
        lines.extend([
            String::new(),
            "[Unit]".to_owned(),
            format!("Description=Podman {}.service", self.name),
            "Wants=network-online.target".to_owned(),
            "After=network-online.target".to_owned(),
            format!("RequiresMountsFor={}", escaped(&self.mounts)),
        ]);
        let dependencies = [
            ("Wants", &flags.wants),
            ("After", &flags.after),
            ("Requires", &flags.requires),
        ];
        if dependencies.iter().any(|(_, units)| !units.is_empty()) {
            lines.extend([String::new(), "# User-defined dependencies".to_owned()]);
        }
        for (key, units) in dependencies.iter().filter(|(_, units)| !units.is_empty()) {
            lines.push(format!("{key}={}", units.join(" ")));
        }
        lines.extend([
            String::new(),
            "[Service]".to_owned(),
            format!("Environment={}=%n", super::auto_update::UNIT),
        ]);
        for pair in &flags.env {
            lines.push(format!("Environment={}", line(&[escaped(pair)])));
        }
        lines.push(format!("Restart={}", self.restart));
        lines.extend(flags.restart_sec.map(|seconds| format!("RestartSec={seconds}")));
        lines.extend(
            flags
                .start_timeout
                .map(|seconds| format!("TimeoutStartSec={seconds}")),
        );
        lines.push(format!("TimeoutStopSec={}", self.stop_timeout));
        lines.extend(self.service.iter().cloned());
        lines.extend([
            String::new(),
            "[Install]".to_owned(),
            "WantedBy=default.target".to_owned(),
        ]);
        lines.join("\n") + "\n"
    }
}

fn line(words: &[String]) -> String {
    dhow_quadlet::command_line(words)
}

/// A word that systemd would change.
fn escaped(word: &str) -> String {
    word.replace('%', "%%").replace('$', "$$")
}

fn words(program: &str, rest: &[&str]) -> Vec<String> {
    let program = std::iter::once(program.to_owned());
    program
        .chain(rest.iter().map(|word| (*word).to_owned()))
        .collect()
}

/// A unit that starts this container, and is up as long as it is.
fn again(program: &str, root: &std::path::Path, name: &str, grace: u64) -> Vec<String> {
    let (root, grace) = (escaped(&root.display().to_string()), grace.to_string());
    let stop = line(&words(program, &["--root", &root, "stop", "-t", &grace, name]));
    vec![
        format!(
            "ExecStart={}",
            line(&words(program, &["--root", &root, "start", "--attach", name]))
        ),
        format!("ExecStop={stop}"),
        format!("ExecStopPost={stop}"),
        // What a program that is asked to end ends with.
        "SuccessExitStatus=143".to_owned(),
        "Type=exec".to_owned(),
    ]
}

/// A unit that makes a container by the command that made this one; and the restart policy that this has.
fn anew(program: &str, made: &[String], grace: u64) -> Result<(Vec<String>, Option<String>), CliError> {
    let made = Made::of(made)?;
    let cidfile = "--cidfile=%t/%n.ctr-id";
    let globals: Vec<String> = made.globals.iter().map(|word| escaped(word)).collect();
    let mut start = words(program, &[]);
    start.extend(globals.iter().cloned());
    start.extend(["run", cidfile, "--cgroups=no-conmon", "--rm"].map(str::to_owned));
    if !made.flags.iter().any(|flag| flag.name == "sdnotify") {
        start.push("--sdnotify=conmon".to_owned());
    }
    start.push("-d".to_owned());
    if made.flags.iter().any(|flag| flag.name == "name") {
        start.push("--replace".to_owned());
    }
    let mut policy = None;
    for flag in made.flags {
        match flag.name.as_str() {
            "detach" | "rm" | "cidfile" | "cgroups" | "replace" | "attach" => {}
            "restart" => policy = flag.words.last().and_then(|text| restart_of(text)),
            _ => start.extend(flag.words.iter().map(|word| escaped(word))),
        }
    }
    start.extend(made.rest.iter().map(|word| escaped(word)));
    let grace = grace.to_string();
    let end = |verb: &[&str]| {
        let mut all = words(program, &[]);
        all.extend(globals.iter().cloned());
        all.extend(verb.iter().map(|word| (*word).to_owned()));
        line(&all)
    };
    let lines = vec![
        format!("ExecStart={}", line(&start)),
        format!("ExecStop={}", end(&["stop", "--ignore", "-t", &grace, cidfile])),
        format!(
            "ExecStopPost={}",
            end(&["rm", "-f", "--ignore", "-t", &grace, cidfile])
        ),
        "Type=notify".to_owned(),
        "NotifyAccess=all".to_owned(),
    ];
    Ok((lines, policy))
}

/// Systemd's word for a restart policy.
fn restart_of(text: &str) -> Option<String> {
    let policy = text.trim_start_matches("--restart=");
    match policy.split(':').next()? {
        "always" | "unless-stopped" => Some("always".to_owned()),
        "on-failure" => Some("on-failure".to_owned()),
        "no" => Some("no".to_owned()),
        _ => None,
    }
}

/// The parts of the command that made a container.
struct Made {
    /// What stands before the verb.
    globals: Vec<String>,
    flags: Vec<Flag>,
    /// The image and what follows it.
    rest: Vec<String>,
}

/// A flag with its value, by its long name.
struct Flag {
    name: String,
    words: Vec<String>,
}

impl Made {
    fn of(line: &[String]) -> Result<Self, CliError> {
        let gone = || {
            CliError::plain("cannot use --new on containers that were not made by run or create")
                .with_hint("without --new, the unit starts this container")
                .with_code(125)
        };
        let tree = crate::command();
        let mut words = line.iter().skip(1).cloned();
        let (globals, verb) = take(&tree, &mut words);
        let mut verb = verb.ok_or_else(gone)?;
        if verb == "container" {
            verb = words.next().ok_or_else(gone)?;
        }
        if !matches!(verb.as_str(), "run" | "create") {
            return Err(gone());
        }
        let flags = if verb == "run" {
            super::run::VERB.flags
        } else {
            super::create::VERB.flags
        };
        let global = tree.get_arguments().filter(|arg| arg.is_global_set()).cloned();
        let command = flags(clap::Command::new(verb)).args(global);
        let (flags, first) = take(&command, &mut words);
        let rest = first.into_iter().chain(words).collect();
        Ok(Self {
            globals: globals.into_iter().flat_map(|flag| flag.words).collect(),
            flags,
            rest,
        })
    }
}

/// The flags of a command, and the first word behind them.
fn take(command: &clap::Command, words: &mut impl Iterator<Item = String>) -> (Vec<Flag>, Option<String>) {
    let mut flags = Vec::new();
    let long = |name: &str| {
        command.get_arguments().find(|arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
        })
    };
    let short = |letter: char| {
        command
            .get_arguments()
            .find(|arg| arg.get_short() == Some(letter))
    };
    // One whose value must follow `=` takes no word.
    let valued = |arg: &clap::Arg| arg.get_action().takes_values() && !arg.is_require_equals_set();
    let name_of = |arg: &clap::Arg| arg.get_long().unwrap_or_default().to_owned();
    while let Some(word) = words.next() {
        if word == "--" {
            return (flags, words.next());
        }
        if let Some(name) = word.strip_prefix("--") {
            let (bare, value) = name
                .split_once('=')
                .map_or((name, None), |(name, value)| (name, Some(value)));
            let found = long(bare);
            let mut all = vec![word.clone()];
            if value.is_none() && found.is_some_and(valued) {
                all.extend(words.next());
            }
            flags.push(Flag {
                name: found.map_or_else(|| bare.to_owned(), name_of),
                words: all,
            });
            continue;
        }
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            return (flags, Some(word));
        };
        for (at, letter) in letters.char_indices() {
            let found = short(letter);
            let name = found.map_or_else(|| letter.to_string(), name_of);
            let rest = &letters[at + letter.len_utf8()..];
            let mut all = vec![format!("-{letter}")];
            let has_value = found.is_some_and(valued) || rest.starts_with('=');
            if has_value && rest.is_empty() {
                all.extend(words.next());
            } else if has_value {
                all = vec![format!("-{letter}{rest}")];
            }
            flags.push(Flag { name, words: all });
            if has_value {
                break;
            }
        }
    }
    (flags, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (lines, policy) = anew("/bin/dhow", &words, 7).unwrap();
        lines.into_iter().chain(policy).collect()
    }

    #[test]
    fn a_command_is_told_apart_and_put_together_anew() {
        let lines = made(
            "dhow --root /r run -dit --rm --name web -eA=b -p 1:2 --restart always --label x=50% box sh -d $x",
        );
        assert_eq!(
            lines[0],
            "ExecStart=/bin/dhow --root /r run --cidfile=%t/%n.ctr-id --cgroups=no-conmon --rm --sdnotify=conmon -d --replace \
             -i -t --name web -eA=b -p 1:2 --label x=50%% box sh -d $$x"
        );
        assert_eq!(
            lines[1],
            "ExecStop=/bin/dhow --root /r stop --ignore -t 7 --cidfile=%t/%n.ctr-id"
        );
        assert_eq!(lines.last().unwrap(), "always");
        let lines = made("dhow container create --sdnotify=container --init box");
        assert!(
            lines[0].ends_with(
                "run --cidfile=%t/%n.ctr-id --cgroups=no-conmon --rm -d --sdnotify=container --init box"
            ),
            "{}",
            lines[0]
        );
    }

    #[test]
    fn what_was_not_made_by_a_command_cannot_be_made_by_it_again() {
        for line in ["dhow", "dhow build .", "dhow --root"] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert!(anew("/bin/dhow", &words, 7).is_err(), "{line}");
        }
    }
}
