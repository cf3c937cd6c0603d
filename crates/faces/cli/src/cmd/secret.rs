//! `secret create`, `ls`, `inspect`, `rm` and `exists`, as podman has them.

use std::fs::File;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Secret;
use dhow_types::ErrorKind;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::flags::{Filters, labels};
use crate::render::{Fields, Look, Row, inspected, say, say_line, time};
use crate::{CliError, Context, Verb};

pub(crate) const CREATE: Verb = Verb {
    name: "create",
    about: "Keep a secret, from a file or standard input (-)",
    flags: |command| CreateFlags::augment_args(command),
    run: create,
};

pub(crate) const LS: Verb = Verb {
    name: "ls",
    about: "List secrets",
    flags: |command| LsFlags::augment_args(command),
    run: ls,
};

pub(crate) const INSPECT: Verb = Verb {
    name: "inspect",
    about: "Display detailed information on one or more secrets",
    flags: |command| InspectFlags::augment_args(command),
    run: inspect,
};

pub(crate) const RM: Verb = Verb {
    name: "rm",
    about: "Remove one or more secrets",
    flags: |command| RmFlags::augment_args(command),
    run: rm,
};

pub(crate) const EXISTS: Verb = Verb {
    name: "exists",
    about: "Check whether a secret exists: exit with 0 if so, else with 1",
    flags: |command| ExistsFlags::augment_args(command),
    run: exists,
};

#[derive(Args, Debug)]
struct CreateFlags {
    /// Set metadata on the secret (e.g. "key=value")
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Read the content from the variable of this name instead of a file
    #[arg(long)]
    env: bool,
    /// Take the place of a secret that has this name
    #[arg(long)]
    replace: bool,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    from: String,
}

fn create(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CreateFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let labels = labels(&flags.label, &[])?;
    let keep = |content: &mut dyn std::io::Read| {
        engine.create_secret(&flags.name, content, labels.clone(), flags.replace)
    };
    let secret = if flags.env {
        let value = std::env::var_os(&flags.from)
            .ok_or_else(|| CliError::plain(format!("there is no variable {:?}", flags.from)))?;
        keep(&mut value.as_encoded_bytes())?
    } else if flags.from == "-" {
        keep(&mut std::io::stdin().lock())?
    } else {
        let mut file = File::open(&flags.from)
            .map_err(|error| CliError::plain(format!("read the secret from {}: {error}", flags.from)))?;
        keep(&mut file)?
    };
    say_line(&secret.id)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct LsFlags {
    /// Filter output based on conditions given
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Show the table without its headers
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Only display ids
    #[arg(short, long)]
    quiet: bool,
}

const FIELDS: Fields = &[
    ("CreatedAt", "CREATED"),
    ("Driver", "DRIVER"),
    ("ID", "ID"),
    ("Labels", "LABELS"),
    ("Name", "NAME"),
    ("UpdatedAt", "UPDATED"),
];
const TABLE: [&str; 5] = ["ID", "Name", "Driver", "CreatedAt", "UpdatedAt"];

fn ls(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LsFlags = crate::flags::read(matches)?;
    let filters = Filters::parse(&flags.filter, &["id", "label", "label!", "name"])?;
    let names = filters.names()?;
    let now = Timestamp::now();
    let ago = |text: &str| {
        time::parse(text).map_or_else(|| "N/A".to_owned(), |then| time::since(then, now) + " ago")
    };
    let mut secrets = context.engine()?.secrets()?;
    secrets.retain(|secret| {
        filters.has_id(&secret.id)
            && names.fit(&secret.name)
            && filters.labels(|name| secret.labels.get(name))
    });
    let row = |secret: &Secret| {
        Row::new([
            ("CreatedAt", ago(&secret.created).into()),
            ("Driver", "file".into()),
            ("ID", secret.id.as_str().into()),
            ("Labels", crate::view::labels(&secret.labels).into()),
            ("Name", secret.name.as_str().into()),
            ("UpdatedAt", ago(&secret.updated).into()),
        ])
    };
    let rows: Vec<_> = secrets.iter().map(row).collect();
    let look = Look {
        fields: FIELDS,
        table: &TABLE,
        format: flags.format.as_deref(),
        quiet: flags.quiet.then_some("ID"),
        bare: flags.noheading,
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct InspectFlags {
    /// Format output using a template
    #[arg(short, long)]
    format: Option<String>,
    /// Show the content, too
    #[arg(long)]
    showsecret: bool,
    /// The secrets
    #[arg(required = true, value_name = "SECRET")]
    secrets: Vec<String>,
}

fn inspect(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: InspectFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let (mut objects, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for name in &flags.secrets {
        match engine.secret(name) {
            Ok(secret) => {
                let content = if flags.showsecret {
                    Some(engine.secret_content(&secret)?)
                } else {
                    None
                };
                objects.push(object(&secret, content));
            }
            Err(error) => {
                CliError::from(error).shown();
                code = ExitCode::from(1);
            }
        }
    }
    say(&inspected(&objects, flags.format.as_deref())?)?;
    Ok(code)
}

fn object(secret: &Secret, content: Option<Vec<u8>>) -> Value {
    let mut object = json!({
        "ID": secret.id,
        "CreatedAt": secret.created,
        "UpdatedAt": secret.updated,
        "Spec": {
            "Name": secret.name,
            "Driver": { "Name": "file", "Options": {} },
            "Labels": secret.labels,
        },
    });
    if let (Some(content), Some(fields)) = (content, object.as_object_mut()) {
        fields.insert("SecretData".to_owned(), String::from_utf8_lossy(&content).into());
    }
    object
}

#[derive(Args, Debug)]
struct RmFlags {
    /// Every secret
    #[arg(short, long, conflicts_with = "secrets")]
    all: bool,
    /// Do not error if a secret does not exist
    #[arg(short, long)]
    ignore: bool,
    /// The secrets
    #[arg(required_unless_present = "all", value_name = "SECRET")]
    secrets: Vec<String>,
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = if flags.all {
        engine.secrets()?.into_iter().map(|secret| secret.id).collect()
    } else {
        flags.secrets
    };
    super::each(&names, |name| match engine.remove_secret(name) {
        Err(error) if flags.ignore && error.kind() == ErrorKind::NotFound => Ok(()),
        removed => say_line(&removed?.id),
    })
}

#[derive(Args, Debug)]
struct ExistsFlags {
    /// The secret
    #[arg(value_name = "NAME|ID")]
    name: String,
}

fn exists(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ExistsFlags = crate::flags::read(matches)?;
    match context.engine()?.secret(&flags.name) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(ExitCode::from(1)),
        Err(error) => Err(CliError::from(error).with_code(125)),
    }
}
