//! `tag`, `untag`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "tag",
    about: "Create tags TARGET that refer to SOURCE",
    flags: |command| {
        let command = TagFlags::augment_args(command);
        if dialect::spoken().is_podman() {
            return command;
        }
        // Docker has one name at a time.
        command.mut_arg("targets", |targets| {
            targets.action(clap::ArgAction::Set).num_args(1)
        })
    },
    run,
};

pub(crate) const UNTAG: Verb = Verb {
    name: "untag",
    about: "Take names from an image, which stays",
    flags: |command| UntagFlags::augment_args(command),
    run: untag,
};

#[derive(Args, Debug)]
struct TagFlags {
    /// The image
    #[arg(value_name = "SOURCE[:TAG]")]
    source: String,
    /// Its new names
    #[arg(value_name = "TARGET[:TAG]", required = true)]
    targets: Vec<String>,
}

#[derive(Args, Debug)]
struct UntagFlags {
    /// The image, which stays even without a name
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The names to take from it; all of them when none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: TagFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let source = super::local_image(engine, &flags.source);
    for target in &flags.targets {
        engine.tag(&source, &dialect::spoken().new_name(target))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn untag(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: UntagFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let image = super::local_image(engine, &flags.image);
    let names: Vec<String> = flags
        .names
        .iter()
        .map(|name| dialect::spoken().new_name(name))
        .collect();
    engine.untag(&image, &names)?;
    Ok(ExitCode::SUCCESS)
}
