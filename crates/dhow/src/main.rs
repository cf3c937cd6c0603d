//! The `dhow` binary: everything it does is in the crates below it.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The runtime's command line starts in microseconds: nothing of the other is set up for it.
    if let Some(call) = dhow_runc::called() {
        return dhow_runc::main(call);
    }
    dhow_cli::main()
}
