//! CycloneDX 1.6 (ECMA-424) as JSON.

use serde_json::{Map, Value, json};

use super::{Subject, is_expression};
use crate::{Installed, Inventory, Os};

/// The document. The layer that brought a component, and the file that says so, are properties of it.
#[must_use]
pub fn cyclonedx(inventory: &Inventory, subject: &Subject) -> Value {
    let os = inventory.os.as_ref();
    let mut components = Vec::with_capacity(inventory.packages.len() + 1);
    if let Some(os) = os {
        components.push(system(os));
    }
    for (at, installed) in inventory.packages.iter().enumerate() {
        components.push(component(at, installed, os, subject));
    }
    let mut of = json!({
        "bom-ref": "subject",
        "type": if subject.image { "container" } else { "file" },
        "name": subject.name,
    });
    if let Some(digest) = &subject.digest {
        of["version"] = digest.to_string().into();
    }
    if !subject.layers.is_empty() {
        let layers = subject
            .layers
            .iter()
            .map(|layer| json!({"name": "dhow:layer:diffID", "value": layer}));
        of["properties"] = layers.collect();
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", subject.uuid(inventory)),
        "version": 1,
        "metadata": {
            "timestamp": subject.created,
            "tools": {"components": [{"type": "application", "name": subject.tool.0, "version": subject.tool.1}]},
            "component": of,
        },
        "components": components,
        "dependencies": [{
            "ref": "subject",
            "dependsOn": components.iter().map(|component| component["bom-ref"].clone()).collect::<Vec<_>>(),
        }],
    })
}

fn system(os: &Os) -> Value {
    let mut component = json!({
        "bom-ref": "operating-system",
        "type": "operating-system",
        "name": os.id,
    });
    if !os.version.is_empty() {
        component["version"] = os.version.clone().into();
    }
    if !os.pretty.is_empty() {
        component["description"] = os.pretty.clone().into();
    }
    component
}

fn component(at: usize, installed: &Installed, os: Option<&Os>, subject: &Subject) -> Value {
    let package = &installed.package;
    let purl = package.purl(os);
    let mut component = Map::new();
    // One package may be there twice.
    component.insert("bom-ref".to_owned(), format!("{purl}#{at}").into());
    component.insert("type".to_owned(), "library".into());
    component.insert("name".to_owned(), package.name.clone().into());
    component.insert("version".to_owned(), package.version.clone().into());
    if let Some(licence) = &package.licence {
        let choice = if is_expression(licence) {
            json!([{"expression": licence}])
        } else {
            json!([{"license": {"name": licence}}])
        };
        component.insert("licenses".to_owned(), choice);
    }
    component.insert("purl".to_owned(), purl.into());
    let mut properties = vec![json!({"name": "dhow:path", "value": installed.path})];
    if let Some(layer) = subject.layer(installed) {
        properties.push(json!({"name": "dhow:layer:diffID", "value": layer}));
        properties.push(json!({"name": "dhow:layer:index", "value": installed.layer.to_string()}));
    }
    if let Some(source) = &package.source {
        properties
            .push(json!({"name": "dhow:source", "value": format!("{} {}", source.name, source.version)}));
    }
    if let Some(owner) = &installed.owner {
        properties.push(json!({"name": "dhow:owner", "value": owner}));
    }
    component.insert("properties".to_owned(), properties.into());
    Value::Object(component)
}
