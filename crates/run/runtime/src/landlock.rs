//! Landlock for a container's processes, where its spec asks for it.
//!
//! The runtime spec 1.3 has no field for it, so it is asked for by the annotation `org.dhow.landlock`, a document whose
//! words are those of landlock(7) in small letters:
//!
//! ```json
//! {
//!   "handledAccessFS": ["execute", "write_file", "read_file", "read_dir"],
//!   "handledAccessNet": ["bind_tcp", "connect_tcp"],
//!   "scoped": ["abstract_unix_socket", "signal"],
//!   "pathBeneath": [{ "allowedAccess": ["execute", "read_file", "read_dir"], "paths": ["/usr", "/lib"] }],
//!   "netPort": [{ "allowedAccess": ["connect_tcp"], "ports": [443] }]
//! }
//! ```
//!
//! What is handled is denied, but for what a rule allows. Paths are the container's; rights that only directories have are
//! left out for a path that is a file. The ruleset is applied after no_new_privs, which it needs, and before the filter of
//! system calls; `startContainer` hooks and processes of exec are under it too. A right that the kernel does not know is an
//! error, never left out.

use std::ffi::CString;
use std::os::fd::AsFd as _;

use dhow_oci::Labels;
use dhow_sys::landlock::{Handled, Ruleset};
use dhow_types::ErrorKind;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use serde::Deserialize;

use crate::Error;
use crate::report::{At, Failure, Step};

/// The annotation that asks for it.
pub const ANNOTATION: &str = "org.dhow.landlock";

/// A right: its word, and the version of the interface that brought it.
type Right = (&'static str, u32);

/// `LANDLOCK_ACCESS_FS_*` in the order of their bits.
const FILES: [Right; 16] = [
    ("execute", 1),
    ("write_file", 1),
    ("read_file", 1),
    ("read_dir", 1),
    ("remove_dir", 1),
    ("remove_file", 1),
    ("make_char", 1),
    ("make_dir", 1),
    ("make_reg", 1),
    ("make_sock", 1),
    ("make_fifo", 1),
    ("make_block", 1),
    ("make_sym", 1),
    ("refer", 2),
    ("truncate", 3),
    ("ioctl_dev", 5),
];
/// Those of them that a file can have: execute, write_file, read_file, truncate, ioctl_dev.
const OF_A_FILE: u64 = 0b111 | 1 << 14 | 1 << 15;
/// `LANDLOCK_ACCESS_NET_*`.
const NETWORK: [Right; 2] = [("bind_tcp", 4), ("connect_tcp", 4)];
/// `LANDLOCK_SCOPE_*`.
const SCOPES: [Right; 2] = [("abstract_unix_socket", 6), ("signal", 6)];

/// The annotation's document.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Document {
    #[serde(rename = "handledAccessFS")]
    handled_access_fs: Vec<String>,
    handled_access_net: Vec<String>,
    scoped: Vec<String>,
    path_beneath: Vec<PathRule>,
    net_port: Vec<PortRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathRule {
    allowed_access: Vec<String>,
    paths: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortRule {
    allowed_access: Vec<String>,
    ports: Vec<u16>,
}

/// A compiled ruleset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Landlock {
    handled: Handled,
    paths: Vec<(CString, u64)>,
    ports: Vec<(u16, u64)>,
}

impl Landlock {
    /// The ruleset of a container's annotations, if it has one and this kernel can hold it.
    ///
    /// # Errors
    /// `InvalidArgument` for a document that makes no sense, `Unsupported` for what the kernel does not know.
    pub(crate) fn prepare(annotations: &Labels, no_new_privileges: bool) -> Result<Option<Box<Self>>, Error> {
        let Some(text) = annotations.get(ANNOTATION) else {
            return Ok(None);
        };
        let (landlock, needed) = Self::parse(text)?;
        if !no_new_privileges {
            return Err(wrong("it needs process.noNewPrivileges"));
        }
        let version = dhow_sys::landlock::abi().map_err(|error| {
            Error::because(
                ErrorKind::Unsupported,
                format!("{ANNOTATION}: this kernel has no Landlock"),
                error,
            )
            .with_hint("boot a Linux of at least 5.13 with lsm=landlock,..., or leave the annotation out")
        })?;
        let (word, since) = needed;
        if version < since {
            let message = format!(
                "{ANNOTATION}: {word:?} needs version {since} of Landlock, this kernel has {version}"
            );
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("leave the right out, or boot a newer kernel"));
        }
        Ok(Some(Box::new(landlock)))
    }

    /// The document compiled, and the newest right in it.
    fn parse(text: &str) -> Result<(Self, Right), Error> {
        let document: Document = serde_json::from_str(text).map_err(|error| {
            Error::because(
                ErrorKind::InvalidArgument,
                format!("{ANNOTATION} is not understood"),
                error,
            )
        })?;
        let mut newest = ("", 0);
        let mut bits = |words: &[String], known: &[Right]| mask(words, known, &mut newest);
        let handled = Handled {
            files: bits(&document.handled_access_fs, &FILES)?,
            network: bits(&document.handled_access_net, &NETWORK)?,
            scoped: bits(&document.scoped, &SCOPES)?,
        };
        if handled == Handled::default() {
            return Err(wrong("it handles nothing"));
        }
        let mut paths = Vec::new();
        for rule in &document.path_beneath {
            let access = allowed(bits(&rule.allowed_access, &FILES)?, handled.files)?;
            for path in &rule.paths {
                if !path.starts_with('/') {
                    return Err(wrong(&format!("path {path:?} is not absolute")));
                }
                paths.push((crate::plan::text(path, "path of a Landlock rule")?, access));
            }
        }
        let mut ports = Vec::new();
        for rule in &document.net_port {
            let access = allowed(bits(&rule.allowed_access, &NETWORK)?, handled.network)?;
            ports.extend(rule.ports.iter().map(|port| (*port, access)));
        }
        Ok((
            Self {
                handled,
                paths,
                ports,
            },
            newest,
        ))
    }

    /// Gives the rights up, for good.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        let ruleset = Ruleset::new(&self.handled).at(Step::Landlock)?;
        // No link of procfs: the descriptors of the host are still open.
        let resolve = ResolveFlags::NO_MAGICLINKS;
        for (index, (path, access)) in self.paths.iter().enumerate() {
            let opened = openat2(
                CWD,
                path.as_c_str(),
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            );
            let opened = opened.at_index(Step::LandlockPath, index)?;
            let stat = fstat(&opened).at_index(Step::LandlockPath, index)?;
            let access = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => *access,
                _ => access & OF_A_FILE,
            };
            if access != 0 {
                ruleset
                    .allow_beneath(access, opened.as_fd())
                    .at_index(Step::LandlockPath, index)?;
            }
        }
        for (port, access) in &self.ports {
            ruleset.allow_port(*access, *port).at(Step::Landlock)?;
        }
        ruleset.restrict_self().at(Step::Landlock)
    }

    /// The path of a rule, for a failure.
    pub(crate) fn path(&self, index: usize) -> Option<String> {
        self.paths
            .get(index)
            .map(|(path, _)| path.to_string_lossy().into_owned())
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{ANNOTATION}: {what}"))
}

/// Bits of the words, each at its place among those known.
fn mask(words: &[String], known: &[Right], newest: &mut Right) -> Result<u64, Error> {
    words.iter().try_fold(0, |mask, word| {
        let place = known.iter().position(|(name, _)| name == word);
        let place = place.ok_or_else(|| wrong(&format!("unknown right {word:?}")))?;
        if let Some(right) = known.get(place).filter(|(_, since)| *since > newest.1) {
            *newest = *right;
        }
        Ok(mask | 1 << place)
    })
}

/// The kernel takes no rule for what is not handled: it is allowed anyway, and whoever wrote it meant something else.
fn allowed(access: u64, handled: u64) -> Result<u64, Error> {
    match access {
        0 => Err(wrong("a rule allows nothing")),
        access if access & !handled != 0 => Err(wrong("a rule allows what is not handled")),
        access => Ok(access),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Landlock, Right), Error> {
        Landlock::parse(text)
    }

    #[test]
    fn a_document_is_compiled_to_the_kernels_bits() {
        let text = r#"{"handledAccessFS": ["execute", "write_file", "refer"], "handledAccessNet": ["connect_tcp"],
            "scoped": ["signal"], "pathBeneath": [{"allowedAccess": ["execute"], "paths": ["/usr", "/bin"]}],
            "netPort": [{"allowedAccess": ["connect_tcp"], "ports": [443, 80]}]}"#;
        let (landlock, newest) = parse(text).unwrap();
        let handled = Handled {
            files: 1 | 2 | 1 << 13,
            network: 2,
            scoped: 2,
        };
        assert_eq!(landlock.handled, handled);
        assert_eq!(landlock.paths, [(c"/usr".to_owned(), 1), (c"/bin".to_owned(), 1)]);
        assert_eq!(landlock.ports, [(443, 2), (80, 2)]);
        assert_eq!(newest, ("signal", 6));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, why) in [
            ("", "not understood"),
            ("{}", "handles nothing"),
            (r#"{"handledAccessFS": ["read"]}"#, "unknown right \"read\""),
            (r#"{"handledAccessFs": ["execute"]}"#, "not understood"),
            (
                r#"{"handledAccessFS": ["execute"], "pathBeneath": [{"allowedAccess": ["read_file"], "paths": ["/"]}]}"#,
                "not handled",
            ),
            (
                r#"{"handledAccessFS": ["execute"], "pathBeneath": [{"allowedAccess": [], "paths": ["/"]}]}"#,
                "allows nothing",
            ),
            (
                r#"{"handledAccessFS": ["execute"], "pathBeneath": [{"allowedAccess": ["execute"], "paths": ["bin"]}]}"#,
                "not absolute",
            ),
            (
                r#"{"scoped": ["signal"], "netPort": [{"allowedAccess": ["bind_tcp"], "ports": [1]}]}"#,
                "not handled",
            ),
            (
                r#"{"handledAccessNet": ["bind_tcp"], "netPort": [{"allowedAccess": ["bind_tcp"], "ports": [65536]}]}"#,
                "not understood",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn it_is_asked_for_by_an_annotation_and_needs_no_new_privs() {
        let annotation = |text: &str| Labels::from_iter([(ANNOTATION.to_owned(), text.to_owned())]);
        assert!(Landlock::prepare(&Labels::default(), false).unwrap().is_none());
        let error = Landlock::prepare(&annotation(r#"{"scoped": ["signal"]}"#), false).unwrap_err();
        assert!(error.to_string().contains("noNewPrivileges"), "{error}");
    }
}
