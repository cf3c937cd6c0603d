//! Package URLs (purl-spec).

/// A package URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purl {
    kind: String,
    /// Namespace and name: `debian/openssl`.
    path: String,
    version: Option<String>,
    qualifiers: Vec<(String, String)>,
}

/// Longest one that is read, in bytes.
const LONGEST: usize = 4096;

impl Purl {
    /// Reads one; none for what is no package URL.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let rest = text.trim().strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, rest) = rest.split_once('/')?;
        // A scope of npm begins with the same letter, escaped or not.
        let at = rest.rfind('@').filter(|at| *at > 0 && !rest[*at..].contains('/'));
        let (path, version) = match at {
            Some(at) => (&rest[..at], Some(unescaped(&rest[at + 1..])?)),
            None => (rest, None),
        };
        let kind = kind.to_ascii_lowercase();
        let mut path = unescaped(path.trim_matches('/'))?;
        // Types whose names have no case (purl-spec, "Known types").
        match kind.as_str() {
            "pypi" => path = path.to_ascii_lowercase().replace('_', "-"),
            "deb" | "apk" | "oci" | "composer" | "github" | "bitbucket" => path.make_ascii_lowercase(),
            _ => {}
        }
        let qualifiers = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| Some((key.to_ascii_lowercase(), unescaped(value)?)))
            .collect::<Option<_>>()?;
        (!kind.is_empty() && !path.is_empty()).then_some(Self {
            kind,
            path,
            version,
            qualifiers,
        })
    }

    /// A qualifier, by its key in lower case.
    #[must_use]
    pub fn qualifier(&self, key: &str) -> Option<&str> {
        let found = self.qualifiers.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Its type: `deb`, `oci`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The last part of its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The version, if it has one.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Namespace and name: `debian/openssl`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One that stands percent-encoded within another URL.
    #[must_use]
    pub fn parse_escaped(text: &str) -> Option<Self> {
        Self::parse(&unescaped(text.get(..text.len().min(3 * LONGEST))?)?)
    }

    /// Whether it names this package, or a set of packages that this one is in: what it does not say fits all.
    #[must_use]
    pub fn fits(&self, package: &Self) -> bool {
        let version = self
            .version
            .as_ref()
            .is_none_or(|version| package.version.as_ref() == Some(version));
        let qualifiers = self.qualifiers.iter().all(|(key, value)| {
            // What it was fetched from, or hashes to, is nothing that an inventory knows.
            matches!(
                key.as_str(),
                "repository_url" | "download_url" | "vcs_url" | "checksum" | "upstream"
            ) || package.qualifier(key) == Some(value)
        });
        self.kind == package.kind && self.path == package.path && version && qualifiers
    }
}

/// Percent-decoded; none for what is no text then.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::Purl;

    #[test]
    fn what_a_name_leaves_out_fits_all() {
        let package = Purl::parse(
            "pkg:deb/debian/libssl3@3.0.17-1~deb12u2?arch=amd64&distro=debian-12&upstream=openssl%403.0.17-1~deb12u2",
        )
        .unwrap();
        for (name, fits) in [
            ("pkg:deb/debian/libssl3", true),
            ("pkg:deb/debian/libssl3@3.0.17-1~deb12u2", true),
            ("pkg:deb/debian/libssl3@3.0.17-1%7Edeb12u2?distro=debian-12", true),
            ("pkg:deb/debian/libssl3@3.0.18", false),
            ("pkg:deb/debian/libssl3?arch=arm64", false),
            ("pkg:deb/ubuntu/libssl3", false),
            ("pkg:deb/debian/openssl", false),
            ("pkg:apk/debian/libssl3", false),
        ] {
            assert_eq!(Purl::parse(name).unwrap().fits(&package), fits, "{name}");
        }
        let scoped = Purl::parse("pkg:npm/%40scope/name@1.0.0").unwrap();
        assert!(Purl::parse("pkg:npm/@scope/name").unwrap().fits(&scoped));
        assert_eq!(scoped.version(), Some("1.0.0"));
        for none in [
            "",
            "pkg:",
            "pkg:deb",
            "pkg:deb/",
            "openssl",
            "pkg:deb/a%zz",
            "pkg:deb/%ff",
        ] {
            assert_eq!(Purl::parse(none), None, "{none}");
        }
    }
}
