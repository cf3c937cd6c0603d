//! `pom.xml`: what a project of Maven's asks for itself, in the versions that the file has. What its parents and dependencies ask for stands in
//! files of others.

use std::collections::HashMap;

use super::{DEEPEST, package, said};
use crate::kind::{Said, utf8};
use crate::{Kind, Package};

/// Most values that stand for others in a row (`${a}` is `${b}`).
const MOST_STEPS: usize = 8;
/// Longest value that comes of that.
const MOST_VALUE: usize = 1024;

#[derive(Clone, Debug, Default)]
struct Dependency<'t> {
    group: &'t str,
    artifact: &'t str,
    version: &'t str,
    scope: &'t str,
}

#[derive(Default)]
struct Project<'t> {
    properties: HashMap<String, &'t str>,
    dependencies: Vec<Dependency<'t>>,
    /// `dependencyManagement`: versions for who does not say one.
    managed: Vec<Dependency<'t>>,
}

pub(super) fn pom(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let project = read(&text)?;
    Ok(said(project.dependencies.iter().map(|one| project.resolved(one))))
}

impl<'t> Project<'t> {
    fn resolved(&self, one: &Dependency<'t>) -> Option<Package> {
        let same = |other: &&Dependency<'_>| (other.group, other.artifact) == (one.group, one.artifact);
        let managed = self.managed.iter().find(same).cloned().unwrap_or_default();
        let or = |own: &'t str, managed: &'t str| if own.is_empty() { managed } else { own };
        // What is there anyway, or only to test, is not delivered.
        if !matches!(or(one.scope, managed.scope), "" | "compile" | "runtime") {
            return None;
        }
        let (group, artifact) = (self.value(one.group)?, self.value(one.artifact)?);
        let version = self.value(or(one.version, managed.version))?;
        // `[1.0]` is that version; of other ranges somebody else knows which.
        let inner = version.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let version = inner.unwrap_or(&version);
        if version.is_empty() || version.contains(['[', '(', ',', ')']) {
            return None;
        }
        package(Kind::Maven, &format!("{group}:{artifact}"), version)
    }

    /// A value with what it stands for; none when the file does not say that.
    fn value(&self, text: &str) -> Option<String> {
        let mut value = text.to_owned();
        for _ in 0..MOST_STEPS {
            let Some((before, rest)) = value.split_once("${") else {
                return Some(value);
            };
            let (name, after) = rest.split_once('}')?;
            value = format!("{before}{}{after}", self.properties.get(name)?);
            if value.len() > MOST_VALUE {
                return None;
            }
        }
        None
    }
}

/// Elements one after the other: those that are of interest have no attributes and only text in them.
fn read(text: &str) -> Result<Project<'_>, String> {
    let mut project = Project::default();
    let mut path: Vec<&str> = Vec::new();
    let mut dependency = Dependency::default();
    let mut parent: Vec<(&str, &str)> = Vec::new();
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once('<') {
        let value = before.trim();
        if let Some(comment) = tag.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        if let Some(data) = tag.strip_prefix("![CDATA[") {
            rest = data.split_once("]]>").map_or("", |(_, rest)| rest);
            continue;
        }
        let (tag, after) = tag.split_once('>').ok_or("a tag has no end")?;
        rest = after;
        if tag.starts_with(['?', '!']) || tag.ends_with('/') {
            continue;
        }
        let Some(name) = tag.strip_prefix('/') else {
            if path.len() >= DEEPEST {
                return Err(format!("it has more than {DEEPEST} levels"));
            }
            path.push(tag.split_ascii_whitespace().next().unwrap_or_default());
            if is_dependency(&path) {
                dependency = Dependency::default();
            }
            continue;
        };
        if path.last() != Some(&name.trim_end()) {
            return Err(format!("{:?} ends what is not open", super::shown(name)));
        }
        match path.as_slice() {
            ["project", "properties", name] => drop(project.properties.insert((*name).to_owned(), value)),
            ["project", name @ ("groupId" | "artifactId" | "version")] => {
                for whose in ["project", "pom"] {
                    project.properties.insert(format!("{whose}.{name}"), value);
                }
            }
            ["project", "parent", name] => parent.push((name, value)),
            [.., "dependency", name] if is_dependency(&path[..path.len() - 1]) => match *name {
                "groupId" => dependency.group = value,
                "artifactId" => dependency.artifact = value,
                "version" => dependency.version = value,
                "scope" => dependency.scope = value,
                _ => {}
            },
            all if is_dependency(all) => {
                let list = if all.len() == 3 {
                    &mut project.dependencies
                } else {
                    &mut project.managed
                };
                list.push(std::mem::take(&mut dependency));
            }
            _ => {}
        }
        path.pop();
    }
    if project.dependencies.is_empty() && !text.contains("<project") {
        return Err("it is no project of Maven's".to_owned());
    }
    for (name, value) in parent {
        project.properties.insert(format!("project.parent.{name}"), value);
        // What it does not say itself is its parent's.
        for whose in ["project", "pom"] {
            project
                .properties
                .entry(format!("{whose}.{name}"))
                .or_insert(value);
        }
    }
    Ok(project)
}

fn is_dependency(path: &[&str]) -> bool {
    matches!(
        path,
        ["project", "dependencies", "dependency"]
            | ["project", "dependencyManagement", "dependencies", "dependency"]
    )
}
