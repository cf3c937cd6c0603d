//! What is in images, what is known of it, and which image of a chain brought it.

use serde_json::{Value, json};

use crate::world::World;

fn stanza(name: &str, source: &str, version: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nSource: {source}\nVersion: {version}\n\n"
    )
}

pub(crate) fn osv(cve: &str, package: &str, events: &Value) -> Value {
    json!({
        "id": format!("DEBIAN-{cve}"), "modified": "2026-01-01T00:00:00Z", "upstream": [cve],
        "summary": format!("a hole in {package}"),
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
        "affected": [{"package": {"ecosystem": "Debian:12", "name": package},
            "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
    })
}

/// A base with openssl, a middle with curl, and two images on the middle; advisories on both.
pub(crate) fn chain() -> Option<World> {
    let world = World::with_busybox()?;
    let openssl = stanza("libssl3", "openssl", "3.0.17-1~deb12u2");
    let curl = stanza("curl", "curl", "7.88.1-10+deb12u5");
    world.file("status1", &openssl);
    world.file("status2", format!("{openssl}{curl}"));
    world.file(
        "os-release",
        "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\n",
    );
    world.file("package.json", r#"{"name":"left-pad","version":"1.0.0"}"#);
    for (name, text) in [
        (
            "base",
            "FROM busybox\nCOPY os-release /etc/os-release\nCOPY status1 /var/lib/dpkg/status\n",
        ),
        (
            "middle",
            "FROM base\nENV A=1\nCOPY status2 /var/lib/dpkg/status\n",
        ),
        (
            "app",
            "FROM middle\nCOPY package.json /srv/node_modules/left-pad/package.json\nCMD [\"sleep\", \"1000\"]\n",
        ),
        ("other", "FROM middle\nRUN echo other > /other\n"),
    ] {
        world.file("Dockerfile", text);
        let folder = world.path("").display().to_string();
        world
            .dhow(&["build", "-q", "--network", "none", "-t", name, &folder])
            .exits(0);
    }
    let advisories = [
        osv(
            "CVE-2026-1",
            "openssl",
            &json!([{"introduced": "0"}, {"fixed": "3.0.18-1~deb12u1"}]),
        ),
        osv("CVE-2026-2", "curl", &json!([{"introduced": "0"}])),
        osv(
            "CVE-2026-3",
            "curl",
            &json!([{"introduced": "0"}, {"fixed": "7.88.1-10+deb12u5"}]),
        ),
    ];
    world.file("osv.json", json!(advisories).to_string());
    let ran = world
        .dhow(&["scan", "import", &world.path("osv.json").display().to_string()])
        .exits(0);
    assert!(ran.stdout.ends_with(": OSV, 3 advisories\n"), "{ran:?}");
    Some(world)
}

pub(crate) fn json_of(world: &World, args: &[&str]) -> Value {
    let ran = world.dhow(args).exits(0);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[test]
fn packages_are_listed_with_the_layer_that_brought_them() {
    let Some(world) = chain() else { return };
    let document = json_of(&world, &["sbom", "--format", "json", "app"]);
    assert_eq!(document["OS"]["ID"], "debian");
    let layers = document["Layers"].as_array().unwrap().len();
    let packages = document["Packages"].as_array().unwrap();
    let line = |package: &Value| {
        (
            package["Name"].as_str().unwrap().to_owned(),
            layers as u64 - package["Layer"].as_u64().unwrap(),
        )
    };
    let lines: Vec<(String, u64)> = packages.iter().map(line).collect();
    // From the top: the application's layer, the middle's, the base's last.
    assert_eq!(
        lines,
        [
            ("curl".into(), 2),
            ("libssl3".into(), 3),
            ("left-pad".into(), 1),
            // No package brought it: it says itself what it is.
            ("busybox".into(), 5)
        ]
    );
    assert_eq!(
        packages[1]["PURL"],
        "pkg:deb/debian/libssl3@3.0.17-1~deb12u2?arch=amd64&distro=debian-12&upstream=openssl%403.0.17-1~deb12u2"
    );
    let table = world.dhow(&["sbom", "app"]).exits(0);
    assert_eq!(table.stdout.lines().count(), 5, "{table:?}");
    for (format, field, value) in [
        ("cyclonedx", "specVersion", "1.6"),
        ("spdx", "spdxVersion", "SPDX-2.3"),
        (
            "spdx3",
            "@context",
            "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
        ),
    ] {
        assert_eq!(
            json_of(&world, &["sbom", "--format", format, "app"])[field],
            value
        );
    }
    world.clean();
}

#[test]
fn a_scan_names_the_image_that_brought_a_vulnerability() {
    let Some(world) = chain() else { return };
    let scan = json_of(&world, &["scan", "--format", "json", "app"]);
    let found: Vec<(&str, &str, &str)> = scan[0]["Vulnerabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["ID"].as_str().unwrap(),
                one["Package"].as_str().unwrap(),
                one["BroughtBy"].as_str().unwrap(),
            )
        })
        .collect();
    // The third is fixed in this version, and nobody asked about busybox.
    assert_eq!(
        found,
        [
            ("CVE-2026-2", "curl", "middle:latest"),
            ("CVE-2026-1", "libssl3", "base:latest")
        ]
    );
    assert_eq!(scan[0]["Vulnerabilities"][1]["FixedIn"], "3.0.18-1~deb12u1");
    let ran = world.dhow(&["scan", "app"]).exits(0);
    // What was not looked up is said.
    assert!(ran.stderr.contains("nothing on npm: 1 packages"), "{ran:?}");
    assert!(ran.stdout.contains("2 critical"), "{ran:?}");
    world.dhow(&["scan", "--fail-on", "high", "app"]).exits(2);
    world
        .dhow(&["scan", "--fail-on", "high", "--only-fixed", "base"])
        .exits(2);
    world.dhow(&["scan", "--fail-on", "high", "busybox"]).exits(0);
    let sarif = json_of(&world, &["scan", "--format", "sarif", "--all"]);
    assert_eq!(sarif["runs"][0]["results"].as_array().unwrap().len(), 7);
    // A folder is looked through as an image is.
    let folder = world.path("tree");
    std::fs::create_dir_all(folder.join("var/lib/dpkg")).unwrap();
    std::fs::create_dir_all(folder.join("etc")).unwrap();
    std::fs::copy(world.path("status1"), folder.join("var/lib/dpkg/status")).unwrap();
    std::fs::copy(world.path("os-release"), folder.join("etc/os-release")).unwrap();
    let scan = json_of(
        &world,
        &["scan", "--format", "json", &folder.display().to_string()],
    );
    assert_eq!(scan[0]["Vulnerabilities"].as_array().unwrap().len(), 1);
    world.clean();
}

#[test]
fn why_tells_the_way_and_impact_whom_it_reaches() {
    let Some(world) = chain() else { return };
    world
        .dhow(&["run", "-d", "--network", "none", "--name", "running", "app"])
        .exits(0);
    let why = json_of(&world, &["why", "--format", "json", "CVE-2026-1", "app"]);
    assert_eq!(
        why[0]["Line"],
        json!(["app:latest", "middle:latest", "base:latest"])
    );
    assert_eq!(why[0]["BroughtBy"], "base:latest");
    assert!(why[0]["Step"].as_str().unwrap().contains("COPY status1"), "{why}");
    let text = world.dhow(&["why", "CVE-2026-1", "app"]).exits(0);
    assert!(
        text.stdout
            .contains("in base:latest: openssl 3.0.18-1~deb12u1 or later, and build the 3 images that derive from it again"),
        "{text:?}"
    );
    world
        .dhow(&["why", "CVE-2026-2", "base"])
        .one_error(1)
        .says("does not have CVE-2026-2");
    world.dhow(&["why", "CVE-1900-1", "base"]).one_error(1);
    let impact = json_of(&world, &["impact", "--format", "json", "CVE-2026-2"]);
    let mut hits: Vec<(&str, &str, usize)> = impact
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| {
            (
                hit["Image"].as_str().unwrap(),
                hit["BroughtBy"][0].as_str().unwrap(),
                hit["Containers"].as_array().unwrap().len(),
            )
        })
        .collect();
    hits.sort_unstable();
    assert_eq!(
        hits,
        [
            ("app:latest", "middle:latest", 1),
            ("middle:latest", "middle:latest", 0),
            ("other:latest", "middle:latest", 0)
        ]
    );
    world.dhow(&["rm", "-f", "running"]).exits(0);
    world.clean();
}

#[test]
fn the_tree_shows_who_derives_from_whom() {
    let Some(world) = chain() else { return };
    let tree = world.dhow(&["tree"]).exits(0);
    assert_eq!(
        tree.stdout,
        "busybox:latest (1 layer)\n\
         └── base:latest (+2 layers)\n    \
         └── middle:latest (+1 layer)\n        \
         ├── app:latest (+1 layer)\n        \
         └── other:latest (+1 layer)\n",
        "{tree:?}"
    );
    let line = world.dhow(&["tree", "app"]).exits(0);
    assert!(!line.stdout.contains("other"), "{line:?}");
    let document = json_of(&world, &["tree", "--format", "json"]);
    assert_eq!(
        document[0]["Children"][0]["Children"][0]["Names"][0],
        "docker.io/library/middle:latest"
    );
    let dot = world.dhow(&["tree", "--format", "dot"]).exits(0);
    assert_eq!(dot.stdout.matches("->").count(), 4, "{dot:?}");
    world.clean();
}

#[test]
fn without_advisory_data_a_scan_says_how_to_get_some() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .dhow(&["scan", "busybox"])
        .one_error(1)
        .says("dhow scan import");
    world.file("wrong.json", "{}");
    let wrong = world.path("wrong.json").display().to_string();
    world
        .dhow(&["scan", "import", &wrong])
        .one_error(1)
        .says("no known kind");
    world.dhow(&["scan", "data"]).one_error(1);
    world.clean();
}

/// A layer whose files are made to exhaust whoever reads them ends its reader, and nothing else.
#[test]
fn hostile_files_end_in_a_warning() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("bad", "{\"a\":".repeat(100_000));
    world.file("status", "\u{0}\u{1}\u{2}not a database");
    world.file(
        "Dockerfile",
        "FROM busybox\nCOPY bad /a/node_modules/x/package.json\nCOPY status /var/lib/dpkg/status\nRUN ln -s /etc/passwd /etc/os-release; mkdir -p /usr/lib; mkfifo /usr/lib/os-release\n",
    );
    let folder = world.path("").display().to_string();
    world
        .dhow(&["build", "-q", "--network", "none", "-t", "bad", &folder])
        .exits(0);
    let ran = world.dhow(&["sbom", "bad"]).exits(0);
    assert!(ran.stderr.contains("package.json: no JSON"), "{ran:?}");
    assert!(ran.stderr.contains("var/lib/dpkg/status: none of its"), "{ran:?}");
    world.clean();
}
