//! `completion` and `man`: what shells and manuals know of this program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args, Command};
use clap_complete::{Shell, generate};

use crate::render::{note, say_bytes};
use crate::{CliError, Context, Verb};

pub(crate) const COMPLETION: Verb = Verb {
    name: "completion",
    about: "Generate the completion script for the specified shell",
    flags: |command| CompletionFlags::augment_args(command),
    run: completion,
};

pub(crate) const MAN: Verb = Verb {
    name: "man",
    about: "Write the manual pages into a folder",
    flags: |command| ManFlags::augment_args(command),
    run: man,
};

#[derive(Args, Debug)]
struct CompletionFlags {
    /// The shell
    #[arg(value_parser = ["bash", "fish", "zsh"])]
    shell: String,
}

#[derive(Args, Debug)]
struct ManFlags {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

fn completion(_: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CompletionFlags = crate::flags::read(matches)?;
    let shell = match flags.shell.as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        _ => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut built(), "dhow", &mut script);
    say_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The whole tree with every verb's flags.
fn built() -> Command {
    let mut command = crate::command();
    command.build();
    command
}

fn man(_: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ManFlags = crate::flags::read(matches)?;
    std::fs::create_dir_all(&flags.folder)
        .map_err(|error| CliError::plain(format!("make the folder {}: {error}", flags.folder.display())))?;
    let count = pages(&built(), "dhow", &flags.folder)?;
    note(&format!("{count} pages in {}", flags.folder.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and of those below it; how many.
fn pages(command: &Command, name: &str, folder: &Path) -> Result<usize, CliError> {
    let mut page = Vec::new();
    let own = command.clone().disable_help_subcommand(true);
    // A page is looked up by the words joined with dashes, as git's and docker's are.
    let own = own.name(name.to_owned()).bin_name(name.replace('-', " "));
    clap_mangen::Man::new(own).render(&mut page)?;
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page)
        .map_err(|error| CliError::plain(format!("write {}: {error}", path.display())))?;
    let mut count = 1;
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        count += pages(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(count)
}
