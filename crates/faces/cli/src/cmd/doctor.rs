//! `doctor`: what this host has for containers, and the exact fix for what it lacks.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Check, Verdict};
use serde_json::json;

use crate::render::{say, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "doctor",
    about: "Check what this host has for containers, and say how to fix what it lacks",
    flags: |command| DoctorFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct DoctorFlags {
    /// 'table' or 'json'
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: DoctorFlags = crate::flags::read(matches)?;
    let checks = context.engine()?.doctor();
    if flags.format == "json" {
        let all: Vec<_> = checks
            .iter()
            .map(|check| {
                let verdict = ["good", "limited", "missing"][rank(check.verdict)];
                json!({"Name": check.name, "Verdict": verdict, "Found": check.found, "Fix": check.fix})
            })
            .collect();
        let text = serde_json::to_string(&all).map_err(|error| CliError::plain(error.to_string()))?;
        say_line(&text)?;
    } else {
        say(&table(
            &checks,
            crate::terminal::takes_colour(&std::io::stdout()) && std::io::stdout().is_terminal(),
        ))?;
    }
    let missing = checks.iter().any(|check| check.verdict == Verdict::Missing);
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

const fn rank(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Good => 0,
        Verdict::Limited => 1,
        Verdict::Missing => 2,
    }
}

/// A line for each check, and the fix below what is not good.
pub(crate) fn table(checks: &[Check], colour: bool) -> String {
    let widest = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let (mark, paint) = [("✓", "32"), ("!", "33"), ("✗", "31")][rank(check.verdict)];
        let mark = if colour {
            format!("\x1b[{paint}m{mark}\x1b[0m")
        } else {
            mark.to_owned()
        };
        out.push_str(&format!("{mark} {:widest$}   {}\n", check.name, check.found));
        if let Some(fix) = &check.fix {
            out.push_str(&format!("  {:widest$}   fix: {fix}\n", ""));
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let verdict = match (count(Verdict::Missing), count(Verdict::Limited)) {
        (0, 0) => "Everything is there.".to_owned(),
        (0, limited) => format!(
            "Containers run; {limited} of {} checks found less than there could be.",
            checks.len()
        ),
        (missing, _) => format!(
            "{missing} of {} checks found something missing: containers do not run yet.",
            checks.len()
        ),
    };
    out.push_str(&verdict);
    out.push('\n');
    out
}
