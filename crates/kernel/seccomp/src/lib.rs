//! Seccomp profiles compiled to BPF, without libseccomp.
