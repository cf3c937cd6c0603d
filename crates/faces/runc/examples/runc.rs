//! The runtime alone, without the rest of Dhow: quick to build, for work on it. Called as `runc ...` or `dhow runtime ...`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_runc::called().map_or(ExitCode::FAILURE, dhow_runc::main)
}
