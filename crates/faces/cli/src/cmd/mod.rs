//! The verbs, a module each, and the two tables that name them.
//!
//! To add a verb: write its module with a `VERB`, and list it in [`TOP`] or in one of [`GROUPS`], or both.

mod advisories;
mod algebra;
mod attach;
pub(crate) mod auto_update;
mod boot;
mod bootstrap;
mod build;
mod build_call;
mod builder;
mod commit;
mod completion;
mod confirm;
mod context;
mod copy;
mod cp;
mod create;
mod dashboard;
mod doctor;
mod events;
mod exec;
mod exists;
mod generate;
mod healthcheck;
mod history;
mod images;
mod import;
mod inspect;
mod kill;
mod lifecycle;
mod login;
mod logs;
mod manifest;
mod mount;
mod network;
mod patch;
mod pause;
mod pod;
mod policy;
mod port;
mod prune;
mod ps;
mod pull;
pub(crate) mod quadlet;
mod registry;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod sbom;
mod scan;
mod search;
mod secret;
mod sign;
mod start;
mod stats;
mod stop;
mod system;
mod tag;
mod top;
mod top_podman;
mod tree;
mod update;
mod verify;
mod version;
mod volume;
mod volume_archive;
mod why;
mod working;

#[cfg(test)]
pub(crate) use system::df::{shown as df_text, verbose as df_verbose};
#[cfg(test)]
pub(crate) use version::text as info_text;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use clap::{ArgMatches, Command};
use jiff::Timestamp;

use crate::flags::Filters;
use crate::render::time;
use crate::{CliError, Context, Verb};

/// A verb under a name, with other names that it has there.
struct Entry {
    name: &'static str,
    aliases: &'static [&'static str],
    verb: &'static Verb,
}

/// A verb under its own name.
const fn own(verb: &'static Verb) -> Entry {
    Entry {
        name: verb.name,
        aliases: &[],
        verb,
    }
}

/// A verb under another name.
const fn named(name: &'static str, aliases: &'static [&'static str], verb: &'static Verb) -> Entry {
    Entry { name, aliases, verb }
}

/// Verbs at the top, as docker has them.
const TOP: &[Entry] = &[
    own(&run::VERB),
    own(&exec::VERB),
    own(&ps::VERB),
    own(&build::VERB),
    own(&pull::PULL),
    own(&pull::PUSH),
    own(&copy::VERB),
    own(&search::VERB),
    own(&images::VERB),
    own(&bootstrap::VERB),
    own(&create::VERB),
    own(&start::VERB),
    own(&stop::VERB),
    own(&restart::VERB),
    own(&kill::VERB),
    own(&pause::PAUSE),
    own(&pause::UNPAUSE),
    own(&pause::WAIT),
    own(&rm::VERB),
    own(&logs::VERB),
    own(&stats::VERB),
    own(&events::VERB),
    own(&inspect::VERB),
    own(&history::VERB),
    own(&tree::VERB),
    own(&why::WHY),
    own(&why::IMPACT),
    own(&patch::VERB),
    own(&lifecycle::RETIRE),
    own(&sign::SIGN),
    own(&verify::VERB),
    own(&sign::ATTEST),
    own(&tag::VERB),
    own(&tag::UNTAG),
    own(&rmi::VERB),
    own(&import::VERB),
    own(&save::SAVE),
    own(&save::LOAD),
    own(&attach::VERB),
    own(&port::VERB),
    own(&rename::VERB),
    own(&top::VERB),
    own(&cp::VERB),
    own(&update::VERB),
    own(&commit::COMMIT),
    own(&commit::DIFF),
    own(&commit::EXPORT),
    own(&login::LOGIN),
    own(&login::LOGOUT),
    own(&version::INFO),
    own(&version::VERSION),
    own(&doctor::VERB),
    own(&boot::VERB),
    own(&quadlet::VERB),
    own(&auto_update::VERB),
    own(&completion::COMPLETION),
    own(&completion::MAN),
];

/// A group of verbs: `dhow container ls`.
struct Group {
    name: &'static str,
    about: &'static str,
    /// Puts its verbs below it, when it is called.
    fill: fn(Command) -> Command,
    entries: &'static [Entry],
    /// What it does without one of them.
    verb: Option<&'static Verb>,
}

macro_rules! group {
    ($name:literal, $about:literal, $entries:ident) => {
        Group {
            name: $name,
            about: $about,
            fill: |command| fill(command, $entries),
            entries: $entries,
            verb: None,
        }
    };
}

const GROUPS: &[Group] = &[
    group!("container", "Manage containers", CONTAINER),
    group!("generate", "Write units for systemd", GENERATE),
    group!("healthcheck", "Check the health of containers", HEALTHCHECK),
    group!("image", "Manage images", IMAGE),
    group!("manifest", "Manage image manifests and manifest lists", MANIFEST),
    group!("network", "Manage networks", NETWORK),
    group!("pod", "Manage pods: containers that share namespaces", POD),
    group!("volume", "Manage volumes", VOLUME),
    group!("secret", "Manage secrets", SECRET),
    group!("context", "Manage contexts", CONTEXT),
    group!("builder", "Manage the build cache", BUILDER),
    Group {
        name: scan::VERB.name,
        about: scan::VERB.about,
        fill: |command| {
            let command = (scan::VERB.flags)(command).args_conflicts_with_subcommands(true);
            fill(command, SCAN)
        },
        entries: SCAN,
        verb: Some(&scan::VERB),
    },
    Group {
        name: sbom::VERB.name,
        about: sbom::VERB.about,
        fill: |command| {
            let command = (sbom::VERB.flags)(command).args_conflicts_with_subcommands(true);
            fill(command, SBOM)
        },
        entries: SBOM,
        verb: Some(&sbom::VERB),
    },
    group!("lifecycle", "Manage until when images are to be used", LIFECYCLE),
    group!(
        "policy",
        "Say what policies ask of images, and what they say to them",
        POLICY
    ),
    group!("working", "Make an image step by step", WORKING),
    group!("system", "Manage Dhow", SYSTEM),
    group!("registry", "Serve images to others", REGISTRY),
];

const CONTAINER: &[Entry] = &[
    named("ls", &["list", "ps"], &ps::VERB),
    own(&run::VERB),
    own(&create::VERB),
    own(&start::VERB),
    own(&stop::VERB),
    own(&restart::VERB),
    own(&kill::VERB),
    own(&pause::PAUSE),
    own(&pause::UNPAUSE),
    own(&pause::WAIT),
    named("rm", &["remove"], &rm::VERB),
    own(&exec::VERB),
    own(&logs::VERB),
    own(&stats::VERB),
    own(&attach::VERB),
    own(&port::VERB),
    own(&rename::VERB),
    own(&top::VERB),
    own(&cp::VERB),
    own(&update::VERB),
    own(&commit::COMMIT),
    own(&commit::DIFF),
    own(&commit::EXPORT),
    own(&inspect::CONTAINER),
    own(&prune::CONTAINER),
    own(&exists::CONTAINER),
];

const IMAGE: &[Entry] = &[
    named("ls", &["list"], &images::VERB),
    own(&build::VERB),
    own(&pull::PULL),
    own(&pull::PUSH),
    own(&tag::VERB),
    own(&tag::UNTAG),
    own(&exists::IMAGE),
    named("rm", &["remove"], &rmi::VERB),
    own(&history::VERB),
    own(&import::VERB),
    own(&save::SAVE),
    own(&save::LOAD),
    own(&inspect::IMAGE),
    own(&prune::IMAGE),
    own(&mount::MOUNT),
    named("unmount", &["umount"], &mount::UNMOUNT),
    own(&algebra::APPEND),
    own(&algebra::REBASE),
    own(&algebra::SQUASH),
    own(&algebra::FLATTEN),
    own(&algebra::SET),
];

const LIFECYCLE: &[Entry] = &[
    named("ls", &["list"], &lifecycle::LS),
    own(&lifecycle::PS),
    own(&lifecycle::ROLLOUT),
    own(&lifecycle::GC),
    own(&lifecycle::IMPORT),
];

const GENERATE: &[Entry] = &[own(&generate::SYSTEMD)];

const HEALTHCHECK: &[Entry] = &[own(&healthcheck::RUN)];

const MANIFEST: &[Entry] = &[
    own(&manifest::CREATE),
    own(&manifest::INSPECT),
    own(&manifest::ANNOTATE),
    own(&manifest::PUSH),
    own(&manifest::RM),
];

const NETWORK: &[Entry] = &[
    own(&network::CREATE),
    own(&network::CONNECT),
    own(&network::DISCONNECT),
    named("ls", &["list"], &network::LS),
    own(&inspect::NETWORK),
    named("rm", &["remove"], &network::RM),
    own(&network::PRUNE),
    own(&network::RELOAD),
    own(&network::OPENINGS),
    own(&exists::NETWORK),
];

const POLICY: &[Entry] = &[own(&policy::TEST), own(&policy::SHOW)];

const VOLUME: &[Entry] = &[
    own(&volume::CREATE),
    named("ls", &["list"], &volume::LS),
    own(&inspect::VOLUME),
    named("rm", &["remove"], &volume::RM),
    own(&volume::PRUNE),
    own(&volume::MOUNT),
    named("unmount", &["umount"], &volume::UNMOUNT),
    own(&volume_archive::EXPORT),
    own(&volume_archive::IMPORT),
    own(&exists::VOLUME),
];

const SECRET: &[Entry] = &[
    own(&secret::CREATE),
    named("ls", &["list"], &secret::LS),
    own(&secret::INSPECT),
    named("rm", &["remove"], &secret::RM),
    own(&secret::EXISTS),
];

const CONTEXT: &[Entry] = &[
    own(&context::CREATE),
    own(&context::EXPORT),
    own(&context::IMPORT),
    own(&context::INSPECT),
    named("ls", &["list"], &context::LS),
    named("rm", &["remove"], &context::RM),
    own(&context::SHOW),
    own(&context::UPDATE),
    own(&context::USE),
];

const POD: &[Entry] = &[
    own(&pod::CREATE),
    own(&pod::EXISTS),
    own(&pod::INSPECT),
    own(&pod::KILL),
    own(&pod::PAUSE),
    own(&pod::PRUNE),
    named("ps", &["ls", "list"], &pod::LS),
    own(&pod::RESTART),
    named("rm", &["remove"], &pod::RM),
    own(&pod::START),
    own(&pod::STOP),
    own(&pod::TOP),
    own(&pod::UNPAUSE),
];

const BUILDER: &[Entry] = &[own(&build::VERB), own(&builder::PRUNE), own(&builder::DU)];

const WORKING: &[Entry] = &[
    own(&working::FROM),
    own(&working::RUN),
    own(&working::COPY),
    own(&working::ADD),
    own(&working::CONFIG),
    own(&working::COMMIT),
    named("ls", &["list"], &working::LS),
    named("rm", &["remove"], &working::RM),
];

const SYSTEM: &[Entry] = &[
    own(&system::df::VERB),
    own(&events::VERB),
    own(&prune::SYSTEM),
    own(&system::check::VERB),
    own(&system::connection::VERB),
    own(&version::INFO),
    own(&system::layers::VERB),
    own(&system::snapshots::VERB),
    own(&system::teardown::VERB),
];

const SCAN: &[Entry] = &[
    own(&advisories::IMPORT),
    own(&advisories::DATA),
    own(&advisories::EXPORT),
    own(&advisories::PUSH),
    own(&advisories::PULL),
    own(&advisories::COMPARE),
];

const SBOM: &[Entry] = &[own(&sbom::OWNER)];

const REGISTRY: &[Entry] = &[own(&registry::VERB)];

/// The verbs at the top, with what they do.
pub(crate) fn verbs() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOP.iter().map(|entry| (entry.name, entry.verb.about))
}

/// The groups of verbs, with what they are for.
pub(crate) fn groups() -> impl Iterator<Item = (&'static str, &'static str)> {
    GROUPS.iter().map(|group| (group.name, group.about))
}

/// Whether a word is a verb or a group of them.
pub(crate) fn is_verb(word: &str) -> bool {
    word == "help" || verbs().chain(groups()).any(|(name, _)| name == word)
}

/// Puts every verb below `root`.
pub(crate) fn tree(root: Command) -> Command {
    let mut root = fill(root, TOP);
    for group in GROUPS {
        let command = Command::new(group.name).about(group.about);
        root = root.subcommand(
            command
                .subcommand_required(group.verb.is_none())
                .arg_required_else_help(true)
                .defer(group.fill),
        );
    }
    root
}

fn fill(mut command: Command, entries: &[Entry]) -> Command {
    for entry in entries {
        let verb = Command::new(entry.name)
            .about(entry.verb.about)
            .visible_aliases(entry.aliases.iter().copied());
        command = command.subcommand(verb.defer(entry.verb.flags));
    }
    command
}

/// Does what the arguments say.
pub(crate) fn dispatch(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let Some((name, rest)) = matches.subcommand() else {
        return Err(CliError::plain("no command given").with_hint("dhow --help lists them"));
    };
    let found = |entries: &'static [Entry], name: &str| entries.iter().find(|entry| entry.name == name);
    if let Some(entry) = found(TOP, name) {
        return (entry.verb.run)(context, rest);
    }
    let group = GROUPS.iter().find(|group| group.name == name);
    if let Some(verb) = group.and_then(|group| group.verb)
        && rest.subcommand().is_none()
    {
        return (verb.run)(context, rest);
    }
    let verb = group
        .zip(rest.subcommand())
        .and_then(|(group, (name, rest))| Some((found(group.entries, name)?.verb, rest)));
    match verb {
        Some((verb, rest)) => (verb.run)(context, rest),
        None => Err(CliError::plain(format!("{name:?} is not a dhow command"))),
    }
}

/// Does `deed` for each name; goes on after a failure, tells each, and exits with 1 if there was one.
pub(crate) fn each(
    names: &[String],
    mut deed: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let mut code = 0;
    for name in names {
        tell(deed(name), &mut code);
    }
    Ok(whole(code))
}

/// How many names are worked on at once by [`each_at_once`]: their time is spent on waiting for processes to end.
const AT_ONCE: usize = 16;

/// The same for what waits more than it works, several names at a time; each deed gives the line that it would say, if any.
/// Lines and failures come in the order of the names.
pub(crate) fn each_at_once(
    names: &[String],
    deed: impl Fn(&str) -> Result<Option<String>, CliError> + Sync,
) -> Result<ExitCode, CliError> {
    let say = |said: Result<Option<String>, CliError>| match said? {
        Some(line) => crate::render::say_line(&line),
        None => Ok(()),
    };
    if names.len() < 2 {
        return each(names, |name| say(deed(name)));
    }
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut code = 0;
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(names.len()) {
            let (sender, next, deed) = (sender.clone(), &next, &deed);
            scope.spawn(move || {
                while let Some((place, name)) = {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    names.get(place).map(|name| (place, name))
                } {
                    // The receiver lives as long as this scope.
                    drop(sender.send((place, deed(name))));
                }
            });
        }
        drop(sender);
        let (mut early, mut turn) = (BTreeMap::new(), 0);
        for (place, said) in receiver {
            early.insert(place, said);
            while let Some(said) = early.remove(&turn) {
                tell(say(said), &mut code);
                turn += 1;
            }
        }
    });
    Ok(whole(code))
}

/// Tells a failure and keeps its code.
fn tell(done: Result<(), CliError>, code: &mut u8) {
    match done {
        Ok(()) => {}
        // Nobody reads any more: the rest is done all the same.
        Err(error) if error.is_quiet_success() => {}
        // The exit code of the whole says that something failed; with podman, what failed last.
        Err(error) => *code = error.shown(),
    }
}

fn whole(code: u8) -> ExitCode {
    match (code, crate::dialect::spoken().is_podman()) {
        (0, _) => ExitCode::SUCCESS,
        (code, true) => ExitCode::from(code),
        (_, false) => ExitCode::FAILURE,
    }
}

/// The `until` filter, as seconds since 1970.
fn until(filters: &Filters) -> Result<Option<i64>, CliError> {
    let now = Timestamp::now();
    let Some(text) = filters.values("until").last() else {
        return Ok(None);
    };
    match time::moment(text, now) {
        Some(moment) => Ok(Some(moment.as_second())),
        None => Err(CliError::plain(format!(
            "invalid filter 'until={text}': it is no time"
        ))),
    }
}

/// A title and what is under it; nothing without anything.
fn listed(title: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!("{title}\n{}\n\n", names.join("\n"))
}

/// Docker's last line of every prune.
fn reclaimed(bytes: u64) -> String {
    format!("Total reclaimed space: {}\n", dhow_types::human_size(bytes))
}

/// The containers that these filters let through, as `ps` has them.
pub(crate) fn filtered(
    context: &Context,
    filters: &[String],
) -> Result<Vec<dhow_engine::container::Listed>, CliError> {
    ps::filtered(context, filters)
}

/// The name of a local image as the engine knows it.
pub(crate) fn local_image(engine: &dhow_engine::Engine, name: &str) -> String {
    crate::dialect::spoken().local_name(name, |name| engine.image(name).is_ok())
}
