//! `bpf(2)`, as far as device filters of control groups need it: load, attach, query, detach.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// Most programs that [`device_filters`] reports: the kernel's own limit for one group (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// Head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes a shorter attribute than its own.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn call<T>(command: libc::c_int, attribute: &mut T, what: &str) -> io::Result<libc::c_long> {
    let size = size_of::<T>();
    // SAFETY: `attribute` is a live, exclusively borrowed, fully initialised repr(C) value of `size` bytes, and every
    // pointer inside it refers to memory that the caller keeps alive over this call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("bpf({what}): {error}")));
    }
    Ok(result)
}

fn descriptor(raw: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(raw).map_err(|_| io::Error::other("bpf() gave no file descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us (always close-on-exec), so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Loads a device filter: eBPF instructions in the machine's byte order, 8 bytes each.
///
/// # Errors
/// The kernel's; its verifier's words are not kept.
pub fn load_device_filter(program: &[u64]) -> io::Result<OwnedFd> {
    let count = u32::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "program too long"))?;
    let mut attribute = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: count,
        insns: program.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    descriptor(call(PROG_LOAD, &mut attribute, "BPF_PROG_LOAD, cgroup_device")?)
}

/// Attaches a device filter to a v2 group, beside those that are there.
///
/// # Errors
/// The kernel's.
pub fn attach_device_filter(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = Attach {
        target_fd: raw(group),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    call(PROG_ATTACH, &mut attribute, "BPF_PROG_ATTACH, cgroup_device").map(drop)
}

/// Takes a device filter off a v2 group.
///
/// # Errors
/// The kernel's.
pub fn detach_device_filter(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = Attach {
        target_fd: raw(group),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    call(PROG_DETACH, &mut attribute, "BPF_PROG_DETACH, cgroup_device").map(drop)
}

/// The device filters that are attached to a v2 group itself.
///
/// # Errors
/// The kernel's.
pub fn device_filters(group: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attribute = Query {
        target_fd: raw(group),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        prog_cnt: 64,
        padding: 0,
    };
    call(PROG_QUERY, &mut attribute, "BPF_PROG_QUERY, cgroup_device")?;
    let count = usize::try_from(attribute.prog_cnt)
        .unwrap_or(MAX_PROGRAMS)
        .min(MAX_PROGRAMS);
    ids.iter()
        .take(count)
        .map(|id| {
            let mut attribute = ById {
                id: *id,
                next_id: 0,
                open_flags: 0,
            };
            descriptor(call(PROG_GET_FD_BY_ID, &mut attribute, "BPF_PROG_GET_FD_BY_ID")?)
        })
        .collect()
}
