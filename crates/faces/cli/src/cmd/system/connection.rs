//! `system connection`: podman's word for contexts.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Command};
use serde_json::json;

use crate::contexts::DEFAULT;
use crate::render::{Fields, Look, Row, say};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "connection",
    about: "Engines elsewhere, by name (podman's word for contexts)",
    flags: |command| {
        let list = Command::new("list").visible_alias("ls").about("List them");
        command
            .subcommand_required(true)
            .subcommand(ListFlags::augment_args(list))
    },
    run,
};

#[derive(Args, Debug)]
struct ListFlags {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(short, long)]
    format: Option<String>,
}

const FIELDS: Fields = &[
    ("Default", "DEFAULT"),
    ("Identity", "IDENTITY"),
    ("Name", "NAME"),
    ("ReadWrite", "READWRITE"),
    ("URI", "URI"),
];

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    // Clap has seen to it that there is one.
    let flags: ListFlags = crate::flags::read(matches.subcommand().map_or(matches, |(_, list)| list))?;
    let all = context.environment.contexts();
    let current = all.current();
    let listed = all.list()?;
    let rows: Vec<Row> = listed
        .iter()
        .filter(|named| named.name != DEFAULT)
        .map(|named| {
            let (name, uri, default) = (named.name.as_str(), named.host(), named.name == current);
            let row = Row::new([
                ("Default", default.to_string().into()),
                ("Identity", "".into()),
                ("Name", name.into()),
                ("ReadWrite", "true".into()),
                ("URI", uri.into()),
            ]);
            row.with_document(json!({
                "Name": name,
                "URI": uri,
                "Identity": "",
                "Default": default,
                "ReadWrite": true,
            }))
        })
        .collect();
    let look = Look {
        fields: FIELDS,
        table: &["Name", "URI", "Identity", "Default", "ReadWrite"],
        format: flags.format.as_deref(),
        quiet: None,
        bare: false,
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}
