//! Alpine's apk: `lib/apk/db/installed` (apk-package(5), "INSTALLED DATABASE").

use crate::kind::{Asked, Said, plain, utf8};
use crate::{Kind, Package, Source};

pub(crate) fn installed(_: &str, bytes: &[u8], asked: Asked<'_>) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut said = Said::default();
    for paragraph in text.split("\n\n") {
        let (mut name, mut version, mut arch, mut origin, mut licence) = (None, None, None, None, None);
        let mut dir = "";
        let mut paths = Vec::new();
        for line in paragraph.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            match key {
                "P" => name = plain(value),
                "V" => version = plain(value),
                "A" => arch = plain(value),
                "o" => origin = plain(value),
                "L" => licence = plain(value),
                "F" => dir = value,
                "R" => {
                    let path = if dir.is_empty() {
                        value.to_owned()
                    } else {
                        format!("{dir}/{value}")
                    };
                    if asked(&path) {
                        paths.push(path);
                    }
                }
                _ => {}
            }
        }
        if let (Some(name), Some(version)) = (name, version) {
            said.owns
                .extend(paths.into_iter().map(|path| (path, name.clone())));
            let source = origin.filter(|origin| *origin != name).map(|origin| Source {
                name: origin,
                version: version.clone(),
            });
            said.packages.push(Package {
                arch,
                source,
                licence,
                ..Package::new(Kind::Apk, name, version)
            });
        }
    }
    if said.packages.is_empty() && !text.trim().is_empty() {
        return Err("no package in it".to_owned());
    }
    said.packages.sort();
    said.packages.dedup();
    Ok(said)
}
