//! `commit`, `diff`, `export`: what a container changed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::{Change, CommitRequest};

use crate::render::{note, say, say_line};
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
    /// The format of the image's manifest: oci, or docker
    #[arg(short, long, value_name = "FORMAT", value_parser = ["oci", "docker"])]
    format: Option<String>,
    /// Write the image's ID to a file, too
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
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
    let podman = dialect::spoken().is_podman();
    let docker = flags.format.as_deref() == Some("docker");
    if podman && !docker && !flags.message.is_empty() {
        return Err(CliError::plain(
            "messages are only compatible with the docker image format (-f docker)",
        ));
    }
    let request = CommitRequest {
        container: flags.container,
        name: flags.name.map(|name| dialect::spoken().new_name(&name)),
        author: flags.author,
        message: flags.message,
        changes: flags.change,
        pause: flags.pause,
    };
    let engine = context.engine()?;
    let id = engine.commit(&request)?;
    if flags.format.is_some() {
        engine.set_image_family(&id, docker)?;
    }
    if podman && !flags.quiet {
        tell_in_podmans_words(engine, &id)?;
    }
    if let Some(path) = &flags.iidfile {
        std::fs::write(path, id.to_string())
            .map_err(|error| CliError::plain(format!("write the image ID to {}: {error}", path.display())))?;
    }
    say_line(&dialect::spoken().image_id(&id))?;
    Ok(ExitCode::SUCCESS)
}

/// What the image is made of, as podman lists it.
fn tell_in_podmans_words(engine: &dhow_engine::Engine, id: &dhow_types::ImageId) -> Result<(), CliError> {
    note("Getting image layers");
    for layer in engine.image(&id.to_string())?.config.rootfs.diff_ids {
        note(&format!("Copying blob {layer}"));
    }
    note(&format!(
        "Copying config {id}\nWriting manifest to image destination"
    ));
    Ok(())
}

#[derive(Args, Debug)]
struct DiffFlags {
    /// Format output: json
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// The container that was created last
    #[arg(short, long, conflicts_with = "container")]
    latest: bool,
    /// The container
    #[arg(value_name = "CONTAINER", required_unless_present = "latest")]
    container: Option<String>,
}

fn diff(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: DiffFlags = crate::flags::read(matches)?;
    let container = match super::inspect::latest(context, flags.latest)? {
        Some(latest) => latest,
        None => flags.container.unwrap_or_default(),
    };
    let mut changes = context.engine()?.changes(&container)?;
    if crate::dialect::spoken().is_podman() {
        // It does not look at what it makes itself (libpod `initInodes`).
        changes.retain(|(path, change)| {
            let own = path.as_os_str() == "/run" || path.as_os_str() == "/etc/mtab";
            !own || *change == Change::Deleted
        });
    }
    if flags.format.is_some() {
        let of = |wanted: Change| -> Vec<String> {
            let those = changes.iter().filter(|(_, change)| *change == wanted);
            those.map(|(path, _)| path.display().to_string()).collect()
        };
        // Podman's names (podman `cmd/podman/diff`).
        let document = serde_json::json!({
            "changed": of(Change::Changed), "added": of(Change::Added), "deleted": of(Change::Deleted),
        });
        say_line(&format!("{document:#}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for (path, change) in changes {
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
