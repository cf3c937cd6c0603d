//! Images as `images`, `history` and `inspect` show them.

use std::path::Path;

use dhow_engine::{Attestation, HistoryLine, Image, Summary};
use dhow_reference::Reference;
use dhow_types::{Digest, human_size_short};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::container_json::layer_folder;
use crate::dialect;
use crate::render::table::ellipsis;
use crate::render::{Fields, Row, time};

/// All fields of an image in a list.
pub(crate) const FIELDS: Fields = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "VIRTUAL SIZE"),
];

/// The usual columns.
pub(crate) const TABLE: [&str; 5] = ["Repository", "Tag", "ID", "CreatedSince", "Size"];
/// The usual columns with `--digests`.
pub(crate) const TABLE_DIGESTS: [&str; 6] = ["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];

/// One line of the list: an image under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The image.
    pub(crate) image: &'a Summary,
    /// `debian`, or none.
    pub(crate) repository: Option<String>,
    /// `12`, or none.
    pub(crate) tag: Option<String>,
    /// The digest that the repository has for it.
    pub(crate) digest: Option<Digest>,
}

/// A name as people write it; itself when it is no name.
pub(crate) fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// The lines of an image: one for each tag, one for each repository that only knows its digest, one when it has no
/// name at all (docker/cli `formatter/image.go`).
pub(crate) fn lines(image: &Summary) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut named = Vec::new();
    for name in &image.names {
        let Ok(reference) = Reference::parse(name) else {
            continue;
        };
        let digest = image
            .digests
            .iter()
            .find(|(repo, _)| *repo == reference.name())
            .map(|(_, digest)| *digest);
        named.push(reference.name());
        lines.push(Line {
            image,
            repository: Some(dialect::spoken().repository(&reference)),
            tag: reference.tag().map(str::to_owned),
            digest,
        });
    }
    for (repo, digest) in &image.digests {
        if !named.contains(repo) {
            let repository = Reference::parse(repo)
                .map_or_else(|_| repo.clone(), |name| dialect::spoken().repository(&name));
            lines.push(Line {
                image,
                repository: Some(repository),
                tag: None,
                digest: Some(*digest),
            });
        }
    }
    if lines.is_empty() {
        lines.push(Line {
            image,
            repository: None,
            tag: None,
            digest: None,
        });
    }
    lines
}

/// A line as a row.
pub(crate) fn row(line: &Line<'_>, now: Timestamp, whole: bool) -> Row {
    let record = &line.image.record;
    let none = || "<none>".to_owned();
    let created = Timestamp::from_second(record.created).map_or_else(|_| String::new(), time::long);
    Row::new([
        ("Containers", "N/A".into()),
        ("CreatedAt", created.into()),
        ("CreatedSince", time::ago(record.created, now).into()),
        (
            "Digest",
            line.digest.map_or_else(none, |digest| digest.to_string()).into(),
        ),
        (
            "ID",
            if whole {
                record.id.to_string()
            } else {
                record.id.short()
            }
            .into(),
        ),
        ("Repository", line.repository.clone().unwrap_or_else(none).into()),
        ("SharedSize", "N/A".into()),
        ("Size", human_size_short(record.size).into()),
        ("Tag", line.tag.clone().unwrap_or_else(none).into()),
        ("UniqueSize", "N/A".into()),
        ("VirtualSize", human_size_short(record.size).into()),
    ])
}

/// All fields of a history line.
pub(crate) const HISTORY: Fields = &[
    ("Comment", "COMMENT"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE"),
    ("Size", "SIZE"),
];

/// The usual columns of a history.
pub(crate) const HISTORY_TABLE: [&str; 5] = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"];

/// One step of a history as a row.
pub(crate) fn history_row(line: &HistoryLine, now: Timestamp, whole: bool, human: bool) -> Row {
    let created = line.created.as_deref().and_then(time::parse);
    let by = line.created_by.replace('\t', " ");
    let since = created.filter(|then| then.as_second() > 0);
    let since = since.map_or_else(
        || "N/A".to_owned(),
        |then| format!("{} ago", time::since(then, now)),
    );
    let at = line.created.clone().unwrap_or_default();
    let id = line.id.map_or_else(
        || "<missing>".to_owned(),
        |id| if whole { id.to_string() } else { id.short() },
    );
    Row::new([
        ("Comment", line.comment.as_str().into()),
        ("CreatedAt", at.as_str().into()),
        ("CreatedBy", if whole { by } else { ellipsis(&by, 45) }.into()),
        ("CreatedSince", if human { since } else { at.clone() }.into()),
        ("ID", id.into()),
        (
            "Size",
            if human {
                human_size_short(line.size)
            } else {
                line.size.to_string()
            }
            .into(),
        ),
    ])
}

/// Attestations of an image as docker names them among its manifests (moby `api/types/image.ManifestSummary`), with what
/// each states.
pub(crate) fn manifests(attestations: &[Attestation]) -> Value {
    let view = |attestation: &Attestation| {
        let statements: Vec<Value> = attestation
            .statements
            .iter()
            .map(|(kind, blob)| json!({"PredicateType": kind, "Digest": blob.digest.to_string(), "Size": blob.size}))
            .collect();
        let content: u64 = attestation.statements.iter().map(|(_, blob)| blob.size).sum();
        let content = content + attestation.manifest.size;
        json!({
            "ID": attestation.manifest.digest.to_string(),
            "Descriptor": attestation.manifest,
            "Available": true,
            "Size": {"Content": content, "Total": content},
            "Kind": "attestation",
            "AttestationData": {"For": attestation.about.to_string()},
            "Statements": statements,
        })
    };
    attestations.iter().map(view).collect()
}

/// An image as `inspect` shows it (moby `api/types/image.InspectResponse`).
pub(crate) fn inspect(image: &Image, root: &Path) -> Value {
    let config = &image.config;
    let layers: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    let folders: Vec<String> = config
        .rootfs
        .diff_ids
        .iter()
        .rev()
        .map(|layer| layer_folder(root, *layer))
        .collect();
    let lower = folders.get(1..).unwrap_or_default().join(":");
    let mut value = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.repo_tags(),
        "RepoDigests": image.repo_digests(),
        "Parent": image.record.parent.map_or_else(String::new, |parent| parent.to_string()),
        "Comment": config.history.last().and_then(|step| step.comment.as_deref()).unwrap_or(""),
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author.as_deref().unwrap_or(""),
        "Config": run_config(image),
        "Architecture": config.architecture,
    });
    let Some(fields) = value.as_object_mut() else {
        return value;
    };
    if let Some(variant) = &config.variant {
        fields.insert("Variant".to_owned(), variant.as_str().into());
    }
    let rest = json!({
        "Os": config.os,
        "Size": image.record.size,
        "GraphDriver": {
            "Data": {"LowerDir": lower, "UpperDir": folders.first().cloned().unwrap_or_default()},
            "Name": "overlay2",
        },
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    });
    if let Value::Object(rest) = rest {
        fields.extend(rest);
    }
    value
}

fn run_config(image: &Image) -> Value {
    let config = &image.config.config;
    let mut value = json!({
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "ExposedPorts": config.exposed_ports,
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": config.env,
        "Cmd": config.cmd,
        "Image": "",
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": if config.on_build.is_empty() { Value::Null } else { config.on_build.clone().into() },
        "Labels": config.labels,
    });
    if let Some(fields) = value.as_object_mut() {
        let mut more = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        more("StopSignal", config.stop_signal.clone().map(Into::into));
        more("StopTimeout", config.stop_timeout.map(Into::into));
        more("Shell", config.shell.clone().map(Into::into));
        // Strings and numbers always become JSON.
        more(
            "Healthcheck",
            config
                .healthcheck
                .as_ref()
                .and_then(|health| serde_json::to_value(health).ok()),
        );
    }
    value
}
