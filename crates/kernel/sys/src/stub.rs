//! A program of two hundred bytes that stands between this program and the container's.
//!
//! While a process calls execve, `/proc/self/exe` is still the program that calls. An image whose entry point is
//! `/proc/self/exe`, or a script with `#!/proc/self/exe`, would therefore run the *host's* binary inside the container,
//! where it can be opened and, once it is not running, overwritten (CVE-2019-5736). So the last execve but one is that
//! of a sealed memfd holding this stub: it knows nothing, and holds one socket. It tries the candidate paths as execvp
//! does and reports an errno when all fail. Executed once more by way of `/proc/self/exe`, it finds the socket closed
//! and exits.
//!
//! The image is: ELF header, program header, code, then the words and strings that [`execute`] appends.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, XattrFlags, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use crate::exec::Vector;

/// Exit status of a stub that could not execute anything.
pub const FAILED: i32 = 255;

/// Where the image is mapped.
const BASE: u64 = 0x40_0000;
/// Sizes of the two headers of a 64-bit ELF file.
const EHDR: usize = 64;
const PHDR: usize = 56;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

// Data after the code: link descriptor, first word of a report, whether to search on, how to hand over (0 not, 1 yes, 2
// with descriptor 0 as the controlling terminal), first word of the report of that (each 32 bits), then null-terminated
// paths up to an empty one. Calls: fcntl(link, F_SETFD, FD_CLOEXEC); to hand over, clone(CLONE_PARENT | SIGCHLD), in the
// child setsid and ioctl(0, TIOCSCTTY, 0), in the parent write(link, {word, pid, 0}, 12) and exit_group; execve for each
// path, write(link, {word, 0, errno}, 12), exit_group(255).
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.dhow_stub,\"a\",@progbits",
    ".globl dhow_stub_begin",
    ".globl dhow_stub_end",
    ".hidden dhow_stub_begin",
    ".hidden dhow_stub_end",
    "dhow_stub_begin:",
    "mov r13, [rsp]",
    "lea r14, [rsp + 8]",
    "lea r15, [r14 + r13*8 + 8]",
    "lea rbx, [rip + dhow_stub_end]",
    "mov eax, 72",
    "mov edi, [rbx]",
    "mov esi, 2",
    "mov edx, 1",
    "syscall",
    "test rax, rax",
    "js 9f",
    "cmp dword ptr [rbx + 12], 0",
    "je 1f",
    "mov eax, 56",
    "mov edi, 0x8011",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "test rax, rax",
    "js 7f",
    "jnz 8f",
    "mov eax, 112",
    "syscall",
    "test rax, rax",
    "js 7f",
    "cmp dword ptr [rbx + 12], 1",
    "je 1f",
    "mov eax, 16",
    "xor edi, edi",
    "mov esi, 0x540e",
    "xor edx, edx",
    "syscall",
    "test rax, rax",
    "js 7f",
    "1:",
    "mov r12d, 2",
    "lea rbp, [rbx + 20]",
    "2:",
    "cmp byte ptr [rbp], 0",
    "je 5f",
    "mov eax, 59",
    "mov rdi, rbp",
    "mov rsi, r14",
    "mov rdx, r15",
    "syscall",
    "neg eax",
    "cmp dword ptr [rbx + 8], 0",
    "je 4f",
    "cmp eax, 2",
    "je 3f",
    "cmp eax, 20",
    "je 3f",
    "cmp eax, 13",
    "jne 4f",
    "mov r12d, eax",
    "3:",
    "inc rbp",
    "cmp byte ptr [rbp - 1], 0",
    "jne 3b",
    "jmp 2b",
    "4:",
    "mov r12d, eax",
    "5:",
    "sub rsp, 16",
    "mov ecx, [rbx + 4]",
    "mov [rsp], ecx",
    "mov dword ptr [rsp + 4], 0",
    "mov [rsp + 8], r12d",
    "mov eax, 1",
    "mov edi, [rbx]",
    "mov rsi, rsp",
    "mov edx, 12",
    "syscall",
    "9:",
    "mov eax, 231",
    "mov edi, 255",
    "syscall",
    "ud2",
    "7:",
    "neg eax",
    "sub rsp, 16",
    "mov [rsp + 8], eax",
    "mov dword ptr [rsp + 4], 0",
    "jmp 6f",
    "8:",
    "sub rsp, 16",
    "mov dword ptr [rsp + 8], 0",
    "mov [rsp + 4], eax",
    "6:",
    "mov ecx, [rbx + 16]",
    "mov [rsp], ecx",
    "mov eax, 1",
    "mov edi, [rbx]",
    "mov rsi, rsp",
    "mov edx, 12",
    "syscall",
    "jmp 9b",
    ".balign 8",
    "dhow_stub_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.dhow_stub,\"a\",@progbits",
    ".globl dhow_stub_begin",
    ".globl dhow_stub_end",
    ".hidden dhow_stub_begin",
    ".hidden dhow_stub_end",
    ".balign 8",
    "dhow_stub_begin:",
    "ldr x20, [sp]",
    "add x21, sp, #8",
    "add x22, x21, x20, lsl #3",
    "add x22, x22, #8",
    "adr x23, dhow_stub_end",
    "mov x8, #25",
    "ldr w0, [x23]",
    "mov x1, #2",
    "mov x2, #1",
    "svc #0",
    "tbnz x0, #63, 9f",
    "ldr w9, [x23, #12]",
    "cbz w9, 1f",
    "mov x8, #220",
    "mov x0, #0x8011",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "svc #0",
    "tbnz x0, #63, 7f",
    "cbnz x0, 8f",
    "mov x8, #157",
    "svc #0",
    "tbnz x0, #63, 7f",
    "ldr w9, [x23, #12]",
    "cmp w9, #1",
    "b.eq 1f",
    "mov x8, #29",
    "mov x0, #0",
    "mov x1, #0x540e",
    "mov x2, #0",
    "svc #0",
    "tbnz x0, #63, 7f",
    "1:",
    "mov w24, #2",
    "add x25, x23, #20",
    "2:",
    "ldrb w9, [x25]",
    "cbz w9, 5f",
    "mov x8, #221",
    "mov x0, x25",
    "mov x1, x21",
    "mov x2, x22",
    "svc #0",
    "neg w0, w0",
    "ldr w9, [x23, #8]",
    "cbz w9, 4f",
    "cmp w0, #2",
    "b.eq 3f",
    "cmp w0, #20",
    "b.eq 3f",
    "cmp w0, #13",
    "b.ne 4f",
    "mov w24, w0",
    "3:",
    "ldrb w9, [x25], #1",
    "cbnz w9, 3b",
    "b 2b",
    "4:",
    "mov w24, w0",
    "5:",
    "sub sp, sp, #16",
    "ldr w9, [x23, #4]",
    "str w9, [sp]",
    "str wzr, [sp, #4]",
    "str w24, [sp, #8]",
    "mov x8, #64",
    "ldr w0, [x23]",
    "mov x1, sp",
    "mov x2, #12",
    "svc #0",
    "9:",
    "mov x8, #94",
    "mov x0, #255",
    "svc #0",
    "udf #0",
    "7:",
    "neg w9, w0",
    "mov w10, wzr",
    "b 6f",
    "8:",
    "mov w9, wzr",
    "mov w10, w0",
    "6:",
    "sub sp, sp, #16",
    "str w9, [sp, #8]",
    "str w10, [sp, #4]",
    "ldr w9, [x23, #16]",
    "str w9, [sp]",
    "mov x8, #64",
    "ldr w0, [x23]",
    "mov x1, sp",
    "mov x2, #12",
    "svc #0",
    "b 9b",
    ".balign 8",
    "dhow_stub_end:",
    ".popsection",
);

unsafe extern "C" {
    static dhow_stub_begin: [u8; 0];
    static dhow_stub_end: [u8; 0];
}

/// The machine code of the stub.
fn code() -> &'static [u8] {
    let begin = (&raw const dhow_stub_begin).cast::<u8>();
    let length = (&raw const dhow_stub_end).addr() - begin.addr();
    // SAFETY: the two symbols enclose the assembled bytes above, in one read-only section of this program.
    unsafe { std::slice::from_raw_parts(begin, length) }
}

/// What the stub does before it executes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Nothing.
    None,
    /// It makes a process, whose parent is its own parent and which leads a session of its own, and leaves the rest to it:
    /// so the first that is seen in the process id namespace of children is a process that knows nothing. It writes
    /// `word`, the process id and 0 to the link; or `word`, 0 and an errno.
    Child {
        /// First word of the report.
        word: u32,
        /// Whether descriptor 0 becomes the controlling terminal.
        terminal: bool,
    },
}

/// What a stub is to do.
#[derive(Clone, Copy, Debug)]
pub struct Stub<'a> {
    /// Programs, in the order in which they are tried.
    pub paths: &'a [CString],
    /// Whether to go on after a path that is missing, or that may not be executed, as execvp does.
    pub search: bool,
    /// First word of the report when none can be executed.
    pub word: u32,
    /// Whether a child goes on in its place.
    pub handover: Handover,
    /// SELinux label of its file, by which the program's label is entered. The kernel gives an anonymous file that of its
    /// maker's temporary files, which is an entry point of no container's.
    pub label: Option<&'a [u8]>,
}

/// Executes the first of the paths that can be, by way of the stub; returns only when the stub itself could not be run.
///
/// When no path can be executed, the process writes twelve bytes to `link` (the word, 0, errno, in the machine's byte
/// order) and exits with [`FAILED`]. Every descriptor that is to be gone must be close-on-exec already; `link` is closed
/// by a success.
#[must_use]
pub fn execute(stub: &Stub<'_>, argv: &Vector, envp: &Vector, link: BorrowedFd<'_>) -> io::Error {
    let Stub {
        paths,
        search,
        word,
        handover,
        label,
    } = *stub;
    let stub = match sealed(&image(paths, search, link, word, handover), label) {
        Ok(stub) => stub,
        Err(errno) => return errno.into(),
    };
    if let Err(errno) = fcntl_setfd(link, FdFlags::empty()) {
        return errno.into();
    }
    let error = crate::exec::execveat(&stub, argv, envp);
    match fcntl_setfd(link, FdFlags::CLOEXEC) {
        Ok(()) => error,
        Err(errno) => errno.into(),
    }
}

/// The image as a file that nobody can change.
fn sealed(image: &[u8], label: Option<&[u8]>) -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create(c"init", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memfd is executable.
        Err(Errno::INVAL) => memfd_create(c"init", flags)?,
        made => made?,
    };
    if rustix::io::write(&file, image)? != image.len() {
        return Err(Errno::NOSPC);
    }
    if let Some(label) = label {
        rustix::fs::fsetxattr(&file, c"security.selinux", label, XattrFlags::empty())?;
    }
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// The stub with what it is to do.
fn image(paths: &[CString], search: bool, link: BorrowedFd<'_>, word: u32, handover: Handover) -> Vec<u8> {
    let (how, told) = match handover {
        Handover::None => (0, 0),
        Handover::Child { word, terminal } => (1 + u32::from(terminal), word),
    };
    let mut data = Vec::new();
    for single in [
        link.as_raw_fd().cast_unsigned(),
        word,
        u32::from(search),
        how,
        told,
    ] {
        data.extend_from_slice(&single.to_ne_bytes());
    }
    for path in paths {
        data.extend_from_slice(path.as_bytes_with_nul());
    }
    data.push(0);
    elf(code(), &data)
}

/// An ELF file with one segment, the whole of itself, readable and executable: code, and data right behind it.
pub(crate) fn elf(code: &[u8], data: &[u8]) -> Vec<u8> {
    let length = EHDR + PHDR + code.len() + data.len();
    let mut image = Vec::with_capacity(length);
    // e_ident: 64 bits, byte order of the machine (little-endian on both), version 1.
    image.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    image.extend_from_slice(&2_u16.to_ne_bytes()); // e_type: ET_EXEC
    image.extend_from_slice(&MACHINE.to_ne_bytes());
    image.extend_from_slice(&1_u32.to_ne_bytes()); // e_version
    image.extend_from_slice(&(BASE + (EHDR + PHDR) as u64).to_ne_bytes()); // e_entry
    image.extend_from_slice(&(EHDR as u64).to_ne_bytes()); // e_phoff
    image.extend_from_slice(&[0; 12]); // e_shoff, e_flags
    for half in [64_u16, 56, 1, 0, 0, 0] {
        // e_ehsize, e_phentsize, e_phnum, and no sections
        image.extend_from_slice(&half.to_ne_bytes());
    }
    image.extend_from_slice(&1_u32.to_ne_bytes()); // p_type: PT_LOAD
    image.extend_from_slice(&5_u32.to_ne_bytes()); // p_flags: PF_R | PF_X
    for double in [0, BASE, BASE, length as u64, length as u64, 0x1000] {
        // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
        image.extend_from_slice(&double.to_ne_bytes());
    }
    image.extend_from_slice(code);
    image.extend_from_slice(data);
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    /// Runs the stub the way a shell would run any program, with `link` as its descriptor.
    fn run(paths: &[&str], search: bool) -> (std::process::ExitStatus, Vec<u8>) {
        let paths: Vec<CString> = paths.iter().map(|path| CString::new(*path).unwrap()).collect();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stub = sealed(&image(&paths, search, write.as_fd(), 7, Handover::None), None).unwrap();
        fcntl_setfd(&write, FdFlags::empty()).unwrap();
        let program = format!("/proc/self/fd/{}", stub.as_raw_fd());
        let status = std::process::Command::new(program)
            .arg("-c")
            .arg("exit 3")
            .status()
            .unwrap();
        drop(write);
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(read), &mut said).unwrap();
        (status, said)
    }

    #[test]
    fn the_stub_executes_the_first_program_there_is_and_reports_the_errno_of_none() {
        let missing = "/no/such/program";
        let (status, said) = run(&[missing, "/bin/sh"], true);
        assert_eq!((status.code(), said.len()), (Some(3), 0));
        let words = |errno: i32| [7_u32.to_ne_bytes(), 0_u32.to_ne_bytes(), errno.to_ne_bytes()].concat();
        let (status, said) = run(&[missing, "/bin/sh"], false);
        assert_eq!((status.code(), said), (Some(FAILED), words(libc::ENOENT)));
        // A file that may not be executed does not end the search, but is what is told in the end.
        let (status, said) = run(&["/etc/passwd", missing], true);
        assert_eq!((status.code(), said), (Some(FAILED), words(libc::EACCES)));
        let (status, said) = run(&[], true);
        assert_eq!((status.code(), said), (Some(FAILED), words(libc::ENOENT)));
    }

    #[test]
    fn the_stub_hands_over_to_a_child_of_its_parent() {
        let paths = ["/no/such/program", "/bin/sh"].map(|path| CString::new(path).unwrap());
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let handover = Handover::Child {
            word: 9,
            terminal: false,
        };
        let stub = sealed(&image(&paths, true, write.as_fd(), 7, handover), None).unwrap();
        fcntl_setfd(&write, FdFlags::empty()).unwrap();
        let status = std::process::Command::new(format!("/proc/self/fd/{}", stub.as_raw_fd()))
            .args(["-c", "test $(cut -d' ' -f6 /proc/$$/stat) = $$ && exit 3"])
            .status()
            .unwrap();
        drop(write);
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(read), &mut said).unwrap();
        assert_eq!((status.code(), said.len()), (Some(FAILED), 12));
        let word = |at: usize| i32::from_ne_bytes(said[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(8)), (9, 0));
        // It is ours to reap, though another process made it, and it leads its session.
        let child = rustix::process::Pid::from_raw(word(4));
        let (_, status) = rustix::process::waitpid(child, rustix::process::WaitOptions::empty())
            .unwrap()
            .unwrap();
        assert_eq!(status.exit_status(), Some(3));
    }

    /// By which SELinux lets the program's label be entered (kernel `selinux_bprm_creds_for_exec`).
    #[test]
    fn the_stub_has_the_label_that_is_asked_for() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: labels are set by root");
            return;
        }
        let label = b"system_u:object_r:tmp_t:s0";
        let stub = sealed(b"stub", Some(label)).unwrap();
        let mut found = [0_u8; 64];
        let length = rustix::fs::fgetxattr(&stub, c"security.selinux", &mut found).unwrap();
        let found = &found[..length];
        assert_eq!(found.strip_suffix(b"\0").unwrap_or(found), label);
    }

    #[test]
    fn the_stub_cannot_be_changed() {
        let paths = [CString::new("/bin/true").unwrap()];
        let null = std::fs::File::open("/dev/null").unwrap();
        let stub = sealed(&image(&paths, false, null.as_fd(), 0, Handover::None), None).unwrap();
        assert_eq!(rustix::io::pwrite(&stub, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&stub, 0), Err(Errno::PERM));
    }
}
