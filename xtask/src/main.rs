//! Tasks of the workspace: `cargo xtask deps|tidy|dist|order|fuzz`.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool of developers speaks to its terminal"
)]

mod deps;
mod dist;
mod fuzz;
mod order;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <task>

  deps   check that imports between crates only go down (ARCHITECTURE.md, \"The house\")
  tidy   check sizes, names and words of the source
  dist   build the static binary dist/dhow and print its size
  order  MAP=TRACE...: which code lies together in dist/dhow (docs/adr/0003)
  fuzz   [target] [--seconds N] [--seed N]: damaged input for the readers of foreign bytes (fuzz/)";

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let outcome = match task.as_str() {
        "deps" => deps::check(),
        "tidy" => tidy::check(),
        "dist" => dist::build(),
        "order" => order::record(&std::env::args().skip(2).collect::<Vec<_>>()),
        "fuzz" => fuzz::run(std::env::args().skip(2).collect()),
        _ => Err(vec![USAGE.to_owned()]),
    };
    match outcome {
        Ok(summary) => {
            println!("{task}: {summary}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root: of the checkout that cargo runs in, also when several share a target folder.
fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let folder = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    folder.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}
