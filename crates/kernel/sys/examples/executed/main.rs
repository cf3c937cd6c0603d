//! Which functions of a program are executed: stops it and its children at the first instruction of each and writes the
//! addresses, one in hex a line, for `cargo xtask order`. The program keeps its symbols and lies at fixed addresses.
//!
//!     cargo run --release -p dhow-sys --example executed -- OUTPUT PROGRAM [ARGUMENT]...
//!
//! A child is left alone once it becomes another program, and whatever still runs when the program ends goes on. It costs some
//! microseconds a function.

#![cfg_attr(
    target_arch = "x86_64",
    allow(unsafe_code, reason = "ptrace has no safe wrapper")
)]

#[cfg(target_arch = "x86_64")]
mod follow;

#[cfg(target_arch = "x86_64")]
fn main() {
    use std::os::unix::ffi::OsStringExt as _;

    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: executed OUTPUT PROGRAM [ARGUMENT]...";
    let output = arguments.next().expect(usage);
    let program: Vec<_> = arguments
        .map(|argument| std::ffi::CString::new(argument.into_vec()).expect("an argument has no NUL"))
        .collect();
    assert!(!program.is_empty(), "{usage}");
    let (seen, status) = follow::follow(&program);
    let text: String = seen.iter().map(|address| format!("{address:x}\n")).collect();
    std::fs::write(output, text).expect("write the output");
    std::process::exit(status);
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    panic!("the order of the code is made on x86_64");
}
