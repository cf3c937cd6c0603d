//! Image config and a create request to a runtime spec: a pure function.
//!
//! A [`Request`] says what `docker run`'s flags mean, with everything that needs the host (users, devices, paths of
//! volumes) already resolved; [`spec`] turns it into the runtime spec with docker's defaults. [`command`] and
//! [`merge_env`] are docker's rules for joining an image's config with a person's words; [`passwd`] finds who a
//! container runs as in the image's own files. Nothing here reads a file, a clock or the environment.

#![forbid(unsafe_code)]

mod capability;
mod check;
mod command;
mod mounts;
pub mod passwd;
mod request;
mod resources;
mod spec;
mod sysctl;

pub use command::{command, merge_env};
pub use passwd::Identity;
pub use request::{
    BindMount, Device, GeneratedFile, Init, Limits, MountRequest, NamespaceMode, Namespaces, Propagation,
    Request, SHM_SIZE, SeccompChoice, SelinuxLabels, Submounts, TmpfsMount, Ulimit, UserMode,
};
pub use spec::{Host, spec};

dhow_types::define_error! {
    /// A request that means nothing, or something that is not allowed.
    pub struct Error;
}
