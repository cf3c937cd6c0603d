//! Inventories as documents that others read, and the other way round.

mod cyclonedx;
mod read;
mod spdx;

pub use cyclonedx::cyclonedx;
pub use read::read_sbom;
pub use spdx::{spdx2, spdx3};

use dhow_types::Digest;

use crate::{Installed, Inventory};

/// What a document is of.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name: of an image the reference, of a directory the path.
    pub name: String,
    /// The digest of an image's manifest or config.
    pub digest: Option<Digest>,
    /// Whether it is an image.
    pub image: bool,
    /// The diff ids of its layers, the lowest first.
    pub layers: Vec<String>,
    /// The program that made the document, and its version.
    pub tool: (String, String),
    /// When it was made (RFC 3339, UTC).
    pub created: String,
}

impl Subject {
    /// A number that is the same for the same content (RFC 9562, version 8), so that two documents of one thing are equal.
    fn uuid(&self, inventory: &Inventory) -> String {
        let mut text = format!("{}\n{:?}\n{}\n", self.name, self.digest, self.created);
        for installed in &inventory.packages {
            text.push_str(&format!("{:?}\n", installed.package));
        }
        let hex = Digest::of(text.as_bytes()).hex();
        format!(
            "{}-{}-8{}-a{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[13..16],
            &hex[17..20],
            &hex[20..32]
        )
    }

    /// The diff id of the layer that brought a package.
    fn layer(&self, installed: &Installed) -> Option<&str> {
        self.layers.get(installed.layer).map(String::as_str)
    }
}

/// Whether a licence is an expression of SPDX identifiers, by its form (SPDX 2.3, annex D): words that identifiers are made
/// of, with `AND`, `OR`, `WITH` between them. What authors write in other words is no expression.
fn is_expression(licence: &str) -> bool {
    let spaced = licence.replace('(', " ( ").replace(')', " ) ");
    let mut want_name = true;
    let mut depth = 0_i32;
    for word in spaced.split_ascii_whitespace() {
        match word {
            "(" if want_name => depth += 1,
            ")" if !want_name && depth > 0 => depth -= 1,
            "AND" | "OR" | "WITH" if !want_name => want_name = true,
            word if want_name => {
                let name = word.strip_suffix('+').unwrap_or(word);
                let known = KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name))
                    || name.starts_with("LicenseRef-");
                if !known
                    || !name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
                {
                    return false;
                }
                want_name = false;
            }
            _ => return false,
        }
    }
    depth == 0 && !want_name
}

/// Identifiers of the SPDX licence list that packages commonly have. Another one is written as its author's words, which is
/// less exact and never wrong.
const KNOWN: &[&str] = &[
    "0BSD",
    "AFL-2.1",
    "AFL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "AGPL-3.0",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-1.0-Perl",
    "Artistic-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "CDDL-1.1",
    "EPL-1.0",
    "EPL-2.0",
    "GFDL-1.3-or-later",
    "GPL-1.0-or-later",
    "GPL-2.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "LGPL-2.0",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "LLVM-exception",
    "LicenseRef-scancode-public-domain",
    "Libpng",
    "MIT",
    "MIT-0",
    "MPL-1.1",
    "MPL-2.0",
    "NCSA",
    "OFL-1.1",
    "OpenSSL",
    "PHP-3.01",
    "PSF-2.0",
    "PostgreSQL",
    "Python-2.0",
    "Ruby",
    "SSPL-1.0",
    "TCL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "ZPL-2.1",
    "Zlib",
    "bzip2-1.0.6",
    "curl",
    "Classpath-exception-2.0",
    "GCC-exception-3.1",
    "Linux-syscall-note",
];
