//! A program of two hundred bytes that waits: the first process of a pod, whose namespaces last as long as it.
//!
//! It takes SIGTERM, SIGINT and SIGQUIT as the word to end, reaps whatever is given to it, and knows nothing else. The kernel
//! keeps signals from the first process of a namespace unless they are handled or blocked; it blocks those that it waits for.

// rt_sigprocmask(SIG_BLOCK, {INT, QUIT, TERM, CHLD}); again and again rt_sigtimedwait(set): on SIGCHLD
// wait4(-1, null, WNOHANG, null) as long as it finds any, on another signal exit_group(0).
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.dhow_pause,\"a\",@progbits",
    ".globl dhow_pause_begin",
    ".globl dhow_pause_end",
    ".hidden dhow_pause_begin",
    ".hidden dhow_pause_end",
    "dhow_pause_begin:",
    "sub rsp, 16",
    "mov qword ptr [rsp], 0x14006",
    "mov eax, 14",
    "xor edi, edi",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "1:",
    "mov eax, 128",
    "mov rdi, rsp",
    "xor esi, esi",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "cmp eax, 17",
    "je 2f",
    "test eax, eax",
    "js 1b",
    "mov eax, 231",
    "xor edi, edi",
    "syscall",
    "ud2",
    "2:",
    "mov eax, 61",
    "mov rdi, -1",
    "xor esi, esi",
    "mov edx, 1",
    "xor r10d, r10d",
    "syscall",
    "test eax, eax",
    "jg 2b",
    "jmp 1b",
    "dhow_pause_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.dhow_pause,\"a\",@progbits",
    ".globl dhow_pause_begin",
    ".globl dhow_pause_end",
    ".hidden dhow_pause_begin",
    ".hidden dhow_pause_end",
    ".balign 8",
    "dhow_pause_begin:",
    "sub sp, sp, #16",
    "mov x9, #0x4006",
    "movk x9, #1, lsl #16",
    "str x9, [sp]",
    "mov x8, #135",
    "mov x0, #0",
    "mov x1, sp",
    "mov x2, #0",
    "mov x3, #8",
    "svc #0",
    "1:",
    "mov x8, #137",
    "mov x0, sp",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #8",
    "svc #0",
    "cmp w0, #17",
    "b.eq 2f",
    "tbnz w0, #31, 1b",
    "mov x8, #94",
    "mov x0, #0",
    "svc #0",
    "udf #0",
    "2:",
    "mov x8, #260",
    "mov x0, #-1",
    "mov x1, #0",
    "mov x2, #1",
    "mov x3, #0",
    "svc #0",
    "cmp w0, #0",
    "b.gt 2b",
    "b 1b",
    "dhow_pause_end:",
    ".popsection",
);

unsafe extern "C" {
    static dhow_pause_begin: u8;
    static dhow_pause_end: u8;
}

/// The program as an ELF file.
#[must_use]
pub fn program() -> Vec<u8> {
    let (begin, end) = (&raw const dhow_pause_begin, &raw const dhow_pause_end);
    let length = end.addr() - begin.addr();
    // SAFETY: the two symbols are the ends of one piece of read-only data of this program.
    let code = unsafe { std::slice::from_raw_parts(begin, length) };
    crate::stub::elf(code, &[])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// What `/proc/<pid>/syscall` begins with in rt_sigtimedwait.
    #[cfg(target_arch = "x86_64")]
    const WAIT: &str = "128 ";
    #[cfg(target_arch = "aarch64")]
    const WAIT: &str = "137 ";

    #[test]
    fn it_waits_until_it_is_told_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pause");
        std::fs::write(&path, program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
            let mut child = std::process::Command::new(&path).spawn().unwrap();
            let pid = rustix::process::Pid::from_child(&child);
            // The signal of a child's end does not end it; the other one finds it waiting.
            let call = format!("/proc/{}/syscall", child.id());
            let waits = |_: &i32| std::fs::read_to_string(&call).is_ok_and(|call| call.starts_with(WAIT));
            let looked = (0..5000).find(|look| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                waits(look)
            });
            assert!(looked.is_some(), "it does not wait");
            rustix::process::kill_process(pid, rustix::process::Signal::CHILD).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(child.try_wait().unwrap().is_none());
            rustix::process::kill_process(pid, signal).unwrap();
            let ended = child.wait().unwrap();
            assert_eq!((ended.code(), ended.signal()), (Some(0), None));
        }
    }
}
