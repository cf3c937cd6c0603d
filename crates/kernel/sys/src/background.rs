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
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) only releases free memory of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}
