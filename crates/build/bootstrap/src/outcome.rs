use std::collections::BTreeMap;

/// One package of the new root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Name of the binary package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, `all` included.
    pub architecture: String,
    /// Hexadecimal SHA-256 of its `.deb`.
    pub sha256: String,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Seconds since 1970: the newest date of the signed `Release` files. No file of the tree is newer.
    pub created: i64,
    /// Labels for the image's config.
    pub labels: BTreeMap<String, String>,
    /// Every package, by name.
    pub packages: Vec<Installed>,
    /// Text of the one history entry.
    pub history: String,
}
