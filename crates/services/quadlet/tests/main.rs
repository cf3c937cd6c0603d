//! Files to services, as systemd and podman's users see them.

#![allow(clippy::unwrap_used, reason = "a step that cannot go on fails its test")]

mod hostile;
mod services;
