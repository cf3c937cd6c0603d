//! The default profile on the running kernel. A filter holds for the thread that loads it, so each test loads its
//! own in a thread of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use dhow_seccomp::{Arch, compile, default_profile};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use rustix::thread::UnshareFlags;

fn filtered<T: Send + 'static>(capabilities: &[&str], work: impl FnOnce() -> T + Send + 'static) -> T {
    let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    let thread = std::thread::spawn(move || {
        let program = compile(
            &default_profile(Arch::host(), &capabilities, (6, 1)),
            Arch::host(),
        )
        .unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        assert!(
            dhow_sys::process::install_filter(&program.filter, program.flags)
                .unwrap()
                .is_none()
        );
        work()
    });
    thread.join().unwrap()
}

fn socket(family: u16) -> Result<(), Errno> {
    rustix::net::socket(AddressFamily::from_raw(family), SocketType::SEQPACKET, None).map(drop)
}

#[test]
fn the_kernel_takes_the_program_and_refuses_kernel_crypto_and_vm_sockets() {
    let (crypto, hypervisor, plain) = filtered(&[], || (socket(38), socket(40), socket(1)));
    assert_eq!(
        (crypto, hypervisor, plain),
        (Err(Errno::PERM), Err(Errno::PERM), Ok(()))
    );
}

#[test]
fn a_namespace_takes_the_capability_in_the_profile_even_for_root() {
    let unshare = || dhow_sys::namespace::unshare(UnshareFlags::NEWUTS).map_err(|error| error.kind());
    assert_eq!(filtered(&[], unshare), Err(std::io::ErrorKind::PermissionDenied));
    if rustix::process::geteuid().is_root() {
        assert_eq!(filtered(&["CAP_SYS_ADMIN"], unshare), Ok(()));
    }
}

#[test]
fn threads_still_start_under_the_filter() {
    // The C library tries clone3 first, is told ENOSYS and falls back to clone.
    assert_eq!(filtered(&[], || std::thread::spawn(|| 7).join().unwrap()), 7);
}
