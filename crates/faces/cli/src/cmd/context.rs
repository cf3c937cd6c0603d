//! `context`: names for engines, in docker's own files.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::tar::{Entry, EntryKind, Reader, Writer};
use serde_json::{Map, Value};

use crate::contexts::{self, Contexts, DEFAULT, DOCKER, Files, HOST_VARIABLE, Named};
use crate::render::{Fields, Look, Row, inspected, note, say, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const CREATE: Verb = Verb {
    name: "create",
    about: "Create a context",
    flags: |command| CreateFlags::augment_args(command).after_help(ENDPOINT_HELP),
    run: create,
};

pub(crate) const UPDATE: Verb = Verb {
    name: "update",
    about: "Update a context",
    flags: |command| UpdateFlags::augment_args(command).after_help(ENDPOINT_HELP),
    run: update,
};

pub(crate) const LS: Verb = Verb {
    name: "ls",
    about: "List contexts",
    flags: |command| LsFlags::augment_args(command),
    run: ls,
};

pub(crate) const INSPECT: Verb = Verb {
    name: "inspect",
    about: "Display detailed information on one or more contexts",
    flags: |command| InspectFlags::augment_args(command),
    run: inspect,
};

pub(crate) const SHOW: Verb = Verb {
    name: "show",
    about: "Print the name of the current context",
    flags: |command| command,
    run: |context, _| {
        say_line(&context.environment.contexts().current())?;
        Ok(ExitCode::SUCCESS)
    },
};

pub(crate) const USE: Verb = Verb {
    name: "use",
    about: "Set the default docker context",
    flags: |command| NameFlags::augment_args(command),
    run: choose,
};

pub(crate) const RM: Verb = Verb {
    name: "rm",
    about: "Remove one or more contexts",
    flags: |command| RmFlags::augment_args(command),
    run: rm,
};

pub(crate) const EXPORT: Verb = Verb {
    name: "export",
    about: "Export a context to a tar archive FILE or a tar stream on STDOUT",
    flags: |command| ExportFlags::augment_args(command),
    run: export,
};

pub(crate) const IMPORT: Verb = Verb {
    name: "import",
    about: "Import a context from a tar file",
    flags: |command| ImportFlags::augment_args(command),
    run: import,
};

const ENDPOINT_HELP: &str = "Docker endpoint config:
  host              Docker endpoint on which to connect: unix://, tcp:// or ssh://
  ca, cert, key     Paths of the files for TLS
  skip-tls-verify   Skip TLS certificate validation
  from              Copy named context's Docker endpoint configuration";

/// Files in a tar begin at multiples of so many bytes.
const BLOCK: usize = 512;
/// The file of a context in an archive.
const META: &str = "meta.json";
/// The names that docker gives to the files of `ca`, `cert` and `key`.
const TLS_FILES: [(&str, &str); 3] = [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")];

#[derive(Args, Debug)]
struct CreateFlags {
    /// Description of the context
    #[arg(long)]
    description: Option<String>,
    /// Set the docker endpoint
    #[arg(long, value_name = "KEY=VALUE,...")]
    docker: Vec<String>,
    /// Create context from a named context
    #[arg(long, value_name = "CONTEXT")]
    from: Option<String>,
    /// Its name
    #[arg(value_name = "CONTEXT")]
    name: String,
}

fn create(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CreateFlags = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    check_new(&all, &flags.name)?;
    let from = match (&flags.from, flags.docker.is_empty()) {
        (Some(_), false) => return Err(CliError::plain("cannot use --docker flag when --from is set")),
        (Some(from), true) => Some(from.clone()),
        (None, true) => Some(all.current()),
        (None, false) => None,
    };
    let (mut made, files) = match from {
        Some(from) => {
            let other = all.find(&from)?;
            let text = other.document().to_string();
            (Named::parse(&flags.name, text.as_bytes())?, all.files(&from)?)
        }
        None => {
            let (endpoint, files) = endpoint(&all, &flags.docker)?;
            let mut made = Named::new(&flags.name);
            made.set_endpoint(endpoint);
            (made, vec![(DOCKER.to_owned(), files)])
        }
    };
    if let Some(text) = &flags.description {
        made.describe(text);
    }
    put(&all, &made, &files)?;
    done(&flags.name, "created")
}

/// Writes a whole context, or nothing of it.
fn put(all: &Contexts, context: &Named, files: &[(String, Files)]) -> Result<(), CliError> {
    let written = files
        .iter()
        .try_for_each(|(endpoint, files)| all.write_files(&context.name, endpoint, files))
        .and_then(|()| all.write(context));
    written.inspect_err(|_| drop(all.remove(&context.name)))
}

fn done(name: &str, what: &str) -> Result<ExitCode, CliError> {
    say_line(name)?;
    note(&format!("Successfully {what} context {name:?}"));
    Ok(ExitCode::SUCCESS)
}

/// Docker's rule for names (docker/cli `cli/context/store`, `ValidateContextName`).
fn check_name(name: &str) -> Result<(), CliError> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let good = name.len() > 1
        && name.bytes().all(inside)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric());
    let message = match name {
        "" => "context name cannot be empty".to_owned(),
        DEFAULT => "\"default\" is a reserved context name".to_owned(),
        _ if good => return Ok(()),
        _ => format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        ),
    };
    Err(CliError::plain(message))
}

fn check_new(all: &Contexts, name: &str) -> Result<(), CliError> {
    check_name(name)?;
    if all.exists(name) {
        return Err(CliError::plain(format!("context {name:?} already exists")));
    }
    Ok(())
}

/// What `--docker` says: the endpoint, and its files.
fn endpoint(all: &Contexts, texts: &[String]) -> Result<(Map<String, Value>, Files), CliError> {
    let bad = |why: String| CliError::plain(format!("unable to create docker endpoint config: {why}"));
    let mut said = std::collections::BTreeMap::new();
    for field in texts.iter().flat_map(|text| text.split(',')) {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| bad(format!("{field} must be formatted as key=value")))?;
        if !["from", "host", "ca", "cert", "key", "skip-tls-verify"].contains(&key) {
            return Err(bad(format!("unrecognized config key: {key}")));
        }
        said.insert(key, value);
    }
    if let Some(from) = said.get("from") {
        let other = all.find(from)?;
        let endpoint = other.endpoint().cloned();
        let endpoint =
            endpoint.ok_or_else(|| bad(format!("unable to get endpoint from context {from:?}")))?;
        return Ok((endpoint, Files::new()));
    }
    let host = said.get("host").copied().unwrap_or("");
    check_host(host).map_err(bad)?;
    let skip = match said.get("skip-tls-verify").copied() {
        None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
        Some(other) => return Err(bad(format!("skip-tls-verify: parsing {other:?}: invalid syntax"))),
    };
    let mut files = Files::new();
    for (key, file) in TLS_FILES {
        if let Some(path) = said.get(key).filter(|path| !path.is_empty()) {
            let content =
                contexts::read(Path::new(path)).map_err(|error| bad(format!("open {path}: {error}")))?;
            files.push((file.to_owned(), content));
        }
    }
    Ok((contexts::endpoint(host, skip), files))
}

/// An address that docker's client takes, or none.
fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Ok(());
    }
    let (scheme, rest) = host.split_once("://").unwrap_or(("", host));
    match scheme {
        "unix" | "tcp" | "http" | "https" | "npipe" | "fd" if !rest.is_empty() => Ok(()),
        "ssh" if !rest.trim_start_matches('/').is_empty() => Ok(()),
        _ => Err(format!(
            "unable to parse docker host `{host}`: write unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST"
        )),
    }
}

#[derive(Args, Debug)]
struct UpdateFlags {
    /// Description of the context
    #[arg(long)]
    description: Option<String>,
    /// Set the docker endpoint
    #[arg(long, value_name = "KEY=VALUE,...")]
    docker: Vec<String>,
    /// Its name
    #[arg(value_name = "CONTEXT")]
    name: String,
}

fn update(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: UpdateFlags = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    check_name(&flags.name)?;
    let mut named = all.find(&flags.name)?;
    if let Some(text) = flags.description.as_deref().filter(|text| !text.is_empty()) {
        named.describe(text);
    }
    if !flags.docker.is_empty() {
        let (endpoint, files) = endpoint(&all, &flags.docker)?;
        named.set_endpoint(endpoint);
        all.write_files(&flags.name, DOCKER, &files)?;
    }
    all.write(&named)?;
    done(&flags.name, "updated")
}

#[derive(Args, Debug)]
struct LsFlags {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Only show context names
    #[arg(short, long)]
    quiet: bool,
}

const FIELDS: Fields = &[
    // As with docker it has no header: that of the name would have a star else.
    ("Current", ""),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Error", "ERROR"),
    ("Name", "NAME"),
];
/// Docker's table: the current one has a star behind its name.
const TABLE: &str =
    "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";

fn ls(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LsFlags = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    let current = all.current();
    let row = |name: &str, description: &str, host: &str, error: &str| {
        Row::new([
            ("Current", (name == current).into()),
            ("Description", description.into()),
            ("DockerEndpoint", host.into()),
            ("Error", error.into()),
            ("Name", name.into()),
        ])
    };
    let listed = all.list()?;
    let mut rows: Vec<Row> = listed
        .iter()
        .map(|named| {
            let description = match named.name.as_str() {
                DEFAULT => "Current DOCKER_HOST based configuration",
                _ => named.description(),
            };
            let error = if named.endpoint().is_none() {
                "cannot find docker endpoint in context"
            } else {
                ""
            };
            row(&named.name, description, named.host(), error)
        })
        .collect();
    if !listed.iter().any(|named| named.name == current) {
        rows.push(row(&current, "", "", "context not found"));
    }
    let format = match flags.format.as_deref() {
        None | Some("" | "table") if !flags.quiet => Some(TABLE),
        format => format,
    };
    let look = Look {
        fields: FIELDS,
        table: &["Name", "Description", "DockerEndpoint", "Error"],
        format,
        quiet: flags.quiet.then_some("Name"),
        bare: false,
    };
    say(&look.show(&rows)?)?;
    if Contexts::is_overridden() {
        note(&format!(
            "Warning: {HOST_VARIABLE} environment variable overrides the active context. To use a context, either set the \
             global --context flag, or unset {HOST_VARIABLE} environment variable."
        ));
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct InspectFlags {
    /// Format output using a custom template
    #[arg(short, long)]
    format: Option<String>,
    /// The contexts; the current one when there is none
    #[arg(value_name = "CONTEXT")]
    names: Vec<String>,
}

fn inspect(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: InspectFlags = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    let names = match flags.names.is_empty() {
        true => vec![all.current()],
        false => flags.names,
    };
    let (mut objects, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for name in &names {
        match object(&all, name) {
            Ok(object) => objects.push(object),
            Err(error) => {
                error.shown();
                code = ExitCode::FAILURE;
            }
        }
    }
    say(&inspected(&objects, flags.format.as_deref())?)?;
    Ok(code)
}

fn object(all: &Contexts, name: &str) -> Result<Value, CliError> {
    let mut object = all.find(name)?.document();
    let mut material = Map::new();
    for (endpoint, files) in all.files(name)? {
        let files: Vec<String> = files.into_iter().map(|(file, _)| file).collect();
        material.insert(endpoint, files.into());
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("TLSMaterial".to_owned(), material.into());
        fields.insert("Storage".to_owned(), all.storage(name));
    }
    Ok(object)
}

#[derive(Args, Debug)]
struct NameFlags {
    /// Its name
    #[arg(value_name = "CONTEXT")]
    name: String,
}

fn choose(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let NameFlags { name } = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    if name != DEFAULT {
        check_name(&name)?;
        all.find(&name)?;
    }
    all.choose(&name)?;
    say_line(&name)?;
    note(&format!("Current context is now {name:?}"));
    if name != DEFAULT && Contexts::is_overridden() {
        note(&format!(
            "Warning: {HOST_VARIABLE} environment variable overrides the active context. To use {name:?}, either set the \
             global --context flag, or unset {HOST_VARIABLE} environment variable."
        ));
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct RmFlags {
    /// Force the removal of a context in use
    #[arg(short, long)]
    force: bool,
    /// The contexts
    #[arg(required = true, value_name = "CONTEXT")]
    names: Vec<String>,
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    let current = all.current();
    super::each(&flags.names, |name| {
        if name == DEFAULT {
            return Err(CliError::plain("context \"default\" cannot be removed"));
        }
        if name == current {
            if !flags.force {
                let message = format!("context {name:?} is in use, set -f flag to force remove");
                return Err(CliError::plain(message));
            }
            all.choose(DEFAULT)?;
        }
        if !flags.force && !all.exists(name) {
            return Err(CliError::plain(format!("context {name:?} does not exist")));
        }
        all.remove(name)?;
        say_line(name)
    })
}

#[derive(Args, Debug)]
struct ExportFlags {
    /// Its name
    #[arg(value_name = "CONTEXT")]
    name: String,
    /// The file, or - for standard output; NAME.dockercontext when there is none
    #[arg(value_name = "FILE|-")]
    file: Option<String>,
}

fn export(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ExportFlags = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    let named = all.find(&flags.name)?;
    let archive = archive(&named, &all.files(&flags.name)?)?;
    let file = flags
        .file
        .unwrap_or_else(|| format!("{}.dockercontext", flags.name));
    if file == "-" {
        let mut output = std::io::stdout().lock();
        if output.is_terminal() {
            return Err(CliError::plain(
                "cowardly refusing to export to a terminal, specify a file path",
            ));
        }
        output.write_all(&archive)?;
        output.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    // It may have a key in it.
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file);
    made.and_then(|mut made| made.write_all(&archive))
        .map_err(|error| CliError::plain(format!("open {file}: {error}")))?;
    note(&format!("Written file {file:?}"));
    Ok(ExitCode::SUCCESS)
}

/// The archive that docker reads (docker/cli `cli/context/store`, `Export`).
fn archive(named: &Named, files: &[(String, Files)]) -> Result<Vec<u8>, CliError> {
    let mut tar = Writer::new(Vec::new());
    let failed = |error: dhow_engine::tar::Error| CliError::plain(format!("write the archive: {error}"));
    let mut add = |name: String, kind: EntryKind, mode: u32, content: &[u8]| {
        let mut entry = Entry::new(name, kind, mode);
        entry.size = content.len() as u64;
        tar.append(&entry, content).map_err(failed)
    };
    let document = named.document().to_string();
    add(META.to_owned(), EntryKind::File, 0o644, document.as_bytes())?;
    add("tls".to_owned(), EntryKind::Directory, 0o700, b"")?;
    for (endpoint, files) in files {
        add(format!("tls/{endpoint}"), EntryKind::Directory, 0o700, b"")?;
        for (file, content) in files {
            add(format!("tls/{endpoint}/{file}"), EntryKind::File, 0o600, content)?;
        }
    }
    tar.finish().map_err(failed)
}

#[derive(Args, Debug)]
struct ImportFlags {
    /// Its name here
    #[arg(value_name = "CONTEXT")]
    name: String,
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: String,
}

fn import(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImportFlags = crate::flags::read(matches)?;
    let all = context.environment.contexts();
    check_new(&all, &flags.name)?;
    let opened = |error: std::io::Error| CliError::plain(format!("open {}: {error}", flags.file));
    let content = if flags.file == "-" {
        let mut content = Vec::new();
        std::io::stdin()
            .lock()
            .take(contexts::LARGEST + 1)
            .read_to_end(&mut content)?;
        content
    } else {
        contexts::read(Path::new(&flags.file)).map_err(opened)?
    };
    let (named, files) = unpacked(&flags.name, &content)?;
    put(&all, &named, &files)?;
    done(&flags.name, "imported")
}

/// What an archive has in it; a name that leads elsewhere is refused.
fn unpacked(name: &str, content: &[u8]) -> Result<(Named, Vec<(String, Files)>), CliError> {
    let bad = |why: &str| CliError::plain(format!("invalid context: {why}"));
    if content.len() as u64 > contexts::LARGEST {
        return Err(bad("the archive is larger than 10 MiB"));
    }
    if content.starts_with(b"PK\x03\x04") {
        return Err(bad("it is a zip file").with_hint("export it again: docker and dhow write tar archives"));
    }
    // Docker's reader takes one that ends without the padding of its last file.
    let padding = [0; BLOCK];
    let padded = content.chain(&padding[content.len() % BLOCK..]);
    let mut tar = Reader::new(padded);
    let failed = |error: dhow_engine::tar::Error| bad(&error.to_string());
    let (mut named, mut all): (Option<Named>, Vec<(String, Files)>) = (None, Vec::new());
    while let Some(entry) = tar.next_entry().map_err(failed)? {
        if entry.kind != EntryKind::File {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let content = tar.body(contexts::LARGEST).map_err(failed)?;
        if path == META {
            named = Some(Named::parse(name, &content)?);
            continue;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let ["tls", endpoint, file] = parts.as_slice() else {
            return Err(bad(&format!("{path}: unexpected context file")));
        };
        match all.iter_mut().find(|(known, _)| known == endpoint) {
            Some((_, files)) => files.push(((*file).to_owned(), content)),
            None => all.push(((*endpoint).to_owned(), vec![((*file).to_owned(), content)])),
        }
    }
    let named = named.ok_or_else(|| bad("no metadata found"))?;
    Ok((named, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_gives_back_what_was_put_in() {
        let mut named = Named::new("far");
        named.describe("a host");
        named.set_endpoint(contexts::endpoint("tcp://far:2376", true));
        let files = vec![(
            DOCKER.to_owned(),
            vec![("key.pem".to_owned(), b"secret".to_vec())],
        )];
        let bytes = archive(&named, &files).unwrap();
        let (back, found) = unpacked("near", &bytes).unwrap();
        assert_eq!(
            (back.name.as_str(), back.description(), back.host()),
            ("near", "a host", "tcp://far:2376")
        );
        assert_eq!(found, files);
    }

    #[test]
    fn an_archive_writes_nowhere_else() {
        for path in ["../x", "tls/../../x/y", "tls/docker/a/b", "etc/passwd", "tls/x"] {
            let mut tar = Writer::new(Vec::new());
            let mut entry = Entry::new(path, EntryKind::File, 0o600);
            entry.size = 1;
            tar.append(&entry, &b"x"[..]).unwrap();
            assert!(unpacked("x", &tar.finish().unwrap()).is_err(), "{path}");
        }
        let named = Named::new("some");
        let whole = archive(&named, &[]).unwrap();
        let end = BLOCK + named.document().to_string().len();
        assert!(
            unpacked("some", &whole[..end]).is_ok(),
            "the padding of the last file is missing"
        );
        assert!(unpacked("x", b"PK\x03\x04").is_err());
        assert!(unpacked("x", b"").is_err());
    }

    #[test]
    fn names_and_hosts_are_checked_as_docker_does() {
        for bad in ["", "a", "default", "-a", "a/b", "a b", "..", "\u{e4}a"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["ab", "a.b+c-d_e", "0x"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
        for bad in ["nonsense", "tcp://", "ssh://", "gopher://x"] {
            assert!(check_host(bad).is_err(), "{bad:?}");
        }
        for good in ["", "unix:///x", "tcp://h:1", "ssh://me@h:22"] {
            assert!(check_host(good).is_ok(), "{good:?}");
        }
    }
}
