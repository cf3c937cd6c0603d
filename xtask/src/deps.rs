//! The rule of the floors, checked on `cargo metadata`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Groups from the bottom up. A crate imports from lower floors, and within floors 0 to 2 from crates that stand
/// before it in its group.
const FLOORS: &[(&str, &[&str])] = &[
    ("words", &["types", "reference", "oci"]),
    ("kernel", &["sys", "rootpath", "cgroup", "seccomp"]),
    (
        "store",
        &[
            "hash",
            "content",
            "layer",
            "snapshot",
            "meta",
            "transport",
            "image",
        ],
    ),
    (
        "run+build+secure",
        &[
            "bundle",
            "cdi",
            "cni",
            "runtime",
            "monitor",
            "logdriver",
            "network",
            "bootstrap",
            "dockerfile",
            "build",
            "inventory",
            "lineage",
            "patch",
            "lifecycle",
            "vuln",
            "sign",
            "policy",
        ],
    ),
    ("services", &["engine", "quadlet", "registry"]),
    ("faces", &["cli", "runc"]),
    ("binary", &["dhow"]),
];

/// Machines of floor 3 do not import each other, but for these.
const MACHINES: &[(&str, &str)] = &[("monitor", "runtime"), ("build", "dockerfile")];

/// What no crate of floors 0, 1 and of the container's own path may reach, by any way (blueprint, floor 1; research on
/// start-up): an async runtime, HTTP, TLS, YAML.
const LIGHT: &[&str] = &[
    "types",
    "reference",
    "oci",
    "sys",
    "rootpath",
    "cgroup",
    "seccomp",
    "bundle",
    "runtime",
    "monitor",
    "runc",
];
const HEAVY: &[&str] = &[
    "tokio",
    "hyper",
    "rustls",
    "serde_yaml",
    "serde-saphyr",
    "rusqlite",
];

/// Never in the lock file (deny.toml says why, and more).
const BANNED: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "ring",
    "serde_yml",
    "tokio-tar",
];
/// Largest lock file (blueprint, rule 6).
const MAX_PACKAGES: usize = 420;

pub(crate) fn check() -> Result<String, Vec<String>> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(crate::root())
        .output()
        .map_err(|error| vec![format!("deps: run cargo metadata: {error}")])?;
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        vec![format!(
            "deps: read cargo metadata: {error}: {}",
            String::from_utf8_lossy(&output.stderr)
        )]
    })?;
    let graph = graph(&metadata);
    let mut problems = Vec::new();
    for (name, imports) in &graph {
        if let Some(short) = name.strip_prefix("dhow-").or((name == "dhow").then_some("dhow")) {
            problems.extend(imports.iter().filter_map(|import| edge(short, import)));
        }
    }
    problems.extend(light(&graph));
    let built = built()?;
    for banned in BANNED {
        if built.contains(*banned) {
            problems.push(format!(
                "deps: {banned} is compiled in, and must not be (deny.toml)"
            ));
        }
    }
    if graph.len() > MAX_PACKAGES {
        problems.push(format!(
            "deps: {} packages in the lock file, more than {MAX_PACKAGES}",
            graph.len()
        ));
    }
    if problems.is_empty() {
        Ok(format!("{} packages, all imports go down", graph.len()))
    } else {
        Err(problems)
    }
}

/// Normal dependencies of every package, by name.
fn graph(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let mut graph = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let imports = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|import| import["kind"].is_null() && import["optional"] != Value::Bool(true))
            .filter_map(|import| import["name"].as_str().map(str::to_owned))
            .collect();
        if let Some(name) = package["name"].as_str() {
            graph.insert(name.to_owned(), imports);
        }
    }
    graph
}

/// Names of all packages that some member really uses, on any target. The lock file, and the graph of `cargo metadata`,
/// also list what only switched-off features want.
fn built() -> Result<std::collections::BTreeSet<String>, Vec<String>> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--target",
            "all",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(crate::root())
        .output()
        .map_err(|error| vec![format!("deps: run cargo tree: {error}")])?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect())
}

fn place(name: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, (_, crates))| {
        crates
            .iter()
            .position(|known| *known == name)
            .map(|position| (floor, position))
    })
}

fn edge(from: &str, import: &str) -> Option<String> {
    let to = import.strip_prefix("dhow-")?;
    if matches!(from, "testkit" | "fuzz") {
        return None;
    }
    let wrong = |why: &str| Some(format!("deps: dhow-{from} -> dhow-{to}: {why}"));
    if to == "testkit" {
        return wrong("testkit is for tests only");
    }
    let (Some((floor, position)), Some((to_floor, to_position))) = (place(from), place(to)) else {
        return wrong("a crate has no place in xtask/src/deps.rs");
    };
    if from == "cli" && !matches!(to, "engine" | "quadlet" | "registry") && to_floor != 0 {
        return wrong("faces translate: they import services and words only");
    }
    // The runtime's command line is over the runtime itself: the engine has no part in it.
    if from == "runc" && !matches!(to, "runtime" | "cgroup" | "seccomp" | "sys") && to_floor != 0 {
        return wrong("the face of the runtime imports the runtime and what lies below it only");
    }
    match to_floor.cmp(&floor) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Greater => wrong("imports go down only"),
        std::cmp::Ordering::Equal if FLOORS[floor].0 == "run+build+secure" => {
            if MACHINES.contains(&(from, to)) {
                None
            } else {
                wrong("machines of floor 3 do not import each other")
            }
        }
        std::cmp::Ordering::Equal if floor <= 2 && to_position < position => None,
        std::cmp::Ordering::Equal => wrong("crates of one floor stand side by side"),
    }
}

/// Walks everything that a light crate reaches.
fn light(graph: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for start in LIGHT {
        let mut pending = vec![vec![format!("dhow-{start}")]];
        let mut seen = std::collections::BTreeSet::new();
        while let Some(path) = pending.pop() {
            let Some(last) = path.last() else { continue };
            if HEAVY.contains(&last.as_str()) {
                problems.push(format!(
                    "deps: {}: the container's own path stays light",
                    path.join(" -> ")
                ));
                continue;
            }
            for import in graph.get(last).into_iter().flatten() {
                if seen.insert(import.clone()) {
                    let mut longer = path.clone();
                    longer.push(import.clone());
                    pending.push(longer);
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_upwards_sideways_or_around_the_services_is_named() {
        for (from, to) in [
            ("types", "dhow-sys"),
            ("network", "dhow-runtime"),
            ("cli", "dhow-runtime"),
            ("layer", "dhow-image"),
            ("engine", "dhow-testkit"),
        ] {
            assert!(edge(from, to).is_some(), "{from} -> {to}");
        }
        for (from, to) in [
            ("sys", "dhow-types"),
            ("monitor", "dhow-runtime"),
            ("image", "dhow-layer"),
            ("cli", "dhow-engine"),
            ("engine", "serde"),
        ] {
            assert_eq!(edge(from, to), None, "{from} -> {to}");
        }
    }

    #[test]
    fn a_light_crate_that_reaches_a_heavy_one_is_named_with_the_way() {
        let graph = BTreeMap::from([
            ("dhow-runtime".to_owned(), vec!["a".to_owned()]),
            ("a".to_owned(), vec!["tokio".to_owned()]),
        ]);
        assert_eq!(
            light(&graph),
            ["deps: dhow-runtime -> a -> tokio: the container's own path stays light"]
        );
    }
}
