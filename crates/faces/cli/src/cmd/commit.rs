//! `commit`, `diff`, `export`: what a container changed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::{Change, CommitRequest};

use crate::render::{say, say_line};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const COMMIT: Verb = Verb {
    name: "commit",
    about: "Create a new image from a container's changes",
    flags: |command| CommitFlags::augment_args(command),
    run: commit,
};

pub(crate) const DIFF: Verb = Verb {
    name: "diff",
    about: "Inspect changes to files or directories on a container's filesystem",
    flags: |command| DiffFlags::augment_args(command),
    run: diff,
};

pub(crate) const EXPORT: Verb = Verb {
    name: "export",
    about: "Export a container's filesystem as a tar archive",
    flags: |command| ExportFlags::augment_args(command),
    run: export,
};

#[derive(Args, Debug)]
struct CommitFlags {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long)]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Print only the ID of the image, which is all that is printed anyway
    #[arg(short, long)]
    quiet: bool,
    /// Pause container during commit
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

fn commit(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CommitFlags = crate::flags::read(matches)?;
    let request = CommitRequest {
        container: flags.container,
        name: flags.name.map(|name| dialect::spoken().new_name(&name)),
        author: flags.author,
        message: flags.message,
        changes: flags.change,
        pause: flags.pause,
    };
    let id = context.engine()?.commit(&request)?;
    say_line(&dialect::spoken().image_id(&id))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct DiffFlags {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

fn diff(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: DiffFlags = crate::flags::read(matches)?;
    let mut text = String::new();
    for (path, change) in context.engine()?.changes(&flags.container)? {
        let letter = match change {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        };
        text.push_str(&format!("{letter} {}\n", path.display()));
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct ExportFlags {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

fn export(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ExportFlags = crate::flags::read(matches)?;
    super::save::archive(flags.output.as_ref(), |output| {
        Ok(context.engine()?.export(&flags.container, output)?)
    })
}
