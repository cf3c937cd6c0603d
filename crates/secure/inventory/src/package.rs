//! One package.

use serde::{Deserialize, Serialize};

/// Who installs packages of this kind; names are the types of package URLs (purl-spec, "Known types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Debian's dpkg.
    Deb,
    /// Alpine's apk.
    Apk,
    /// Red Hat's rpm.
    Rpm,
    /// Arch's pacman.
    Alpm,
    /// Python wheels and eggs.
    Pypi,
    /// Node packages.
    Npm,
    /// Ruby gems.
    Gem,
    /// Rust crates that a program says it was made of (cargo-auditable).
    Cargo,
    /// Go modules that a program says it was made of.
    Golang,
    /// Java archives.
    Maven,
    /// PHP packages.
    Composer,
    /// .NET packages.
    Nuget,
    /// Programs that no package manager brought, told by what they say of themselves.
    Generic,
}

impl Kind {
    /// Its name in a package URL.
    #[must_use]
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Alpm => "alpm",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
            Self::Gem => "gem",
            Self::Cargo => "cargo",
            Self::Golang => "golang",
            Self::Maven => "maven",
            Self::Composer => "composer",
            Self::Nuget => "nuget",
            Self::Generic => "generic",
        }
    }

    /// Whether the distribution's own package manager installs it.
    #[must_use]
    pub fn is_system(self) -> bool {
        matches!(self, Self::Deb | Self::Apk | Self::Rpm | Self::Alpm)
    }
}

/// The source package that a package was built from: what advisories of distributions name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its version; that of the package where nothing else is said.
    pub version: String,
}

/// A package as its manager recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Who installs it.
    pub kind: Kind,
    /// Its name; of Maven `group:artifact`, of scoped Node packages `@scope/name`.
    pub name: String,
    /// Its version, in the writing of its kind.
    pub version: String,
    /// The architecture, in the words of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The source package, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Licences as the package says them: an SPDX expression or the words of its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

impl Package {
    /// A package of which only this is known.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            version: version.into(),
            arch: None,
            source: None,
            licence: None,
        }
    }

    /// Name and version of what it was built from.
    #[must_use]
    pub fn source(&self) -> (&str, &str) {
        match &self.source {
            Some(source) => (&source.name, &source.version),
            None => (&self.name, &self.version),
        }
    }

    /// Its package URL (purl-spec), with the distribution where that is known (`debian`, `12`).
    #[must_use]
    pub fn purl(&self, os: Option<&crate::Os>) -> String {
        let mut purl = format!("pkg:{}/", self.kind.purl_type());
        let mut qualifiers = Vec::new();
        match self.kind {
            Kind::Deb | Kind::Apk | Kind::Rpm | Kind::Alpm => {
                if let Some(os) = os {
                    escape(&os.id, &mut purl);
                    purl.push('/');
                }
                escape(&self.name, &mut purl);
            }
            Kind::Maven => {
                for (at, part) in self.name.splitn(2, ':').enumerate() {
                    if at > 0 {
                        purl.push('/');
                    }
                    escape(part, &mut purl);
                }
            }
            // The type says that names are compared without case, and `_` is `-`.
            Kind::Pypi => escape(&self.name.to_ascii_lowercase().replace('_', "-"), &mut purl),
            _ => {
                for (at, part) in self.name.split('/').enumerate() {
                    if at > 0 {
                        purl.push('/');
                    }
                    escape(part, &mut purl);
                }
            }
        }
        if !self.version.is_empty() {
            purl.push('@');
            escape(&self.version, &mut purl);
        }
        if self.kind.is_system() {
            if let Some(arch) = &self.arch {
                qualifiers.push(("arch", arch.clone()));
            }
            if let Some(os) = os {
                let version = if os.version.is_empty() {
                    "unstable"
                } else {
                    &os.version
                };
                qualifiers.push(("distro", format!("{}-{version}", os.id)));
            }
            if let Some(source) = &self.source {
                qualifiers.push(("upstream", format!("{}@{}", source.name, source.version)));
            }
        }
        for (at, (key, value)) in qualifiers.iter().enumerate() {
            purl.push(if at == 0 { '?' } else { '&' });
            purl.push_str(key);
            purl.push('=');
            escape(value, &mut purl);
        }
        purl
    }
}

/// Percent-encoding of the purl specification, "Character encoding".
fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}
