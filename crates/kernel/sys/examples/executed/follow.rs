//! Stops a program, and what it starts, at the first instruction of each of its functions.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::ptr;

use libc::{c_int, c_long, c_uint, pid_t};

/// The instruction that stops a process.
const INT3: u8 = 0xcc;

/// The functions of a program that have not been executed yet, by address, with their first byte.
struct Functions(BTreeMap<u64, u8>);

/// Runs the program until it ends: the addresses of the functions that it and its children executed, and its exit status.
pub(crate) fn follow(program: &[CString]) -> (BTreeSet<u64>, c_int) {
    let path = OsStr::from_bytes(program[0].as_bytes());
    let functions = Functions::read(&File::open(path).expect("open the program"));
    let first = start(program);
    let (mut seen, mut alive) = (BTreeSet::new(), BTreeSet::from([first]));
    let mut fresh = true;
    let status = loop {
        let (process, status) = wait(-1);
        if !libc::WIFSTOPPED(status) {
            alive.remove(&process);
            if process == first {
                break status;
            }
            continue;
        }
        alive.insert(process);
        let event = status >> 16;
        if event == libc::PTRACE_EVENT_EXEC && fresh {
            fresh = false;
            functions.stop_at_each(process);
        } else if event == libc::PTRACE_EVENT_EXEC {
            alive.remove(&process);
            request(libc::PTRACE_DETACH, process, 0);
            continue;
        }
        let mut signal = 0;
        if event == 0 {
            match functions.reached(process, libc::WSTOPSIG(status)) {
                Some(address) => _ = seen.insert(address),
                None => signal = libc::WSTOPSIG(status),
            }
        }
        request(libc::PTRACE_CONT, process, signal);
    };
    for process in alive {
        functions.leave(process);
    }
    let ended = libc::WIFEXITED(status);
    (seen, if ended { libc::WEXITSTATUS(status) } else { 255 })
}

impl Functions {
    /// The symbols of a 64-bit ELF file that are functions (gABI, "Symbol Table").
    fn read(file: &File) -> Self {
        const SYMTAB: u32 = 2;
        let bytes = |at: u64, size: u64| {
            let mut bytes = vec![0; usize::try_from(size).expect("a size in memory")];
            file.read_exact_at(&mut bytes, at).expect("read the program");
            bytes
        };
        let word = |bytes: &[u8], at: usize, size: usize| {
            let little = bytes[at..at + size].iter().rev();
            little.fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let header = bytes(0, 64);
        assert!(header.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit ELF file");
        let table = bytes(word(&header, 40, 8), word(&header, 58, 2) * word(&header, 60, 2));
        let sections: Vec<_> = table.chunks_exact(64).collect();
        let symbols = sections
            .iter()
            .filter(|section| word(section, 4, 4) == u64::from(SYMTAB))
            .flat_map(|section| {
                let table = bytes(word(section, 24, 8), word(section, 32, 8));
                table.chunks_exact(24).map(<[u8]>::to_vec).collect::<Vec<_>>()
            });
        let mut found = BTreeMap::new();
        for symbol in symbols {
            // A function, or one that is chosen at start; defined in a section that is executed.
            let (kind, index) = (symbol[4] & 15, word(&symbol, 6, 2));
            let section = sections.get(usize::try_from(index).unwrap_or(0));
            let Some(section) = section.filter(|section| word(section, 8, 8) & 4 != 0) else {
                continue;
            };
            let address = word(&symbol, 8, 8);
            if matches!(kind, 2 | 10) {
                let at = address - word(section, 16, 8) + word(section, 24, 8);
                found.insert(address, bytes(at, 1)[0]);
            }
        }
        assert!(!found.is_empty(), "the program has no symbols (`-C strip=none`)");
        Self(found)
    }

    /// Writes over the first byte of each function.
    fn change(&self, process: pid_t, byte: impl Fn(u8) -> u8) {
        let (Some((&first, _)), Some((&last, _))) = (self.0.first_key_value(), self.0.last_key_value())
        else {
            return;
        };
        let memory = memory(process);
        let mut text = vec![0; usize::try_from(last - first + 1).expect("a size in memory")];
        memory.read_exact_at(&mut text, first).expect("read the text");
        for (address, original) in &self.0 {
            text[usize::try_from(address - first).expect("in the text")] = byte(*original);
        }
        memory.write_all_at(&text, first).expect("write the text");
    }

    fn stop_at_each(&self, process: pid_t) {
        self.change(process, |_| INT3);
    }

    /// The function that a process was stopped at, which it may execute now.
    fn reached(&self, process: pid_t, signal: c_int) -> Option<u64> {
        // SAFETY: a record of numbers, which may all be zero.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        if signal != libc::SIGTRAP {
            return None;
        }
        // SAFETY: the kernel writes one record where the pointer leads.
        let read = unsafe { libc::ptrace(libc::PTRACE_GETREGS, process, 0, &raw mut registers) };
        let address = registers.rip.checked_sub(1).filter(|_| read == 0)?;
        let original = *self.0.get(&address)?;
        memory(process)
            .write_all_at(&[original], address)
            .expect("write the text");
        registers.rip = address;
        // SAFETY: the kernel reads one record from where the pointer leads.
        unsafe { libc::ptrace(libc::PTRACE_SETREGS, process, 0, &raw const registers) };
        Some(address)
    }

    /// Lets a process go on as it would without us.
    fn leave(&self, process: pid_t) {
        request(libc::PTRACE_INTERRUPT, process, 0);
        loop {
            let (stopped, status) = wait(process);
            if !libc::WIFSTOPPED(status) {
                return;
            }
            let (event, signal) = (status >> 16, libc::WSTOPSIG(status));
            if event == libc::PTRACE_EVENT_EXEC {
                request(libc::PTRACE_DETACH, stopped, 0);
                return;
            }
            let reached = event == 0 && self.reached(process, signal).is_some();
            if event == libc::PTRACE_EVENT_STOP {
                self.change(process, |original| original);
                request(libc::PTRACE_DETACH, process, 0);
                return;
            }
            request(
                libc::PTRACE_CONT,
                process,
                if reached || event != 0 { 0 } else { signal },
            );
        }
    }
}

fn memory(process: pid_t) -> File {
    let path = format!("/proc/{process}/mem");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("open the memory")
}

/// Starts the program, seized before it becomes one.
fn start(program: &[CString]) -> pid_t {
    const OPTIONS: c_int = libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC;
    let mut arguments: Vec<_> = program.iter().map(|argument| argument.as_ptr()).collect();
    arguments.push(ptr::null());
    // SAFETY: this process has one thread, and the child calls nothing but what is safe after a fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: stops this process.
        unsafe { libc::raise(libc::SIGSTOP) };
        // SAFETY: the pointers are to strings and an array of them that ends with a null, alive until the call returns.
        unsafe { libc::execvp(arguments[0], arguments.as_ptr()) };
        // SAFETY: ends the process.
        unsafe { libc::_exit(127) };
    }
    let mut status = 0;
    // SAFETY: the kernel writes one number where the pointer leads.
    let stopped = unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
    assert!(
        stopped == child && libc::WIFSTOPPED(status),
        "the child did not stop"
    );
    request(libc::PTRACE_SEIZE, child, OPTIONS);
    // SAFETY: signals a child of ours.
    unsafe { libc::kill(child, libc::SIGCONT) };
    child
}

/// One that has ended meanwhile is told by the next wait.
fn request(request: c_uint, process: pid_t, data: c_int) {
    // SAFETY: none of the requests made here reads or writes memory of this process.
    unsafe { libc::ptrace(request, process, 0, c_long::from(data)) };
}

fn wait(process: pid_t) -> (pid_t, c_int) {
    let mut status = 0;
    // SAFETY: the kernel writes one number where the pointer leads.
    let process = unsafe { libc::waitpid(process, &raw mut status, libc::__WALL) };
    assert!(process > 0, "waitpid: {}", std::io::Error::last_os_error());
    (process, status)
}
