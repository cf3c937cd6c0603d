//! Runs the crate `dhow-fuzz`, which is built only for this.

use std::process::Command;

pub(crate) fn run(arguments: Vec<String>) -> Result<String, Vec<String>> {
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["run", "--quiet", "--locked", "--package", "dhow-fuzz", "--"])
        .args(arguments)
        .current_dir(crate::root())
        .status()
        .map_err(|error| vec![format!("fuzz: run cargo: {error}")])?;
    if status.success() {
        Ok("no findings".to_owned())
    } else {
        Err(vec![
            "fuzz: see fuzz/findings; `cargo xtask fuzz <target> --replay <file>` runs one".to_owned(),
        ])
    }
}
