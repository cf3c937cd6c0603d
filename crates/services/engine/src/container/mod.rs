//! Containers: their records and every verb on them.

mod changes;
mod connect;
mod copy;
mod copy_up;
mod create;
mod exec;
mod export;
mod extract;
mod files;
mod folder;
mod life;
mod logs;
mod record;
mod remove;
mod start;
mod stats;
mod stop;
mod update;
mod wait;

pub use changes::{Change, CommitRequest};
pub use connect::ConnectRequest;
pub use copy::{CopyPlace, CopyRequest};
pub(crate) use create::random_bytes;
pub use create::{CreateContainer, Created, MountSpec, NamespaceChoice, PortSpec, SecurityOption};
pub(crate) use exec::identity;
pub use exec::{ExecRequest, ExecStarted};
pub(crate) use export::write as write_tree;
pub(crate) use extract::{restore_tree, unpack_tree};
pub use folder::{Container, Containers, log_file, monitor_of};
pub(crate) use folder::{make_folder, process_start, read_json, write_file, write_json};
pub use logs::LogRequest;
pub use record::{Attachment, Config, LogConfig, MountRecord, NetworkMode, State, Status};
pub use start::Started;
pub use stats::Sample;
pub use stop::Stopped;
pub use update::UpdateRequest;
