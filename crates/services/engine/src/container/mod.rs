//! Containers: their records and every verb on them.

mod changes;
mod conflicts;
mod connect;
mod copy;
mod copy_up;
mod create;
mod defaults;
mod exec;
mod export;
mod extract;
mod extras;
mod files;
mod folder;
mod forward;
mod implied;
mod life;
mod logs;
mod name;
mod own_root;
mod record;
mod remove;
mod secrets;
mod shared;
mod start;
mod stats;
mod stop;
mod update;
mod volumes_from;
mod wait;

pub use changes::{Change, CommitRequest};
pub use connect::ConnectRequest;
pub use copy::{CopyPlace, CopyRequest};
pub use create::{
    CreateContainer, Created, ImageVolumes, MountSpec, NamespaceChoice, PortSpec, SecurityOption,
};
pub(crate) use exec::identity;
pub use exec::{ExecRequest, ExecStarted};
pub(crate) use export::write as write_tree;
pub(crate) use extract::{restore_tree, unpack_tree};
pub use extras::{Extras, StartupHealth};
pub use folder::{Container, Containers, log_file, monitor_of};
pub(crate) use folder::{make_folder, process_start, read_json, write_file, write_json};
pub use logs::LogRequest;
pub(crate) use name::random_bytes;
pub use own_root::OwnRoot;
pub use record::{Attachment, Config, DeviceRecord, LogConfig, MountRecord, NetworkMode, State, Status};
pub use secrets::{SecretSpec, SecretUse};
pub use shared::{IpcMode, Shared, SharedKind};
pub use start::Started;
pub use stats::Sample;
pub use stop::Stopped;
pub use update::UpdateRequest;
