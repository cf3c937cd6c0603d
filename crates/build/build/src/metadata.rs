//! Instructions that only change the image's config.

use dhow_dockerfile::{ArgDefinition, Form, Healthcheck, Instruction, Op, Pair};
use dhow_oci::Extra;

use crate::epoch::{self, Said};
use crate::failure::{Trouble, invalid};
use crate::history;
use crate::stage::{Stage, unplaced};

/// Applies one such instruction.
pub(crate) fn apply(stage: &mut Stage<'_, '_>, instruction: &Instruction) -> Result<(), Trouble> {
    match &instruction.op {
        Op::Arg(definitions) => arg(stage, definitions),
        Op::Cmd(command) => {
            let words = stage.state.command(command);
            stage.cmd_set = true;
            let text = history::quoted("CMD", &words);
            let config = &mut stage.state.image.config;
            config.cmd = Some(words);
            // Old clients of Docker read it.
            config.extra.insert("ArgsEscaped".to_owned(), true.into());
            Ok(stage.state.record(text)?)
        }
        Op::Entrypoint(command) => {
            let words = stage.state.command(command);
            let text = history::quoted("ENTRYPOINT", &words);
            stage.state.image.config.entrypoint = Some(words).filter(|words| !words.is_empty());
            if !stage.cmd_set {
                stage.state.image.config.cmd = None;
            }
            Ok(stage.state.record(text)?)
        }
        Op::Env(pairs) => {
            let pairs = expand_pairs(stage, pairs)?;
            for pair in &pairs {
                stage.state.set_env(&pair.key, &pair.value);
            }
            Ok(stage.state.record(history::pairs("ENV", &pairs))?)
        }
        Op::Label(pairs) => {
            let pairs = expand_pairs(stage, pairs)?;
            for pair in &pairs {
                let labels = &mut stage.state.image.config.labels;
                labels.insert(pair.key.clone(), pair.value.clone());
            }
            Ok(stage.state.record(history::pairs("LABEL", &pairs))?)
        }
        Op::Expose(ports) => expose(stage, ports),
        Op::Healthcheck(check) => healthcheck(stage, check),
        Op::Maintainer(text) => {
            stage.state.image.author = Some(text.clone());
            Ok(stage.state.record(format!("MAINTAINER {text}"))?)
        }
        Op::Onbuild(text) => {
            stage.state.image.config.on_build.push(text.clone());
            Ok(())
        }
        Op::Shell(words) => {
            stage.state.image.config.shell = Some(words.clone());
            Ok(stage.state.record(history::list("SHELL", words))?)
        }
        Op::StopSignal(text) => {
            let signal = stage.expand(text)?;
            check_signal(&signal)?;
            stage.state.image.config.stop_signal = Some(signal.clone());
            Ok(stage.state.record(format!("STOPSIGNAL {signal}"))?)
        }
        Op::User(text) => {
            let user = stage.expand(text)?;
            let text = format!("USER {user}");
            stage.state.image.config.user = user;
            Ok(stage.state.record(text)?)
        }
        Op::Volume(paths) => volume(stage, paths),
        Op::Add(_) | Op::Copy(_) | Op::Run(_) | Op::Workdir(_) => Ok(()),
    }
}

/// All values of a line are those from before the line.
fn expand_pairs(stage: &Stage<'_, '_>, pairs: &[Pair]) -> Result<Vec<Pair>, Trouble> {
    pairs
        .iter()
        .map(|pair| {
            let key = stage.expand(&pair.key)?;
            if key.is_empty() {
                return Err(Trouble::from(invalid("names can not be blank")));
            }
            Ok(Pair {
                key,
                value: stage.expand(&pair.value)?,
                legacy: pair.legacy,
            })
        })
        .collect()
}

/// `--build-arg` wins over the default, the default over the global argument of that name. Without any of them the
/// argument is unset, not empty.
fn arg(stage: &mut Stage<'_, '_>, definitions: &[ArgDefinition]) -> Result<(), Trouble> {
    let mut text = "ARG".to_owned();
    for definition in definitions {
        let name = stage.expand(&definition.name)?;
        let given = stage.build.request.build_args.get(&name).cloned();
        let plan = stage.build.plan;
        let value = match (given, &definition.default) {
            // Where the time comes from was said, and this is what it is.
            _ if name == epoch::NAME && plan.epoch_said != Said::Number => {
                plan.epoch.map(|seconds| seconds.to_string())
            }
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(stage.expand(default)?),
            (None, None) => plan.globals.get(&name).cloned(),
        };
        text.push(' ');
        text.push_str(&name);
        if let Some(value) = &value {
            text.push('=');
            text.push_str(value);
        }
        // One that is declared again without a value keeps what it has, from a stage below, too.
        let value = value.or_else(|| stage.state.argument(&name));
        stage.state.args.push((name, value));
    }
    Ok(stage.state.record(text)?)
}

fn volume(stage: &mut Stage<'_, '_>, paths: &[String]) -> Result<(), Trouble> {
    let mut found = Vec::new();
    for path in paths {
        let path = stage.expand(path)?;
        if path.is_empty() {
            return Err(Trouble::from(invalid(
                "VOLUME specified can not be an empty string",
            )));
        }
        found.push(path);
    }
    let volumes = &mut stage.state.image.config.volumes;
    for path in &found {
        volumes.insert(path.clone(), Extra::new());
    }
    Ok(stage.state.record(history::list("VOLUME", &found))?)
}

fn expose(stage: &mut Stage<'_, '_>, ports: &[String]) -> Result<(), Trouble> {
    let mut found = Vec::new();
    for word in ports {
        let words = stage
            .settings()
            .words(word, &|name| stage.state.lookup(name))
            .map_err(unplaced)?;
        for word in words {
            found.extend(parse_ports(&word)?);
        }
    }
    let exposed = &mut stage.state.image.config.exposed_ports;
    for port in &found {
        exposed.insert(port.clone(), Extra::new());
    }
    Ok(stage.state.record(history::list("EXPOSE", &found))?)
}

/// `80`, `80/udp`, `8000-8010/tcp`, and the forms of `docker run -p`, whose host part is checked and dropped.
pub(crate) fn parse_ports(text: &str) -> Result<Vec<String>, Trouble> {
    let bad = |why: &str| Trouble::from(invalid(format!("invalid port {text:?}: {why}")));
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad("the protocol must be tcp, udp or sctp"));
    }
    let container = rest.rsplit_once(':').map_or(rest, |(host, container)| {
        // An IPv6 address has colons of its own: only the last part is the port.
        let _ = host;
        container
    });
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| bad("a port is a number up to 65535"))
    };
    let (low, high) = match container.split_once('-') {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(container)?, number(container)?),
    };
    if high < low {
        return Err(bad("the range ends before it begins"));
    }
    Ok((low..=high).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(stage: &mut Stage<'_, '_>, check: &Healthcheck) -> Result<(), Trouble> {
    let nanoseconds = |duration: std::time::Duration| {
        u64::try_from(duration.as_nanos()).map_err(|_| Trouble::from(invalid("the duration is too long")))
    };
    let found = match check {
        Healthcheck::None => dhow_oci::Healthcheck {
            test: vec!["NONE".to_owned()],
            ..dhow_oci::Healthcheck::default()
        },
        Healthcheck::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => dhow_oci::Healthcheck {
            test: match &command.form {
                Form::Exec(words) => [&["CMD".to_owned()], words.as_slice()].concat(),
                Form::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
            },
            interval: nanoseconds(*interval)?,
            timeout: nanoseconds(*timeout)?,
            start_period: nanoseconds(*start_period)?,
            start_interval: nanoseconds(*start_interval)?,
            retries: u64::from(*retries),
        },
    };
    let text = history::healthcheck(&found);
    stage.state.image.config.healthcheck = Some(found);
    Ok(stage.state.record(text)?)
}

/// Signals of Linux by name; real-time ones as `RTMIN+n` and `RTMAX-n`.
const SIGNALS: [&str; 34] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS",
];

fn check_signal(text: &str) -> Result<(), Trouble> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = ["RTMIN", "RTMAX"].iter().any(|base| {
        name.strip_prefix(base).is_some_and(|offset| {
            let digits = offset.trim_start_matches(['+', '-']);
            offset.is_empty() || digits.parse::<u8>().is_ok_and(|offset| offset <= 30)
        })
    });
    let number = name.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    if real_time || number || SIGNALS.contains(&name) {
        return Ok(());
    }
    Err(Trouble::from(
        invalid(format!("invalid signal: {text}")).with_hint("write a name such as SIGTERM, or a number"),
    ))
}
