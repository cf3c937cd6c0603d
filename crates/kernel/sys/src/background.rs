//! What a process does that stays behind after a fork.

use std::ffi::CString;

/// Ends the process at once: no destructors, no `atexit`, no flush of streams that belong to the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes no memory and does not return.
    unsafe { libc::_exit(code) }
}

/// Names the calling process for `ps`, and gives freed heap back to the kernel: what the parent allocated before the
/// fork would else count as this process' own memory for as long as it lives.
pub fn settle(name: &str) {
    if let Ok(name) = CString::new(name) {
        // A name is a convenience; prctl(PR_SET_NAME) fails only for a bad address.
        rustix::thread::set_name(&name).ok();
    }
    release();
}

/// Gives back what the process no longer uses of its heap and of its stack: for one that has done most of its work and now
/// waits.
pub fn release() {
    release_stack();
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) only releases free memory of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back the pages of the stack below the present frame: what deeper calls of the parent had dirtied.
#[inline(never)]
fn release_stack() {
    const PAGE: usize = 4096;
    /// What is kept below this frame for the calls that follow, far more than any red zone.
    const KEPT: usize = 4 * PAGE;
    const REACH: usize = 1 << 20;
    let here = 0_u8;
    let end = ((&raw const here).addr() - KEPT) & !(PAGE - 1);
    let start = end.saturating_sub(REACH);
    // SAFETY: the range lies below the stack pointer, where no live value can be; the stack grows down into pages that read
    // as zero, as fresh ones do. Parts of the range that are not mapped are skipped by the kernel (madvise(2), ENOMEM).
    unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(start),
            end - start,
            libc::MADV_DONTNEED,
        );
    }
}
