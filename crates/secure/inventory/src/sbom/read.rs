//! Documents of others as inventories: CycloneDX 1.x, SPDX 2.x and 3.0, as JSON. What is not named by a package URL is left out: no
//! advisory could be found for it.

use dhow_types::{ErrorKind, Purl};
use serde_json::Value;

use crate::kind::plain;
use crate::{Error, Installed, Inventory, Kind, MAX_PACKAGES, Os, Package, Source};

/// Reads a document.
///
/// # Errors
/// `InvalidArgument` for what is none; `ResourceExhausted` for more than [`MAX_PACKAGES`] packages.
pub fn read_sbom(bytes: &[u8]) -> Result<Inventory, Error> {
    let bad = |why: String| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("read a bill of materials: {why}"),
        )
    };
    let document: Value = serde_json::from_slice(bytes).map_err(|error| bad(format!("no JSON: {error}")))?;
    let mut found = Found::default();
    if document.get("bomFormat").and_then(Value::as_str) == Some("CycloneDX") {
        found.cyclonedx(&document)?;
    } else if document.get("spdxVersion").is_some_and(Value::is_string) {
        found.spdx2(&document)?;
    } else if let Some(graph) = document.get("@graph").and_then(Value::as_array) {
        found.spdx3(graph)?;
    } else {
        return Err(bad("it is neither CycloneDX nor SPDX".to_owned())
            .with_hint("CycloneDX 1.x, SPDX 2.x and 3.0 are read, as JSON"));
    }
    Ok(found.inventory())
}

#[derive(Default)]
struct Found {
    os: Option<Os>,
    packages: Vec<(Package, String)>,
}

impl Found {
    fn inventory(mut self) -> Inventory {
        self.packages.sort();
        self.packages.dedup();
        let installed = |(package, path)| Installed {
            package,
            path,
            layer: 0,
            first: 0,
            owner: None,
        };
        Inventory {
            os: self.os,
            packages: self.packages.into_iter().map(installed).collect(),
            problems: Vec::new(),
        }
    }

    fn add(&mut self, purl: &str, about: &About<'_>) -> Result<(), Error> {
        let Some(purl) = Purl::parse(purl) else {
            return Ok(());
        };
        if self.os.is_none() {
            self.os = system_of(&purl);
        }
        if let Some(package) = package(&purl, about) {
            self.packages
                .push((package, about.path.unwrap_or_default().to_owned()));
        }
        if self.packages.len() > MAX_PACKAGES {
            let message = format!("the bill of materials has more than {MAX_PACKAGES} packages");
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        Ok(())
    }

    fn system(&mut self, name: &str, version: &str) {
        if let Some(id) = plain(name) {
            self.os = Some(Os {
                id: id.to_ascii_lowercase(),
                version: plain(version).unwrap_or_default(),
                ..Os::default()
            });
        }
    }

    fn cyclonedx(&mut self, document: &Value) -> Result<(), Error> {
        let mut waiting: Vec<&Value> = array(document, "components").iter().rev().collect();
        while let Some(component) = waiting.pop() {
            if text(component, "type") == "operating-system" {
                self.system(text(component, "name"), text(component, "version"));
            }
            let properties = array(component, "properties");
            let property = |names: &[&str]| {
                properties
                    .iter()
                    .find(|one| names.contains(&text(one, "name")))
                    .map(|one| text(one, "value"))
                    .filter(|value| !value.is_empty())
            };
            let about = About {
                source: property(&["aquasecurity:trivy:SrcName", "syft:metadata:source"]),
                source_version: property(&["aquasecurity:trivy:SrcVersion", "syft:metadata:sourceVersion"]),
                source_release: property(&["aquasecurity:trivy:SrcRelease"]),
                source_epoch: property(&["aquasecurity:trivy:SrcEpoch"]),
                path: property(&["dhow:path", "aquasecurity:trivy:FilePath", "syft:location:0:path"]),
            };
            self.add(text(component, "purl"), &about)?;
            waiting.extend(array(component, "components").iter().rev());
        }
        Ok(())
    }

    fn spdx2(&mut self, document: &Value) -> Result<(), Error> {
        for package in array(document, "packages") {
            if text(package, "primaryPackagePurpose") == "OPERATING-SYSTEM" {
                self.system(text(package, "name"), text(package, "versionInfo"));
            }
            for reference in array(package, "externalRefs") {
                if text(reference, "referenceType") == "purl" {
                    self.add(text(reference, "referenceLocator"), &About::default())?;
                }
            }
        }
        Ok(())
    }

    fn spdx3(&mut self, graph: &[Value]) -> Result<(), Error> {
        for element in graph
            .iter()
            .filter(|element| text(element, "type") == "software_Package")
        {
            if text(element, "software_primaryPurpose") == "operatingSystem" {
                self.system(text(element, "name"), text(element, "software_packageVersion"));
            }
            self.add(text(element, "software_packageUrl"), &About::default())?;
        }
        Ok(())
    }
}

fn array<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What a document says of a package beside its package URL.
#[derive(Default)]
struct About<'a> {
    source: Option<&'a str>,
    source_version: Option<&'a str>,
    source_release: Option<&'a str>,
    source_epoch: Option<&'a str>,
    path: Option<&'a str>,
}

/// The system by a package URL's `distro=debian-12`.
fn system_of(purl: &Purl) -> Option<Os> {
    let distro = purl.qualifier("distro")?;
    let (namespace, _) = purl.path().split_once('/')?;
    let version = distro.strip_prefix(namespace).map_or_else(
        || distro.rsplit('-').next().unwrap_or_default(),
        |rest| rest.trim_start_matches('-'),
    );
    Some(Os {
        id: plain(namespace)?,
        version: plain(version)
            .filter(|version| version != "unstable")
            .unwrap_or_default(),
        ..Os::default()
    })
}

fn package(purl: &Purl, about: &About<'_>) -> Option<Package> {
    let kind = match purl.kind() {
        "deb" => Kind::Deb,
        "apk" => Kind::Apk,
        "rpm" => Kind::Rpm,
        "alpm" => Kind::Alpm,
        "pypi" => Kind::Pypi,
        "npm" => Kind::Npm,
        "gem" => Kind::Gem,
        "cargo" => Kind::Cargo,
        "golang" => Kind::Golang,
        "maven" => Kind::Maven,
        "composer" => Kind::Composer,
        "nuget" => Kind::Nuget,
        "generic" | "bitnami" => Kind::Generic,
        _ => return None,
    };
    let name = match kind {
        Kind::Maven => purl.path().replace('/', ":"),
        Kind::Npm | Kind::Golang | Kind::Composer => purl.path().to_owned(),
        _ => purl.name().to_owned(),
    };
    // Trivy and rpm's own form have the epoch beside the version.
    let epoch = |version: &str, epoch: Option<&str>| match epoch {
        Some(epoch) if epoch != "0" && !version.contains(':') => format!("{epoch}:{version}"),
        _ => version.to_owned(),
    };
    let version = epoch(purl.version()?, purl.qualifier("epoch"));
    let mut package = Package::new(kind, plain(&name)?, plain(&version)?);
    package.arch = purl.qualifier("arch").and_then(plain);
    if kind.is_system() {
        let upstream = purl
            .qualifier("upstream")
            .map(|upstream| upstream.split_once('@').unwrap_or((upstream, "")));
        let (name, version) = match (about.source, upstream) {
            (Some(name), _) => {
                let release = about
                    .source_release
                    .map_or_else(String::new, |release| format!("-{release}"));
                let version = about.source_version.map(|version| format!("{version}{release}"));
                (name, version.map(|version| epoch(&version, about.source_epoch)))
            }
            (None, Some((name, version))) => (name, Some(version.to_owned())),
            (None, None) => return Some(package),
        };
        // Of rpm the file of the source package stands there, `openssl-3.0.7-24.el9.src.rpm`.
        let source = crate::kind::rpm::source_of(name).unwrap_or_else(|| Source {
            name: name.to_owned(),
            version: version
                .filter(|version| !version.is_empty())
                .unwrap_or_else(|| package.version.clone()),
        });
        let other = source.name != package.name || source.version != package.version;
        package.source =
            (other && plain(&source.name).is_some() && plain(&source.version).is_some()).then_some(source);
    }
    Some(package)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::read_sbom;
    use crate::{Delta, Inventory, Kind, Os, Package, Record, Source, Subject, cyclonedx, spdx2, spdx3};

    fn inventory() -> Inventory {
        let mut ssl = Package::new(Kind::Deb, "libssl3", "1:3.0.17-1~deb12u2");
        ssl.arch = Some("amd64".to_owned());
        ssl.source = Some(Source {
            name: "openssl".to_owned(),
            version: "3.0.17-1~deb12u2".to_owned(),
        });
        let mut delta = Delta {
            form: Delta::FORM,
            ..Delta::default()
        };
        delta.records.push(Record {
            path: "etc/os-release".to_owned(),
            packages: vec![
                ssl,
                Package::new(Kind::Npm, "@scope/name", "1.0.0"),
                Package::new(Kind::Maven, "org.a:b", "2"),
                Package::new(Kind::Golang, "github.com/a/b", "v1.2.3"),
            ],
            os: Some(Os {
                id: "debian".to_owned(),
                version: "12".to_owned(),
                ..Os::default()
            }),
            ..Record::default()
        });
        Inventory::of(&[&delta])
    }

    #[test]
    fn our_own_documents_come_back() {
        let inventory = inventory();
        let subject = Subject {
            name: "x".to_owned(),
            digest: None,
            image: true,
            layers: Vec::new(),
            tool: ("dhow".to_owned(), "1".to_owned()),
            created: "2026-01-01T00:00:00Z".to_owned(),
        };
        let packages = |inventory: &Inventory| -> Vec<Package> {
            inventory
                .packages
                .iter()
                .map(|installed| installed.package.clone())
                .collect()
        };
        for document in [
            cyclonedx(&inventory, &subject),
            spdx2(&inventory, &subject),
            spdx3(&inventory, &subject),
        ] {
            let read = read_sbom(&serde_json::to_vec(&document).unwrap()).unwrap();
            assert_eq!(packages(&read), packages(&inventory), "{document:#}");
            let os = read.os.unwrap();
            assert_eq!((os.id.as_str(), os.version.as_str()), ("debian", "12"));
        }
    }

    #[test]
    fn documents_of_others_say_source_and_epoch_in_their_ways() {
        let document = json!({"bomFormat": "CycloneDX", "components": [
            {"type": "operating-system", "name": "debian", "version": "12.5", "components": [
                {"purl": "pkg:deb/debian/login@4.13-1?arch=amd64&distro=debian-12.5&epoch=1", "properties": [
                    {"name": "aquasecurity:trivy:SrcName", "value": "shadow"},
                    {"name": "aquasecurity:trivy:SrcVersion", "value": "4.13"},
                    {"name": "aquasecurity:trivy:SrcRelease", "value": "1"},
                    {"name": "aquasecurity:trivy:SrcEpoch", "value": "1"}]}]},
            {"purl": "pkg:rpm/redhat/openssl-libs@3.0.7-24.el9?epoch=1&upstream=openssl-3.0.7-24.el9.src.rpm"},
            {"purl": "pkg:deb/debian/libssl3@3.0.1?upstream=openssl"},
            {"name": "no purl"}]});
        let read = read_sbom(&serde_json::to_vec(&document).unwrap()).unwrap();
        let told: Vec<String> = read
            .packages
            .iter()
            .map(|installed| {
                format!(
                    "{} {} {:?}",
                    installed.package.name,
                    installed.package.version,
                    installed.package.source()
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "libssl3 3.0.1 (\"openssl\", \"3.0.1\")",
                "login 1:4.13-1 (\"shadow\", \"1:4.13-1\")",
                "openssl-libs 1:3.0.7-24.el9 (\"openssl\", \"3.0.7-24.el9\")"
            ]
        );
        assert_eq!(read.os.unwrap().version, "12.5");
        assert!(read_sbom(b"{}").is_err() && read_sbom(b"no").is_err());
    }

    proptest! {
        #[test]
        fn no_document_stops_the_reader(any in "\\PC{0,60}") {
            for document in [
                json!({"bomFormat": "CycloneDX", "components": [any, {"purl": any, "properties": [any]}, {"purl": format!("pkg:rpm/{any}@{any}?upstream={any}")}]}),
                json!({"spdxVersion": any, "packages": [any, {"externalRefs": [{"referenceType": "purl", "referenceLocator": format!("pkg:deb/{any}")}]}]}),
                json!({"@graph": [any, {"type": "software_Package", "software_packageUrl": format!("pkg:{any}/a@1")}]}),
            ] {
                drop(read_sbom(&serde_json::to_vec(&document).unwrap()));
            }
        }
    }
}
