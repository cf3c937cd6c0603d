//! Which instructions of a program are executed: runs it and its children step by step and writes the addresses, one in hex
//! a line, for `cargo xtask order`. Only for programs at fixed addresses, as `cargo xtask dist` makes them.
//!
//!     cargo run --release -p dhow-sys --example executed -- OUTPUT PROGRAM [ARGUMENT]...
//!
//! A child is left alone once it becomes another program. It takes some microseconds an instruction: a minute for a container.

#![allow(unsafe_code, reason = "ptrace has no safe wrapper")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::ptr;

/// Addresses of a program that is not position-independent are below; libraries, the vDSO and stacks are above.
const FIXED: u64 = 1 << 32;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let output = arguments
        .next()
        .expect("usage: executed OUTPUT PROGRAM [ARGUMENT]...");
    let program: Vec<CString> = arguments
        .map(|argument| CString::new(argument.into_vec()).expect("an argument has no NUL"))
        .collect();
    assert!(
        !program.is_empty(),
        "usage: executed OUTPUT PROGRAM [ARGUMENT]..."
    );
    let (seen, status) = follow(start(&program));
    let mut file = std::io::BufWriter::new(std::fs::File::create(output).expect("create the output"));
    for address in &seen {
        writeln!(file, "{address:x}").expect("write the output");
    }
    file.flush().expect("write the output");
    std::process::exit(status);
}

/// Starts the program, stopped before its first instruction; its process id.
fn start(program: &[CString]) -> libc::pid_t {
    let arguments: Vec<_> = program
        .iter()
        .map(|argument| argument.as_ptr())
        .chain([ptr::null()])
        .collect();
    // SAFETY: this process has one thread, and the child calls nothing but what is safe after a fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        request(libc::PTRACE_TRACEME, 0, 0);
        // SAFETY: the pointers are to strings and an array of them that ends with a null, alive until the call returns.
        unsafe { libc::execvp(arguments[0], arguments.as_ptr()) };
        // SAFETY: ends the process.
        unsafe { libc::_exit(127) };
    }
    assert!(libc::WIFSTOPPED(wait(child).1), "the program was not started");
    let follow = libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SETOPTIONS, child, follow);
    request(libc::PTRACE_SINGLESTEP, child, 0);
    child
}

/// Steps until the first process ends: what was executed, and its exit status.
fn follow(first: libc::pid_t) -> (BTreeSet<u64>, i32) {
    let mut seen = BTreeSet::new();
    loop {
        let (process, status) = wait(-1);
        if !libc::WIFSTOPPED(status) {
            if process == first {
                let ended = libc::WIFEXITED(status);
                return (seen, if ended { libc::WEXITSTATUS(status) } else { 255 });
            }
            continue;
        }
        if status >> 16 == libc::PTRACE_EVENT_EXEC {
            request(libc::PTRACE_DETACH, process, 0);
            continue;
        }
        seen.extend(counter(process).filter(|address| *address < FIXED));
        let signal = match libc::WSTOPSIG(status) {
            libc::SIGTRAP | libc::SIGSTOP => 0,
            _ if status >> 16 != 0 => 0,
            signal => signal,
        };
        request(libc::PTRACE_SINGLESTEP, process, signal);
    }
}

/// The address of the next instruction.
fn counter(process: libc::pid_t) -> Option<u64> {
    /// `NT_PRSTATUS` of `include/uapi/linux/elf.h`: the general registers.
    const GENERAL: libc::c_int = 1;
    // SAFETY: a record of numbers, which may all be zero.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let mut place = libc::iovec {
        iov_base: (&raw mut registers).cast(),
        iov_len: size_of_val(&registers),
    };
    // SAFETY: the kernel writes as much as one record where the pointer leads.
    let read = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, process, GENERAL, &raw mut place) };
    #[cfg(target_arch = "x86_64")]
    let address = registers.rip;
    #[cfg(target_arch = "aarch64")]
    let address = registers.pc;
    (read == 0).then_some(address)
}

/// One that has ended meanwhile is told by the next wait.
fn request(request: libc::c_uint, process: libc::pid_t, data: libc::c_int) {
    // SAFETY: none of the requests made here reads or writes memory of this process.
    unsafe { libc::ptrace(request, process, 0, libc::c_long::from(data)) };
}

fn wait(process: libc::pid_t) -> (libc::pid_t, i32) {
    let mut status = 0;
    // SAFETY: the kernel writes one number where the pointer leads.
    let process = unsafe { libc::waitpid(process, &raw mut status, libc::__WALL) };
    assert!(process > 0, "waitpid: {}", std::io::Error::last_os_error());
    (process, status)
}
