//! `scan import`, `scan data`, `scan compare`: advisory data.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Ecosystem;
use dhow_engine::vuln::Feed;

use crate::render::{note, say};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const IMPORT: Verb = Verb {
    name: "import",
    about: "Read advisory data: OSV records, Debian's tracker, Alpine's secdb",
    flags: |command| ImportFlags::augment_args(command),
    run: import,
};

#[derive(Args, Debug)]
struct ImportFlags {
    /// Forget what there was before
    #[arg(long)]
    replace: bool,
    /// Files, or folders of such files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Most reasons of refusal that are told of one file.
const MOST_TOLD: usize = 5;

fn import(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImportFlags = crate::flags::read(matches)?;
    for (path, imported) in context.engine()?.import_advisories(&flags.files, flags.replace)? {
        let feed = match imported.feed {
            Feed::Osv => "OSV",
            Feed::DebianTracker => "Debian's tracker",
            Feed::Secdb => "secdb",
        };
        say(&format!(
            "{}: {feed}, {} advisories\n",
            path.display(),
            imported.advisories
        ))?;
        for why in imported.refused.iter().take(MOST_TOLD) {
            note(&dialect::warning(&format!("left out: {why}")));
        }
        if imported.refused.len() > MOST_TOLD {
            let more = imported.refused.len() - MOST_TOLD;
            note(&dialect::warning(&format!("left out: {more} more")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) const DATA: Verb = Verb {
    name: "data",
    about: "Show what advisory data there is",
    flags: |command| DataFlags::augment_args(command),
    run: data,
};

#[derive(Args, Debug)]
struct DataFlags {
    /// Format output: json
    #[arg(long, value_parser = ["json"])]
    format: Option<String>,
}

fn data(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: DataFlags = crate::flags::read(matches)?;
    let advisories = context.engine()?.advisories()?;
    let facts = advisories.facts();
    if flags.format.is_some() {
        let document = serde_json::json!({
            "Built": facts.built,
            "Advisories": facts.advisories,
            "Ecosystems": facts.ecosystems.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "Sources": facts.sources,
        });
        say(&format!("{document}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("Built:\t{}\nAdvisories:\t{}\n", facts.built, facts.advisories);
    for (ecosystem, packages) in &facts.ecosystems {
        text.push_str(&format!("{ecosystem}:\t{packages} packages\n"));
    }
    for source in &facts.sources {
        text.push_str(&format!("Source:\t{source}\n"));
    }
    say(&crate::render::table::align(&text))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) const COMPARE: Verb = Verb {
    name: "compare",
    about: "Say which of two versions comes first in an ecosystem: `<`, `=` or `>`",
    flags: |command| CompareFlags::augment_args(command),
    run: compare,
};

#[derive(Args, Debug)]
struct CompareFlags {
    /// The ecosystem by its name in advisories: Debian, Alpine, Red Hat, PyPI, npm, Maven, ...
    #[arg(value_name = "ECOSYSTEM")]
    ecosystem: String,
    /// The version on the left of the sign
    #[arg(value_name = "A")]
    a: String,
    /// The version on its right
    #[arg(value_name = "B")]
    b: String,
}

fn compare(_context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CompareFlags = crate::flags::read(matches)?;
    let sign = match Ecosystem::parse(&flags.ecosystem)?.compare(&flags.a, &flags.b)? {
        Ordering::Less => "<\n",
        Ordering::Equal => "=\n",
        Ordering::Greater => ">\n",
    };
    say(sign)?;
    Ok(ExitCode::SUCCESS)
}
