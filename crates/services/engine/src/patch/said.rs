//! What is said of a patched image beside it: where it comes from (SLSA's provenance 1), what was mended in it (OpenVEX 0.2.0), and what was
//! tried before it took the old one's place (in-toto's test result 0.1).

use std::collections::BTreeSet;
use std::time::SystemTime;

use dhow_image::Image;
use dhow_inventory::{Installed, Inventory, Kind};
use dhow_reference::Reference;
use dhow_sign::PrivateKey;
use dhow_types::{Digest, ErrorKind, Silent};
use serde_json::{Value, json};

use super::rebuild::Recipe;
use super::{How, PatchPlan, Patched};
use crate::provenance::{PROVENANCE, in_toto, material, purl};
use crate::signature::{SignAs, SignRequest};
use crate::{Advisories, Context as _, Engine, Error};

const VEX: &str = "https://openvex.dev/ns";
const TRIED: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// Who says it, and what the words mean.
pub(super) const PATCH: &str =
    "https://github.com/dhow-project/dhow/blob/main/docs/security/lifecycle.md#patch/v1";
/// Where it is written what advisory data is.
const DATA: &str = "https://github.com/dhow-project/dhow/blob/main/docs/scanning.md#advisory-data";

/// Most files of packages that are remembered of a patch, and bytes of a line about one.
const MOST_FETCHED: usize = 4096;
const MOST_LINE: usize = 4096;

/// A vulnerability that an image had, and that what takes its place has not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fixed {
    /// It.
    pub vulnerability: String,
    /// The package that has it no more.
    pub package: String,
    /// The version that is there now.
    pub version: String,
    /// Both as a package URL.
    pub purl: String,
}

/// The file of a package that a package manager says it fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    name: String,
    version: String,
    place: String,
    /// `sha256` or `sha512`, and the sum in hex.
    sum: (&'static str, String),
}

/// What was found out about a patch of one image.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Packages that the new image has and the old one had not.
    brought: Vec<Brought>,
    pub(super) fetched: Vec<Fetched>,
    /// What was tried, and held.
    pub(super) tried: Vec<String>,
    /// The vulnerabilities that were to be mended.
    pub(super) asked: BTreeSet<String>,
    smoke: Option<String>,
    times: Option<(SystemTime, SystemTime)>,
    /// When the advisory data was made, and how many advisories it had.
    data: (String, u64),
    /// The old image, and what its base became.
    dependencies: Vec<Value>,
    platform: String,
    /// How it can be built again.
    recipe: Option<Value>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Debug)]
struct Brought {
    name: String,
    version: String,
    purl: String,
}

/// Reads what apt-get's `--print-uris` says of one file: `'URI' NAME_VERSION_ARCH.deb SIZE SHA256:SUM`. The image's own program says it: it is as
/// true as the rest of the image.
fn fetched(line: &[u8]) -> Option<Fetched> {
    let line = std::str::from_utf8(line).ok()?.trim_end().strip_prefix('\'')?;
    let (place, rest) = line.split_once('\'')?;
    let mut words = rest.split_ascii_whitespace();
    let (file, size, sum) = (words.next()?, words.next()?, words.next()?);
    let (algorithm, hex) = sum.split_once(':')?;
    let (algorithm, digits) = match algorithm {
        "SHA256" => ("sha256", 64),
        "SHA512" => ("sha512", 128),
        _ => return None,
    };
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if hex.len() != digits || !hex.bytes().all(is_hex) || size.parse::<u64>().is_err() {
        return None;
    }
    let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
    let (name, version, _) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Fetched {
        name: name.to_owned(),
        // In names of files a colon is written so (apt-pkg, `QuoteString`).
        version: version.replace("%3a", ":"),
        place: without_password(place),
        sum: (algorithm, hex.to_owned()),
    })
}

/// A URL without user and password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// What a package manager says, line by line.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// The line is too long to be of interest.
    over: bool,
    pub(super) fetched: Vec<Fetched>,
}

impl Lines {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.begun);
                if !std::mem::take(&mut self.over) && self.fetched.len() < MOST_FETCHED {
                    self.fetched.extend(fetched(&line));
                }
            } else if self.begun.len() < MOST_LINE {
                self.begun.push(*byte);
            } else {
                self.over = true;
            }
        }
    }
}

/// What an image has now, of these vulnerabilities in packages that it had.
pub(super) fn fixed(gone: &[&(Kind, String, String)], after: &Inventory) -> Vec<Fixed> {
    let of = |(kind, package, vulnerability): &(Kind, String, String)| {
        let has = |one: &&Installed| one.package.kind == *kind && one.package.name == *package;
        let now = after.packages.iter().filter(has);
        let one = |one: &Installed| Fixed {
            vulnerability: vulnerability.clone(),
            package: package.clone(),
            version: one.package.version.clone(),
            purl: one.package.purl(after.os.as_ref()),
        };
        now.map(one).collect::<Vec<_>>()
    };
    let all: BTreeSet<Fixed> = gone.iter().flat_map(|gone| of(gone)).collect();
    all.into_iter().collect()
}

impl Evidence {
    /// Of what is in the images.
    pub(super) fn compare(&mut self, before: &Inventory, after: &Inventory) {
        let key = |one: &Installed| (one.package.kind, one.package.purl(after.os.as_ref()));
        let had: BTreeSet<_> = before.packages.iter().map(key).collect();
        let new = after.packages.iter().filter(|one| !had.contains(&key(one)));
        self.brought = new
            .map(|one| Brought {
                name: one.package.name.clone(),
                version: one.package.version.clone(),
                purl: one.package.purl(after.os.as_ref()),
            })
            .collect();
    }

    pub(super) fn about(
        &mut self,
        old: &Image,
        smoke: Option<&str>,
        advisories: &Advisories,
        begun: SystemTime,
    ) {
        self.times = Some((begun, SystemTime::now()));
        self.platform = old.config.platform().to_string();
        self.smoke = smoke.map(str::to_owned);
        let facts = advisories.facts();
        self.data = (facts.built.clone(), facts.advisories);
    }

    /// Names an image that the new one was made of.
    pub(super) fn made_of(&mut self, role: &str, name: &str, image: &Image) {
        if let Some(mut dependency) = material(name, image) {
            dependency["name"] = role.into();
            self.dependencies.push(dependency);
        }
    }

    pub(super) fn depends_on(&mut self, dependency: Value) {
        self.dependencies.push(dependency);
    }

    pub(super) fn keep_recipe(&mut self, recipe: Option<&Recipe>) {
        self.recipe = recipe.map(Recipe::kept);
    }

    /// The packages as what the image was made of, with their sums where they are known.
    fn packages(&self) -> impl Iterator<Item = Value> {
        self.brought.iter().map(|package| {
            let mut said = json!({"name": "package", "uri": package.purl});
            let file = self
                .fetched
                .iter()
                .find(|file| file.name == package.name && file.version == package.version);
            if let Some(file) = file {
                said["digest"] = json!({ file.sum.0: file.sum.1 });
                said["downloadLocation"] = file.place.clone().into();
            }
            said
        })
    }
}

impl Patched {
    fn provenance(&self) -> Value {
        let evidence = &self.evidence;
        let (how, merged, conflicts) = match &self.how {
            How::Upgraded => ("upgrade", 0, &[][..]),
            How::Followed {
                merged,
                upgraded: false,
            } => ("follow", *merged, &[][..]),
            How::Followed {
                merged,
                upgraded: true,
            } => ("follow, upgrade", *merged, &[][..]),
            How::Rebuilt { conflicts } => ("rebuild", 0, conflicts.as_slice()),
            How::Apart { conflicts } => ("upgrade above the old base", 0, conflicts.as_slice()),
        };
        // What came with the base is told of the base.
        let mut dependencies = evidence.dependencies.clone();
        if !matches!(self.how, How::Followed { upgraded: false, .. }) {
            dependencies.extend(evidence.packages());
        }
        let mut metadata = json!({});
        if let Some((begun, ended)) = evidence.times {
            metadata["startedOn"] = dhow_monitor::format_time(begun).into();
            metadata["finishedOn"] = dhow_monitor::format_time(ended).into();
        }
        let mut parameters = json!({ "vulnerabilities": evidence.asked });
        if let Some(smoke) = &evidence.smoke {
            parameters["smoke"] = smoke.clone().into();
        }
        let mut internal = json!({
            "platform": evidence.platform,
            "action": how,
            "mergedLayers": merged,
            "conflicts": conflicts,
        });
        if let Some(recipe) = &evidence.recipe {
            internal["recipe"] = recipe.clone();
        }
        json!({
            "buildDefinition": {
                "buildType": PATCH,
                "externalParameters": parameters,
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": PATCH, "version": {"dhow": env!("CARGO_PKG_VERSION")}},
                "metadata": metadata,
            },
        })
    }

    /// OpenVEX of the image, by the digests of its manifest or index.
    fn vex(&self, name: &Reference, digests: &[Digest]) -> Value {
        let product = |digest: &Digest, purl: &str| json!({"@id": image_purl(name, digest), "subcomponents": [{"@id": purl}]});
        let statements: Vec<Value> = self
            .fixed
            .iter()
            .map(|fixed| {
                let products: Vec<Value> = digests
                    .iter()
                    .map(|digest| product(digest, &fixed.purl))
                    .collect();
                json!({
                    "vulnerability": {"name": fixed.vulnerability},
                    "products": products,
                    "status": "fixed",
                })
            })
            .collect();
        let text = Value::from(statements.clone()).to_string();
        let ended = self
            .evidence
            .times
            .map_or(SystemTime::UNIX_EPOCH, |(_, ended)| ended);
        json!({
            "@context": "https://openvex.dev/ns/v0.2.0",
            "@id": format!("urn:dhow:vex:{}", Digest::of(text.as_bytes()).hex()),
            "author": "dhow patch",
            "timestamp": dhow_monitor::format_time(ended),
            "version": 1,
            "statements": statements,
        })
    }

    fn tried(&self) -> Value {
        let (built, advisories) = &self.evidence.data;
        json!({
            "result": "PASSED",
            "configuration": [{
                "name": "advisory data",
                "uri": DATA,
                "annotations": {"built": built, "advisories": advisories},
            }],
            "passedTests": self.evidence.tried,
            "warnedTests": [],
            "failedTests": [],
        })
    }

    /// All that is said, by predicate type.
    fn said(&self, name: &Reference, digests: &[Digest]) -> [(&'static str, Value); 3] {
        [
            (PROVENANCE, self.provenance()),
            (VEX, self.vex(name, digests)),
            (TRIED, self.tried()),
        ]
    }
}

/// An image in a repository as VEX documents name it (purl-spec, type `oci`).
fn image_purl(name: &Reference, digest: &Digest) -> String {
    let repository = name.name();
    let last = repository.rsplit('/').next().unwrap_or(&repository);
    let url = repository.replace(':', "%3A").replace('/', "%2F");
    format!("pkg:oci/{last}@sha256%3A{}?repository_url={url}", digest.hex())
}

impl Engine {
    /// Keeps what is said of a new image beside it, so that it goes along with push and save.
    pub(super) fn keep_said(&self, planned: &PatchPlan, one: &Patched) -> Result<(), Error> {
        let names = planned.graph.nodes()[one.node].names.iter();
        let names: Vec<Reference> = names
            .filter_map(|name| Reference::parse(name).ok())
            .filter(|name| name.digest().is_none())
            .collect();
        let Some(first) = names.first() else {
            return Ok(());
        };
        let what = || "say what was done";
        let store = self.store()?;
        let subject = store.subject(&one.image).context(what)?.digest;
        let platform = self.image(&one.image.to_string())?.config.platform();
        let subjects: Vec<Value> = names
            .iter()
            .map(|name| json!({"name": purl(name, &platform), "digest": {"sha256": subject.hex()}}))
            .collect();
        let mut statements = Vec::new();
        for (kind, predicate) in one.said(first, &[subject]) {
            statements.push((kind, in_toto(kind, &subjects, &predicate).context(what)?));
        }
        store
            .attest(&one.image, &names, &statements)
            .context(what)
            .map(drop)
    }

    /// Pushes a patched image under a name, with what is said of it; with a key the image is signed there, and what is said of it, too.
    ///
    /// # Errors
    /// As [`Engine::push`] and [`Engine::sign`]; `FailedPrecondition` when the registry has another image under that name by then.
    pub fn push_patched(
        &self,
        planned: &PatchPlan,
        patched: &Patched,
        name: &str,
        key: Option<&PrivateKey>,
    ) -> Result<(), Error> {
        let subject = || {
            self.store()?
                .subject(&patched.image)
                .context(|| "describe the image")
        };
        let before = subject()?.digest;
        self.push(name, &Silent)?;
        // The registry has compressed layers, so another manifest is what was to be spoken of.
        if subject()?.digest != before {
            self.keep_said(planned, patched)?;
            self.push(name, &Silent)?;
        }
        key.map(|key| self.sign_patched(patched, name, key)).transpose()?;
        Ok(())
    }

    fn sign_patched(&self, patched: &Patched, name: &str, key: &PrivateKey) -> Result<Digest, Error> {
        let image = self.image(&patched.image.to_string())?;
        let reference = crate::image::parse(name)?.or_latest();
        let request = SignRequest {
            key,
            form: SignAs::Bundle,
            chain: &[],
            expiry: None,
            annotations: &dhow_oci::Labels::new(),
            recursive: false,
        };
        let digest = self.sign_if(&reference, &request, |digest| {
            let own = image.digests.iter().any(|(_, own)| own == digest);
            if own || image.record.manifest == Some(*digest) {
                return Ok(());
            }
            let message = format!(
                "{} in its registry is not the patched image",
                reference.familiar()
            );
            Err(Error::new(ErrorKind::FailedPrecondition, message))
        })?;
        let manifest = image.record.manifest.filter(|manifest| *manifest != digest);
        let digests: Vec<Digest> = std::iter::once(digest).chain(manifest).collect();
        let pinned = reference.clone().without_tag().with_digest(digest).canonical();
        for (kind, predicate) in patched.said(&reference, &digests) {
            self.attest(&pinned, key, kind, predicate)?;
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_says_of_a_file_is_read_and_other_lines_are_not() {
        let sum = "ab".repeat(32);
        let line = |sum: &str| {
            format!(
                "'http://u:p@deb.example/pool/o/openssl/libssl3_a.deb' libssl3_1%3a3.0.18-1_amd64.deb 2025 {sum}\n"
            )
        };
        let mut lines = Lines::default();
        let good = line(&format!("SHA256:{sum}"));
        // As it comes out of a pipe.
        for part in good.as_bytes().chunks(7) {
            lines.take(part);
        }
        lines.take(line(&format!("SHA256:{}", "zz".repeat(32))).as_bytes());
        lines.take(line("MD5Sum:00").as_bytes());
        lines.take(b"'half\n'http://x' a.deb 1\nSetting up libssl3\n\xff\n");
        lines.take(&vec![b'\''; 2 * MOST_LINE]);
        lines.take(format!("\n{good}").as_bytes());
        assert_eq!(lines.fetched.len(), 2, "{:?}", lines.fetched);
        let wanted = Fetched {
            name: "libssl3".to_owned(),
            version: "1:3.0.18-1".to_owned(),
            place: "http://deb.example/pool/o/openssl/libssl3_a.deb".to_owned(),
            sum: ("sha256", sum),
        };
        assert!(lines.fetched.iter().all(|file| *file == wanted));
        for _ in 0..2 * MOST_FETCHED {
            lines.take(good.as_bytes());
        }
        assert_eq!(lines.fetched.len(), MOST_FETCHED);
    }
}
