//! `system check`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{CheckStore, SystemCheck};

use crate::render::say;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "check",
    about: "Check that everything stored is whole",
    flags: |command| CheckFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct CheckFlags {
    /// Heal what can be healed
    #[arg(long)]
    repair: bool,
    /// Read every blob and compare every layer with its index
    #[arg(long)]
    deep: bool,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CheckFlags = crate::flags::read(matches)?;
    let found = context.engine()?.check(CheckStore {
        repair: flags.repair,
        deep: flags.deep,
    })?;
    say(&report(&found))?;
    Ok(if found.clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line for each finding, then the verdict.
pub(crate) fn report(found: &SystemCheck) -> String {
    let mut out = String::new();
    for finding in &found.findings {
        match &finding.healed {
            Some(healed) => out.push_str(&format!("{}: {healed}\n", finding.what)),
            None => out.push_str(&format!("{}\n", finding.what)),
        }
    }
    let [images, layers, blobs, containers] = found.looked_at;
    let looked = format!("{images} images, {layers} layers, {blobs} blobs, {containers} containers");
    let left = found
        .findings
        .iter()
        .filter(|finding| finding.healed.is_none())
        .count();
    let verdict = match (left, found.findings.len()) {
        (0, 0) => format!("clean: {looked}\n"),
        (0, healed) => format!("clean now, {healed} healed: {looked}\n"),
        (1, _) => format!("1 problem: {looked}\n"),
        (left, _) => format!("{left} problems: {looked}\n"),
    };
    out + &verdict
}

#[cfg(test)]
mod tests {
    use dhow_engine::Finding;

    use super::*;

    #[test]
    fn what_was_healed_counts_as_clean() {
        let mut found = SystemCheck {
            looked_at: [1, 2, 3, 4],
            ..SystemCheck::default()
        };
        assert_eq!(
            report(&found),
            "clean: 1 images, 2 layers, 3 blobs, 4 containers\n"
        );
        found.findings.push(Finding {
            what: "blob x is damaged".to_owned(),
            healed: Some("removed".to_owned()),
        });
        assert!(report(&found).starts_with("blob x is damaged: removed\nclean now, 1 healed"));
        found.findings.push(Finding {
            what: "layer y is damaged".to_owned(),
            healed: None,
        });
        assert!(report(&found).contains("layer y is damaged\n1 problem:"));
    }
}
