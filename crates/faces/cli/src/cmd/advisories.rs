//! `scan import`, `data`, `export`, `push`, `pull` and `compare`: advisory data.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::signing::Trust;
use dhow_engine::vuln::Feed;
use dhow_engine::{Believe, Ecosystem, Engine, Taken};

use super::verify::trust_in;
use crate::render::{note, say};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const IMPORT: Verb = Verb {
    name: "import",
    about: "Read advisory data: OSV records, Debian's tracker, Alpine's secdb, EPSS scores, CISA's KEV, or what scan export wrote",
    flags: |command| ImportFlags::augment_args(command),
    run: import,
};

#[derive(Args, Debug)]
struct ImportFlags {
    /// Forget what there was before
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    believe: BelieveFlags,
    /// Files, or folders of such files; or one file that scan export made
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Whose data is taken that others have compiled.
#[derive(Args, Debug)]
struct BelieveFlags {
    /// A public key of those whose compiled data is taken, a PEM file (may be given several times)
    #[arg(short, long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Take compiled data from whoever made it
    #[arg(long, conflicts_with = "key")]
    unverified: bool,
}

impl BelieveFlags {
    fn trust(&self) -> Result<Option<Trust>, CliError> {
        if self.unverified {
            return Ok(None);
        }
        let trust = trust_in(&self.key)?;
        if trust.keys.is_empty() {
            return Err(CliError::plain("nobody is named whose advisory data is believed")
                .with_hint("--key FILE names a public key, --unverified believes whoever made it"));
        }
        Ok(Some(trust))
    }
}

/// Tells what was taken.
fn told(taken: &Taken) -> Result<(), CliError> {
    let by = taken.signer.as_ref().map_or_else(
        || "nobody was asked to sign".to_owned(),
        |verified| format!("signed by {}", verified.signer),
    );
    let facts = &taken.facts;
    say(&format!(
        "{} advisories of {}, {by}\n",
        facts.advisories, facts.built
    ))
}

pub(crate) const EXPORT: Verb = Verb {
    name: "export",
    about: "Write the advisory data as one signed file, for scan import elsewhere",
    flags: |command| ExportFlags::augment_args(command),
    run: export,
};

#[derive(Args, Debug)]
struct ExportFlags {
    /// The private key to sign with, a PEM file
    #[arg(short, long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn export(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ExportFlags = crate::flags::read(matches)?;
    let key = flags.key.as_deref().map(super::sign::private_key).transpose()?;
    let packed = context.engine()?.pack_advisories(key.as_ref())?;
    std::fs::write(&flags.file, packed)
        .map_err(|error| CliError::plain(format!("write {}: {error}", flags.file.display())))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) const PUSH: Verb = Verb {
    name: "push",
    about: "Put the advisory data into a registry, signed",
    flags: |command| PushFlags::augment_args(command),
    run: push,
};

#[derive(Args, Debug)]
struct PushFlags {
    /// The private key to sign with, a PEM file
    #[arg(short, long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name in a registry: HOST/REPOSITORY:TAG
    #[arg(value_name = "NAME")]
    name: String,
}

fn push(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PushFlags = crate::flags::read(matches)?;
    let key = flags.key.as_deref().map(super::sign::private_key).transpose()?;
    let digest = context.engine()?.push_advisories(&flags.name, key.as_ref())?;
    say(&format!("{digest}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) const PULL: Verb = Verb {
    name: "pull",
    about: "Take the advisory data that a registry has, if somebody who is believed signed it",
    flags: |command| PullFlags::augment_args(command),
    run: pull,
};

#[derive(Args, Debug)]
struct PullFlags {
    #[command(flatten)]
    believe: BelieveFlags,
    /// Take it also when what is here is newer
    #[arg(long)]
    replace: bool,
    /// The name in a registry: HOST/REPOSITORY:TAG
    #[arg(value_name = "NAME")]
    name: String,
}

fn pull(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PullFlags = crate::flags::read(matches)?;
    let trust = flags.believe.trust()?;
    let believe = trust.as_ref().map_or(Believe::Anybody, Believe::Signed);
    told(
        &context
            .engine()?
            .pull_advisories(&flags.name, &believe, flags.replace)?,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Most reasons of refusal that are told of one file.
const MOST_TOLD: usize = 5;

fn import(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImportFlags = crate::flags::read(matches)?;
    if let [file] = flags.files.as_slice()
        && Engine::is_packed_advisories(file)
    {
        let trust = flags.believe.trust()?;
        let believe = trust.as_ref().map_or(Believe::Anybody, Believe::Signed);
        let packed = std::fs::read(file)
            .map_err(|error| CliError::plain(format!("read {}: {error}", file.display())))?;
        told(
            &context
                .engine()?
                .take_advisories(&packed, &believe, flags.replace)?,
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    for (path, imported) in context.engine()?.import_advisories(&flags.files, flags.replace)? {
        let feed = match imported.feed {
            Feed::Osv => "OSV",
            Feed::DebianTracker => "Debian's tracker",
            Feed::Secdb => "secdb",
            Feed::Epss => "EPSS",
            Feed::Kev => "KEV",
        };
        let what = match imported.feed {
            Feed::Epss => "scores",
            Feed::Kev => "entries",
            _ => "advisories",
        };
        say(&format!(
            "{}: {feed}, {} {what}\n",
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
