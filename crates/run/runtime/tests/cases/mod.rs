//! All tests by name.

mod binds;
mod cve;
mod exec;
mod hostile;
mod identity;
mod inherited;
mod landlock;
mod lsm;
mod mounts;
mod namespaces;
mod race;
mod seccomp;
mod share;
mod start;

/// A test's name and its function.
pub(crate) type Case = (&'static str, fn());

/// Every test of every file; a file lists its own.
pub(crate) fn all() -> Vec<Case> {
    [
        namespaces::TESTS,
        binds::TESTS,
        share::TESTS,
        start::TESTS,
        identity::TESTS,
        mounts::TESTS,
        exec::TESTS,
        hostile::TESTS,
        cve::TESTS,
        inherited::TESTS,
        race::TESTS,
        lsm::TESTS,
        landlock::TESTS,
        seccomp::TESTS,
    ]
    .concat()
}

/// Names the tests of a file.
macro_rules! tests {
    ($($name:ident)*) => {
        pub(crate) const TESTS: &[super::Case] = &[$((stringify!($name), $name as fn()),)*];
    };
}
pub(crate) use tests;
