//! `--cache-from`, `--cache-to`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dhow_engine::{CacheExport, CachePlace};
use dhow_reference::Reference;

use crate::CliError;

/// What `--cache-to` says.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheTo {
    /// Caches to be written; whether a failure to do so is no failure of the build.
    pub(crate) exports: Vec<(CacheExport, bool)>,
    /// Into the image itself.
    pub(crate) inline: bool,
}

/// Name of a cache in a layout when none is said, as with buildx.
const TAG: &str = "latest";

/// Reads all `--cache-to`.
pub(crate) fn to(flags: &[String]) -> Result<CacheTo, CliError> {
    let mut found = CacheTo::default();
    for text in flags {
        let bad = |why: &str| CliError::plain(format!("invalid --cache-to {text:?}: {why}"));
        let (kind, mut known) = fields(text).map_err(|why| bad(&why))?;
        if kind == "inline" {
            found.inline = true;
        } else {
            let to = place(&kind, "dest", &mut known).map_err(|why| bad(&why))?;
            let all = match known.remove("mode").as_deref() {
                None | Some("min") => false,
                Some("max") => true,
                Some(other) => return Err(bad(&format!("mode={other}: write min or max"))),
            };
            let mounts = switch("mounts", &mut known).map_err(|why| bad(&why))?;
            let ignored = switch("ignore-error", &mut known).map_err(|why| bad(&why))?;
            found.exports.push((CacheExport { to, all, mounts }, ignored));
        }
        rest(&kind, &known).map_err(|why| bad(&why))?;
    }
    Ok(found)
}

/// Reads all `--cache-from`.
pub(crate) fn from(flags: &[String]) -> Result<Vec<CachePlace>, CliError> {
    let one = |text: &String| {
        let bad = |why: String| CliError::plain(format!("invalid --cache-from {text:?}: {why}"));
        if !text.contains('=') {
            return Ok(CachePlace::Registry(reference(text).map_err(bad)?));
        }
        let (kind, mut known) = fields(text).map_err(bad)?;
        let found = place(&kind, "src", &mut known).map_err(bad)?;
        rest(&kind, &known).map_err(bad)?;
        Ok(found)
    };
    flags.iter().map(one).collect()
}

fn fields(text: &str) -> Result<(String, BTreeMap<String, String>), String> {
    let mut known = BTreeMap::new();
    for field in crate::flags::csv(text) {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("{field:?} is not key=value"))?;
        known.insert(key.trim().to_ascii_lowercase(), value.to_owned());
    }
    let kind = known.remove("type").ok_or("type is required")?;
    Ok((kind, known))
}

fn place(kind: &str, folder: &str, known: &mut BTreeMap<String, String>) -> Result<CachePlace, String> {
    match kind {
        "local" => {
            let path = known.remove(folder).filter(|path| !path.is_empty());
            let path = path.ok_or_else(|| format!("type=local needs {folder}=FOLDER"))?;
            let tag = known.remove("tag").unwrap_or_else(|| TAG.to_owned());
            Ok(CachePlace::Layout(PathBuf::from(path), tag))
        }
        "registry" => {
            let name = known.remove("ref").ok_or("type=registry needs ref=NAME")?;
            Ok(CachePlace::Registry(reference(&name)?))
        }
        other => Err(format!(
            "unknown type {other:?}: local, registry, and inline for --cache-to"
        )),
    }
}

fn reference(text: &str) -> Result<Reference, String> {
    let name = Reference::parse(&crate::dialect::spoken().new_name(text));
    name.map(Reference::or_latest).map_err(|error| error.to_string())
}

fn switch(key: &str, known: &mut BTreeMap<String, String>) -> Result<bool, String> {
    match known.remove(key).as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(format!("{key}={other:?}: write true or false")),
    }
}

fn rest(kind: &str, known: &BTreeMap<String, String>) -> Result<(), String> {
    match known.keys().next() {
        None => Ok(()),
        Some(key) => Err(format!("type={kind} has no {key} here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read_as_buildx_reads_them() {
        let found = from(&[
            "type=local,src=/c".to_owned(),
            "type=registry,ref=h:5/a:b".to_owned(),
            "c".to_owned(),
        ]);
        let shown: Vec<String> = found.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["/c", "h:5/a:b", "c:latest"]);
        let found = to(&[
            "type=local,dest=d,mode=max,mounts=true".to_owned(),
            "type=inline".to_owned(),
        ])
        .unwrap();
        assert!(found.inline && found.exports[0].0.all && found.exports[0].0.mounts && !found.exports[0].1);
        for (bad, word) in [
            ("type=gha", "gha"),
            ("dest=x,mode=max", "type"),
            ("type=local", "dest"),
            ("type=registry", "ref"),
            ("type=local,dest=x,mode=some", "mode"),
            ("type=inline,mode=max", "mode"),
            ("type=registry,ref=UPPER", "UPPER"),
            ("type=local,dest=x,colour=red", "colour"),
        ] {
            let error = format!("{:?}", to(&[bad.to_owned()]).unwrap_err());
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
