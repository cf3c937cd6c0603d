//! The `dhow` binary: everything it does is in the crates below it.

use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_cli::main()
}
