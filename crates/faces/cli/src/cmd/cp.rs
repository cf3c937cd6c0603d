//! `cp`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::{CopyPlace, CopyRequest};
use dhow_types::ErrorKind;

use crate::render::note;
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "cp",
    about: "Copy files/folders between a container and the local filesystem",
    flags: |command| CpFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct CpFlags {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Let a file take the place of a directory, and a directory that of a file
    #[arg(long)]
    overwrite: bool,
    /// Suppress progress output during copy; automatic without a terminal
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of this host, or - for a tar on standard input
    #[arg(value_name = "SRC_PATH")]
    source: String,
    /// CONTAINER:PATH, a path of this host, or - for a tar on standard output
    #[arg(value_name = "DEST_PATH")]
    destination: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CpFlags = crate::flags::read(matches)?;
    if flags.source.is_empty() {
        return Err(CliError::plain("source can not be empty"));
    }
    if flags.destination.is_empty() {
        return Err(CliError::plain("destination can not be empty"));
    }
    let podman = dialect::spoken().is_podman();
    let (mut from, mut to) = (place(&flags.source), place(&flags.destination));
    if podman {
        begin_at_workdir(context, &mut from)?;
        begin_at_workdir(context, &mut to)?;
    }
    let in_container = |place: &CopyPlace| matches!(place, CopyPlace::Container { .. });
    match (in_container(&from), in_container(&to)) {
        // Docker refuses what podman does.
        (true, true) if !podman => {
            return Err(CliError::plain("copying between containers is not supported"));
        }
        (false, false) => return Err(CliError::plain("must specify at least one container source")),
        _ => {}
    }
    let mut output = std::io::stdout();
    if to == CopyPlace::Stream && output.is_terminal() {
        return Err(CliError::plain("cannot write a tar archive to a terminal")
            .with_hint("redirect the output, or name a path instead of -"));
    }
    let request = CopyRequest {
        from,
        to,
        // Podman always does.
        follow_link: flags.follow_link || podman,
        archive: flags.archive,
        overwrite: flags.overwrite,
    };
    let streams = request.to == CopyPlace::Stream;
    refuse_special_files(&request.to, podman)?;
    let copied = context.engine()?.copy(&request, std::io::stdin(), &mut output);
    let bytes = copied.map_err(|error| match podman {
        true => in_podmans_words(error, &request.from, &flags),
        false => error.into(),
    })?;
    if !flags.quiet && !streams && output.is_terminal() {
        let size = dhow_types::human_size(bytes);
        note(&format!("Successfully copied {size} to {}", flags.destination));
    }
    Ok(ExitCode::SUCCESS)
}

/// Only `-` is a stream: what else there is under the name of a place to write to must be a file or a folder.
fn refuse_special_files(to: &CopyPlace, podman: bool) -> Result<(), CliError> {
    let CopyPlace::Host(path) = to else {
        return Ok(());
    };
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() && !found.is_file() || is_descriptor(path) => {
            // Podman's words, and docker's (docker/cli `ValidateOutputPath`).
            let what = if podman { "destination" } else { "output path" };
            Err(CliError::plain(format!(
                "invalid {what}: {:?} must be a directory or a regular file",
                path.display().to_string()
            )))
        }
        _ => Ok(()),
    }
}

/// Whether a path is a name of something that this process has open, such as `/dev/stdout`.
fn is_descriptor(path: &std::path::Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..8 {
        let folder = path
            .parent()
            .and_then(|parent| std::fs::canonicalize(parent).ok());
        let Some(folder) = folder else { return false };
        if folder.starts_with("/proc") && folder.ends_with("fd") {
            return true;
        }
        match std::fs::read_link(&path) {
            Ok(link) => path = folder.join(link),
            Err(_) => return false,
        }
    }
    false
}

/// The failures that scripts around podman look for (podman `cmd/podman/containers/cp.go`).
fn in_podmans_words(error: dhow_engine::Error, from: &CopyPlace, flags: &CpFlags) -> CliError {
    let (message, kind) = (error.to_string(), error.kind());
    if let Some(path) = conflict(&crate::error::chain(&error)) {
        return CliError::plain(format!(
            "copying to {}: error creating \"/{path}\": it is of another kind: file exists",
            flags.destination
        ));
    }
    // The path as it was given.
    if let (CopyPlace::Container { path, .. }, CopyPlace::Container { path: whole, .. }, true) =
        (place(&flags.source), from, kind == ErrorKind::NotFound)
        && message
            == format!(
                "Could not find the file {whole} in container {}",
                container_of(from)
            )
    {
        return CliError::plain(message.replacen(whole, &path, 1));
    }
    let stream = *from == CopyPlace::Stream;
    let words = match kind {
        _ if stream && message.ends_with("must be a directory") => {
            "destination must be a directory when copying from stdin"
        }
        ErrorKind::InvalidArgument | ErrorKind::DataLoss if stream => {
            "source must be a (compressed) tar archive when copying from stdin"
        }
        _ if message.ends_with(": cannot copy directory") => {
            "destination must be a directory when copying a directory"
        }
        _ => return error.into(),
    };
    CliError::plain(words)
}

/// The path of what is there and is no directory where one is to be made, or the other way round.
fn conflict(chain: &str) -> Option<&str> {
    let made = [
        "make the file: create ",
        "make the directory: open the directory ",
        "make the link: create ",
    ];
    let rest = made
        .iter()
        .find_map(|start| chain.split_once(start))
        .map(|(_, rest)| rest)?;
    let ends = [": a directory has that name", ": Not a directory"];
    ends.iter()
        .find_map(|end| rest.split_once(end))
        .map(|(path, _)| path)
}

fn container_of(place: &CopyPlace) -> &str {
    match place {
        CopyPlace::Container { container, .. } => container,
        _ => "",
    }
}

/// With podman, a relative path in a container begins at its working directory; with docker, at `/`.
fn begin_at_workdir(context: &Context, place: &mut CopyPlace) -> Result<(), CliError> {
    if let CopyPlace::Container { container, path } = place
        && !path.starts_with('/')
    {
        let workdir = context.engine()?.containers().find(container)?.config.request.cwd;
        *path = format!("{}/{path}", workdir.display().to_string().trim_end_matches('/'));
    }
    Ok(())
}

/// Docker's reading of an argument (`splitCpArg`): a host's path with a colon must begin with `/` or `.`.
fn place(text: &str) -> CopyPlace {
    match text.split_once(':') {
        _ if text == "-" => CopyPlace::Stream,
        Some((container, path)) if !text.starts_with('/') && !container.starts_with('.') => {
            CopyPlace::Container {
                container: container.to_owned(),
                path: path.to_owned(),
            }
        }
        _ => CopyPlace::Host(PathBuf::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_marks_a_container_unless_the_path_is_plainly_the_hosts() {
        let container = |container: &str, path: &str| CopyPlace::Container {
            container: container.to_owned(),
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("-", CopyPlace::Stream),
            ("web:/etc/hosts", container("web", "/etc/hosts")),
            ("web:rel", container("web", "rel")),
            ("web:/a:b", container("web", "/a:b")),
            ("/a:b", CopyPlace::Host("/a:b".into())),
            ("./a:b", CopyPlace::Host("./a:b".into())),
            ("plain", CopyPlace::Host("plain".into())),
        ] {
            assert_eq!(place(text), expected, "{text}");
        }
    }
}
