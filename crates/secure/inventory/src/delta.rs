//! What one layer says.

use serde::{Deserialize, Serialize};

use crate::Package;

/// The system of an image, from `os-release(5)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// `ID`: `debian`, `alpine`; `linux` when it says none.
    pub id: String,
    /// `VERSION_ID`: `12`, `3.20.1`; empty for what has no releases, as Debian's unstable.
    #[serde(default)]
    pub version: String,
    /// `VERSION_CODENAME`: `bookworm`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub codename: String,
    /// `ID_LIKE`, the closest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub like: Vec<String>,
    /// `PRETTY_NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pretty: String,
}

/// What one file says: of two layers that have a file at this path, the upper one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Path from the root, without `/` at its beginning. Bytes that are no UTF-8 are written `%XX`.
    pub path: String,
    /// The packages; none when the file says none any more, which hides what a lower layer had here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// Paths that belong to packages of the system, of those that a scanner would look at by themselves, each with the name of
    /// the package.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owns: Vec<(String, String)>,
    /// What the file says of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
}

/// What one layer says, for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Version of this form: one that is not [`Delta::FORM`] is made again.
    pub form: u32,
    /// What its files say, by path.
    #[serde(default)]
    pub records: Vec<Record>,
    /// Paths that it deletes, with all below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<String>,
    /// Directories of which it hides what lower layers have in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opaque: Vec<String>,
    /// What could not be read, and why: the inventory may lack something there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Delta {
    /// The form that this program makes. It grows when a later program would find more in the same layer.
    pub const FORM: u32 = 2;

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and lists only: there is nothing that cannot be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The stored form, read back; none when it is damaged or of another form, and must be made again.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let delta: Self = serde_json::from_slice(bytes).ok()?;
        (delta.form == Self::FORM).then_some(delta)
    }
}
