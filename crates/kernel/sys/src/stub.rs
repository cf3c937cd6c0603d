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
// with descriptor 0 as the controlling terminal, 3 as the first process), first word of the report of that (each 32 bits), then null-terminated
// paths up to an empty one. Calls: fcntl(link, F_SETFD, FD_CLOEXEC); to hand over, clone(CLONE_PARENT | SIGCHLD), in the
// child setsid and ioctl(0, TIOCSCTTY, 0), in the parent write(link, {word, pid, 0}, 12) and exit_group; execve for each
// path, write(link, {word, 0, errno}, 12), exit_group(255). The first process's calls stand beside its code.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(include_str!("stub/x86_64.s"));

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(include_str!("stub/aarch64.s"));

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
    /// It stays, as the first process of a container whose program is its child: it reaps what others leave behind, sends
    /// the signals that it gets on to the program, and ends with its exit status, or with 128 and the number of the
    /// signal that ended it. The program leads a process group of its own, the foreground one of the terminal at
    /// descriptor 0 if there is one: keys reach it once. Its first argument is how the first process is called, its second is
    /// for the eye (`--`), and the program's own begin with the third.
    Init {
        /// First word of the report when there can be no first process; then follow 0 and an errno.
        word: u32,
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
        Handover::Init { word } => (3, word),
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

    /// The first process with a shell's script as its program; a report, if there is one.
    fn init(program: &str, script: &str) -> (std::process::Child, std::fs::File) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let paths = [CString::new(program).unwrap()];
        let stub = image(&paths, false, write.as_fd(), 7, Handover::Init { word: 9 });
        let stub = sealed(&stub, None).unwrap();
        fcntl_setfd(&write, FdFlags::empty()).unwrap();
        let child = std::process::Command::new(format!("/proc/self/fd/{}", stub.as_raw_fd()))
            .args(["--", "sh", "-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        (child, std::fs::File::from(read))
    }

    #[test]
    fn the_first_process_ends_as_its_program_does() {
        for (script, status) in [
            ("exit 3", 3),
            ("kill -9 $$", 128 + 9),
            ("kill -TERM $$", 128 + 15),
            // It is a group of its own, with the mask that the first process was started with: asked of itself, since a shell that
            // waits for another blocks signals for moments.
            ("test $(cut -d' ' -f5 /proc/$$/stat) = $$", 0),
            ("exec grep -q '^SigBlk:.0000000000000000' /proc/self/status", 0),
        ] {
            let (mut child, mut told) = init("/bin/sh", script);
            assert_eq!(child.wait().unwrap().code(), Some(status), "{script}");
            let mut said = Vec::new();
            std::io::Read::read_to_end(&mut told, &mut said).unwrap();
            assert!(said.is_empty(), "{script}");
        }
        let (mut child, mut told) = init("/no/such/program", "");
        assert_eq!(child.wait().unwrap().code(), Some(FAILED));
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut told, &mut said).unwrap();
        assert_eq!(
            said,
            [7_u32.to_ne_bytes(), [0; 4], libc::ENOENT.to_ne_bytes()].concat()
        );
    }

    #[test]
    fn the_first_process_reaps_orphans_and_sends_signals_on() {
        // As a subreaper it gets orphans without being the first process of a namespace, too.
        let script = "trap 'echo got; exit 4' 37
            (sleep 0.01 & echo $!)
            echo ready
            while :; do sleep 0.01; done";
        let (mut child, told) = init("/bin/sh", script);
        drop(told);
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut output, &mut line).unwrap();
            line.trim_end().to_owned()
        };
        let (orphan, ready) = (line(), line());
        assert_eq!(ready, "ready");
        let name = std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
        assert!(name.starts_with("/proc/self/fd/"), "{name}");
        let begin = std::time::Instant::now();
        while std::path::Path::new(&format!("/proc/{orphan}")).exists() {
            assert!(begin.elapsed().as_secs() < 20, "nobody reaped {orphan}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let pid = rustix::process::Pid::from_child(&child);
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        crate::process::send_signal(handle.as_fd(), 37).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(4));
        assert_eq!(line(), "got");
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
