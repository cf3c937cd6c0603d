//! The OCI runtime as a library: namespaces, mounts, capabilities, seccomp, cgroup; create, start, exec, kill, delete.
