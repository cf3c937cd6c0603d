//! The runtime alone, as a program of its own: quick to build when only the runtime is worked on, and small enough to hand
//! to other engines and to the suites in `conformance/runtime`.
//!
//! ```console
//! $ cargo build -p dhow-runc --example runc
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_runc::called().map_or_else(
        || {
            use std::io::Write as _;
            // Under another name, the first word decides, as for `dhow`.
            let told = writeln!(
                std::io::stderr(),
                "call this program by the name runc or crun, or with the first word `runtime`"
            );
            drop(told);
            ExitCode::from(2)
        },
        dhow_runc::main,
    )
}
