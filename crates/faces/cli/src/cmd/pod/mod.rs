//! `pod`: containers that share namespaces.

mod create;
mod inspect;
mod ps;

pub(crate) use create::{CREATE, forget, join};
pub(crate) use inspect::INSPECT;
pub(crate) use ps::LS;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_engine::{Engine, Pod};
use dhow_types::ErrorKind;

use crate::render::{say, say_line};
use crate::{CliError, Context, Verb, dialect};

/// Which pods a verb is for.
#[derive(Args, Debug)]
struct Chosen {
    /// All pods
    #[arg(short, long, conflicts_with = "latest")]
    all: bool,
    /// The pod that was created last
    #[arg(short, long, conflicts_with = "pods")]
    latest: bool,
    /// Read a pod's ID from a file
    #[arg(long, value_name = "FILE")]
    pod_id_file: Vec<PathBuf>,
    /// The pods
    #[arg(value_name = "POD", required_unless_present_any = ["all", "latest", "pod_id_file"])]
    pods: Vec<String>,
}

impl Chosen {
    /// The names as given, those in files, or the ids of those that are meant.
    fn names(&self, engine: &Engine, ignore: bool) -> Result<Vec<String>, CliError> {
        if self.all || self.latest {
            let mut pods = engine.pods()?;
            if self.latest {
                pods.truncate(1);
                if pods.is_empty() {
                    return Err(CliError::plain("there is no pod"));
                }
            }
            return Ok(pods.into_iter().map(|pod| pod.id.to_string()).collect());
        }
        let mut names = self.pods.clone();
        for path in &self.pod_id_file {
            match std::fs::read_to_string(path) {
                Ok(text) => names.extend(text.lines().next().map(str::to_owned)),
                Err(error) if ignore && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let message = format!("reading pod ID file: open {}: {error}", path.display());
                    return Err(CliError::plain(message));
                }
            }
        }
        Ok(names)
    }

    /// Does `deed` for each of them and prints its id.
    fn each(
        &self,
        context: &Context,
        deed: impl Fn(&Engine, &Pod) -> Result<(), dhow_engine::Error>,
    ) -> Result<ExitCode, CliError> {
        let engine = context.engine()?;
        super::each(&self.names(engine, false)?, |name| {
            let pod = engine.pod(name)?;
            deed(engine, &pod)?;
            say_line(pod.id.as_str())
        })
    }
}

pub(crate) const START: Verb = Verb {
    name: "start",
    about: "Start all containers of one or more pods",
    flags: |command| Chosen::augment_args(command),
    run: |context, matches| {
        let chosen: Chosen = crate::flags::read(matches)?;
        chosen.each(context, Engine::start_pod)
    },
};

pub(crate) const PAUSE: Verb = Verb {
    name: "pause",
    about: "Pause all containers of one or more pods",
    flags: |command| Chosen::augment_args(command),
    run: |context, matches| {
        let chosen: Chosen = crate::flags::read(matches)?;
        chosen.each(context, Engine::pause_pod)
    },
};

pub(crate) const UNPAUSE: Verb = Verb {
    name: "unpause",
    about: "Unpause all containers of one or more pods",
    flags: |command| Chosen::augment_args(command),
    run: |context, matches| {
        let chosen: Chosen = crate::flags::read(matches)?;
        chosen.each(context, Engine::unpause_pod)
    },
};

#[derive(Args, Debug)]
struct StopFlags {
    /// Seconds to wait before killing a container
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = crate::flags::seconds, allow_hyphen_values = true)]
    time: Option<u64>,
    /// Pass over pods that are not there
    #[arg(short, long)]
    ignore: bool,
    #[command(flatten)]
    chosen: Chosen,
}

pub(crate) const STOP: Verb = Verb {
    name: "stop",
    about: "Stop all containers of one or more pods",
    flags: |command| StopFlags::augment_args(command),
    run: |context, matches| stop(context, matches, false),
};

pub(crate) const RESTART: Verb = Verb {
    name: "restart",
    about: "Stop all containers of one or more pods, and start them",
    flags: |command| StopFlags::augment_args(command),
    run: |context, matches| stop(context, matches, true),
};

fn stop(context: &Context, matches: &ArgMatches, again: bool) -> Result<ExitCode, CliError> {
    let flags: StopFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let grace = flags.time.map(Duration::from_secs);
    super::each(&flags.chosen.names(engine, flags.ignore)?, |name| {
        let pod = match engine.pod(name) {
            Err(error) if flags.ignore && error.kind() == ErrorKind::NotFound => return Ok(()),
            pod => pod?,
        };
        engine.stop_pod(&pod, grace)?;
        if again {
            engine.start_pod(&pod)?;
        }
        say_line(pod.id.as_str())
    })
}

#[derive(Args, Debug)]
struct KillFlags {
    /// Signal to send
    #[arg(
        short,
        long,
        default_value = "KILL",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    signal: String,
    #[command(flatten)]
    chosen: Chosen,
}

pub(crate) const KILL: Verb = Verb {
    name: "kill",
    about: "Send a signal to all containers of one or more pods",
    flags: |command| KillFlags::augment_args(command),
    run: |context, matches| {
        let flags: KillFlags = crate::flags::read(matches)?;
        let signal = dialect::spoken().signal(&flags.signal);
        // One that is none is wrong whatever the pod.
        Engine::check_signal(signal)?;
        flags
            .chosen
            .each(context, |engine, pod| engine.kill_pod(pod, signal))
    },
};

#[derive(Args, Debug)]
struct RmFlags {
    /// Remove running pods, too; and pass over those that are not there
    #[arg(short, long)]
    force: bool,
    /// Pass over pods that are not there
    #[arg(short, long)]
    ignore: bool,
    /// With --force: seconds to wait before killing a container
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = crate::flags::seconds, allow_hyphen_values = true)]
    time: Option<u64>,
    #[command(flatten)]
    chosen: Chosen,
}

pub(crate) const RM: Verb = Verb {
    name: "rm",
    about: "Remove one or more pods with all their containers",
    flags: |command| RmFlags::augment_args(command),
    run: rm,
};

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let pass = flags.ignore || flags.force;
    super::each(&flags.chosen.names(engine, pass)?, |name| {
        let pod = match engine.pod(name) {
            Err(error) if error.kind() == ErrorKind::NotFound && (pass || flags.chosen.all) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && dialect::spoken().is_podman() => {
                return Err(CliError::from(error).with_code(1));
            }
            pod => pod?,
        };
        engine.remove_pod(
            &pod,
            flags.force,
            flags.time.filter(|time| *time > 0).map(Duration::from_secs),
        )?;
        say_line(pod.id.as_str())
    })
}

#[derive(Args, Debug)]
struct PruneFlags {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) const PRUNE: Verb = Verb {
    name: "prune",
    about: "Remove all pods of which nothing runs",
    flags: |command| PruneFlags::augment_args(command),
    run: |context, matches| {
        let flags: PruneFlags = crate::flags::read(matches)?;
        if !super::confirm::confirmed("This will remove all stopped pods.", flags.force)? {
            return Ok(ExitCode::SUCCESS);
        }
        for id in context.engine()?.prune_pods()? {
            say_line(id.as_str())?;
        }
        Ok(ExitCode::SUCCESS)
    },
};

#[derive(Args, Debug)]
struct TopFlags {
    /// The pod
    #[arg(value_name = "POD")]
    pod: String,
    /// Names of columns, or options as ps has them
    #[arg(value_name = "COLUMN", trailing_var_arg = true, allow_hyphen_values = true)]
    columns: Vec<String>,
}

pub(crate) const TOP: Verb = Verb {
    name: "top",
    about: "Display the running processes of all containers of a pod",
    flags: |command| TopFlags::augment_args(command),
    run: |context, matches| {
        let flags: TopFlags = crate::flags::read(matches)?;
        let engine = context.engine()?;
        let mut processes = Vec::new();
        for one in engine.pod_containers(&engine.pod(&flags.pod)?)? {
            if one.state.pid != 0 {
                processes.extend(engine.processes(one.config.id.as_str())?);
            }
        }
        processes.sort_unstable();
        processes.dedup();
        say(&super::top_podman::table(&processes, &flags.columns)?)?;
        Ok(ExitCode::SUCCESS)
    },
};

#[derive(Args, Debug)]
struct ExistsFlags {
    /// The pod
    #[arg(value_name = "POD")]
    pod: String,
}

pub(crate) const EXISTS: Verb = Verb {
    name: "exists",
    about: "Exit with 0 if there is such a pod, with 1 if not",
    flags: |command| ExistsFlags::augment_args(command),
    run: |context, matches| {
        let flags: ExistsFlags = crate::flags::read(matches)?;
        match context.engine()?.pod(&flags.pod) {
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(ExitCode::from(1)),
            Err(error) => Err(error.into()),
        }
    },
};
