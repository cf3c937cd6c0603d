//! SPDX 2.3 (ISO/IEC 5962) as JSON, and SPDX 3.0.1 as JSON-LD.

use serde_json::{Value, json};

use super::{Subject, is_expression};
use crate::{Installed, Inventory, Kind};

/// The document in version 2.3.
#[must_use]
pub fn spdx2(inventory: &Inventory, subject: &Subject) -> Value {
    let uuid = subject.uuid(inventory);
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-subject",
        "name": subject.name,
        "versionInfo": subject.digest.as_ref().map_or_else(String::new, ToString::to_string),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": if subject.image { "CONTAINER" } else { "FILE" },
    })];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-subject",
    })];
    for (at, installed) in inventory.packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{at}");
        relationships.push(json!({
            "spdxElementId": "SPDXRef-subject",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": id,
        }));
        packages.push(package(&id, installed, inventory, subject));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": format!("urn:uuid:{uuid}"),
        "creationInfo": {
            "created": subject.created,
            "creators": [format!("Tool: {}-{}", subject.tool.0, subject.tool.1)],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

fn package(id: &str, installed: &Installed, inventory: &Inventory, subject: &Subject) -> Value {
    let package = &installed.package;
    let licence = package.licence.as_deref();
    let declared = licence
        .filter(|licence| is_expression(licence))
        .unwrap_or("NOASSERTION");
    let mut value = json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": declared,
        "copyrightText": "NOASSERTION",
        "sourceInfo": source_info(installed, subject),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl(inventory.os.as_ref()),
        }],
    });
    if let Some(words) = licence.filter(|_| declared == "NOASSERTION") {
        value["licenseComments"] = format!("its author says: {words}").into();
    }
    value
}

fn source_info(installed: &Installed, subject: &Subject) -> String {
    let mut text = format!("from {}", installed.path);
    if let Some(layer) = subject.layer(installed) {
        text.push_str(&format!(", layer {layer}"));
    }
    if let Some(source) = &installed.package.source {
        text.push_str(&format!(", built from {} {}", source.name, source.version));
    }
    text
}

/// The document in version 3.0.1 (software profile).
#[must_use]
pub fn spdx3(inventory: &Inventory, subject: &Subject) -> Value {
    let uuid = subject.uuid(inventory);
    let id = |what: &str| format!("urn:uuid:{uuid}#{what}");
    let info = "_:creation";
    let element = |kind: &str, what: &str, name: &str| json!({"type": kind, "spdxId": id(what), "creationInfo": info, "name": name});
    let mut graph = vec![
        json!({
            "type": "CreationInfo",
            "@id": info,
            "specVersion": "3.0.1",
            "created": subject.created,
            "createdBy": [id("tool-author")],
            "createdUsing": [id("tool")],
        }),
        element("SoftwareAgent", "tool-author", &subject.tool.0),
        element("Tool", "tool", &format!("{} {}", subject.tool.0, subject.tool.1)),
    ];
    let mut root = element("software_Package", "subject", &subject.name);
    root["software_primaryPurpose"] = if subject.image { "container" } else { "file" }.into();
    if let Some(digest) = &subject.digest {
        root["software_packageVersion"] = digest.to_string().into();
    }
    graph.push(root);
    let mut members = Vec::with_capacity(inventory.packages.len());
    for (at, installed) in inventory.packages.iter().enumerate() {
        let package = &installed.package;
        let what = format!("package-{at}");
        let mut value = element("software_Package", &what, &package.name);
        value["software_packageVersion"] = package.version.clone().into();
        value["software_packageUrl"] = package.purl(inventory.os.as_ref()).into();
        value["software_sourceInfo"] = source_info(installed, subject).into();
        value["software_primaryPurpose"] = match package.kind {
            Kind::Generic => "application",
            _ => "library",
        }
        .into();
        graph.push(value);
        members.push(id(&what));
    }
    let mut elements = vec![id("subject")];
    elements.extend(members.iter().cloned());
    if !members.is_empty() {
        graph.push(json!({
            "type": "Relationship",
            "spdxId": id("contains"),
            "creationInfo": info,
            "from": id("subject"),
            "relationshipType": "contains",
            "to": members,
        }));
        elements.push(id("contains"));
    }
    let mut document = element("SpdxDocument", "document", &subject.name);
    document["rootElement"] = json!([id("subject")]);
    document["element"] = elements.into();
    document["profileConformance"] = json!(["core", "software"]);
    graph.push(document);
    json!({"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": graph})
}
