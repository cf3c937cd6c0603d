//! `scan compare`.

use std::cmp::Ordering;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Ecosystem;

use crate::render::say;
use crate::{CliError, Context, Verb};

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
