//! Runs things on this host: the one place that wires stores, runtime, network and builder together.
//!
//! An [`Engine`] is a view of one root folder. It holds no state that is not on disk, so any number of processes
//! may have one at once, and a command that needs no images opens no database. Each use case is a module; each
//! mutation reserves, records its intent, acts and records the result, so that a kill at any point leaves
//! something that the next command completes or undoes.
//!
//! ```text
//! ROOT/containers/<id>/config.json   what was asked, never changed
//!                     /state.json    what became of it, replaced by rename by whoever holds the lock
//!                     /hosts, resolv.conf, hostname, log.json
//! ROOT/names/<name>                  a link to the id: the reservation of the name
//! ROOT/mcs/<c1>,<c2>                 the id, made by O_EXCL: its pair of SELinux categories
//! ROOT/pods/<id>/pod.json, pod-names/<name>   as containers and their names
//! ROOT/volumes/<name>/{volume.json,_data/}
//! ROOT/events/log                    what happened: see `event`
//! RUN/step-<id>/                     a step of a build; locked while its process lives
//! RUN/<id>/lock                      held by the monitor while it lives, or by a command that changes the container
//!         /attach.sock               the monitor's socket
//! ```

#![forbid(unsafe_code)]

mod advisory_share;
mod algebra;
mod apart;
mod assessment;
mod boot;
mod bootstrap;
mod build;
mod build_cache;
mod cache_artifact;
mod change;
mod cni;
mod confine;
mod confined;
mod connection;
pub mod container;
mod context;
mod difference;
mod doctor;
mod engine;
mod event;
mod git;
mod image;
mod inventory;
mod leftover;
mod lifecycle;
mod lineage;
mod lying;
mod manifest;
mod mounted;
mod names;
mod network;
mod origin;
mod output;
mod patch;
mod pod;
mod policy;
mod provenance;
mod remote;
pub mod rootless;
mod secret;
mod selinux;
mod signature;
mod support;
mod system;
mod volume;
mod volume_options;
mod vulnerability;
mod watch;
mod worker;

pub use advisory_share::{Believe, Taken};
pub use algebra::{Appended, Rebased, SetImage, SquashFrom};
pub use assessment::{Assessment, Clearer, Suppressed};
pub use boot::Booted;
pub use bootstrap::BootstrapRequest;
pub use build::{BuildAround, BuildFailure};
pub use build_cache::{CacheEntry, CacheKind, CachePrune};
pub use cache_artifact::{CacheExport, CachePlace};
pub use cni::CniFolders;

pub use confine::{DEFAULT_PROFILE, profile_of};
pub use context::{ContextAbout, ContextFolder, GitContext, is_context};
pub use difference::Difference;
pub use doctor::{Check, Verdict};
pub use engine::{Engine, Settings};
pub use event::{EVENT_FILTERS, Event, EventFilter, EventKind, EventRequest};
pub use lifecycle::{Expired, Retired, end_of, today};
pub use network::{NetworkChoice, NetworkView, Opening};
pub use origin::Origin;
pub use patch::{
    Change, Fixed, GivenRecipe, How, Mend, PatchPlan, PatchTarget, PatchWays, Patched, Rebuild, Unmendable,
};
pub use pod::{ExitPolicy, Pod, PodRequest, PodShare, is_infra, shares_network};
pub use policy::{PolicyFiles, PolicyTest};
pub use provenance::{About, Bills, Provenance};
pub use secret::{LARGEST_SECRET, Secret};
pub use selinux::Relabel;
pub use signature::{Signatures, Verification};
pub use support::Support;
pub use system::{Info, SystemCheck, SystemUsage};
pub use volume::{Volume, VolumeRequest};

pub use dhow_build::{
    BuildObserver, Built, Checked as BuildChecked, Entitlements, Event as BuildEvent, Failed,
    Filter as BuildFilter, Ignore, Limit as BuildLimit, Material, MountSource as BuildMountSource,
    NamedContext, Network as BuildNetwork, Outline as BuildOutline, Request as BuildRequest,
    Sandbox as BuildSandbox, Secret as BuildSecret, StepMount as BuildMount, Stream as BuildStream,
    Target as BuildTarget, Wanted as BuildWanted, Warning as BuildWarning, targets as build_targets,
};
pub use dhow_vuln::Ecosystem;
pub use inventory::Contents;
pub use vulnerability::{Advisories, Scan, Subject as Vulnerability, Vulnerable};
pub use watch::{Changed, Findings};

/// Advisories, as far as a person sees them.
pub mod vuln {
    pub use dhow_vuln::vex::Status as VexStatus;
    pub use dhow_vuln::{Advisory, Exploit, Facts, Feed, Finding, Imported, Level, Severity, State};
}

/// Inventories, and documents of them.
pub mod sbom {
    pub use dhow_inventory::{
        Installed, Inventory, Kind, Os, Package, Subject, cyclonedx, read_sbom, spdx2, spdx3,
    };
}

/// Until when images are to be used.
pub mod life {
    pub use dhow_lifecycle::{Date, Release, Standing, Statement, Table};
}

/// Signatures: keys and certificates, whom to trust, what was verified.
pub mod signing {
    pub use crate::signature::{SignAs, SignRequest};
    pub use dhow_sign::notation::Envelope;
    pub use dhow_sign::{
        Certificate, Form, Identity, Pattern, PrivateKey, PublicKey, Signer, Statement, Trust, TrustedRoot,
        Verified, keys, predicate_type,
    };
}

/// Policies: what they ask, and what they say.
pub mod policies {
    pub use crate::policy::InForce;
    pub use dhow_policy::{
        Action, Containers, Decision, Exception, Facts, Known, LifecycleState, Point, Policy, Rule, Severity,
        Verdict,
    };
}

/// Who derives from whom.
pub mod tree {
    pub use crate::lineage::RemoteLineage;
    pub use dhow_lineage::{Graph, Node};
}
pub use mounted::MountedImage;

pub use dhow_bundle::{Init, Limits, NamespaceMode, Propagation, SeccompChoice, Submounts, Ulimit};
pub use dhow_image::{
    Annotate, AnnotationPlace, Annotations, ArchiveForm, Attestation, Check as CheckStore, Copied, Copy,
    Finding, HistoryLine, Image, Import, Imported, LabelFilter, Loaded, Location, LyingImage, ManifestList,
    Packing, Prune, Pruned, Pull, Pulled, PushForm, Pushed, Removal, Removed, Summary, Variant,
};
pub use dhow_layer::{Backend, Compression};

/// Archives, for what a person keeps in one.
pub mod tar {
    pub use dhow_layer::tar::{Reader, Writer};
    pub use dhow_layer::{Entry, EntryKind, Error};
}
pub use dhow_meta::ImageRecord;
pub use dhow_monitor::{
    Health, HealthLog, HealthStatus, NEVER, OnUnhealthy, Record, RestartPolicy, Stream, format_time, frame,
};
pub use dhow_network::{
    CreateNetwork, Endpoint, Network, PortMapping, Protocol, PublishedPort, SubnetRequest,
};
pub use dhow_oci::Healthcheck;
pub use dhow_oci::runtime::IdMapping;
pub use dhow_seccomp::Profile as SeccompProfile;
pub use dhow_snapshot::Form as SnapshotForm;
pub use dhow_sys::fd::close_inherited_but;
pub use dhow_sys::signal::Signals;
pub use dhow_transport::{
    CredentialProgram, Found, GivenLogin, Proxies, Registries, RegistryFiles, Settings as TransportSettings,
};

dhow_types::define_error! {
    /// What can go wrong on this host.
    pub struct Error;
}
