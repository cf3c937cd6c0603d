//! What people say of findings, what is known of attacks, reports, whose file it is, what is new, and data that is carried about.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::security::{chain, json_of, osv};
use crate::served::Served;
use crate::world::World;

fn path(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

fn ids(scan: &Value) -> Vec<&str> {
    let found = scan[0]["Vulnerabilities"].as_array().unwrap();
    found.iter().map(|one| one["ID"].as_str().unwrap()).collect()
}

fn statement(vulnerability: &str, product: &Value, status: &str) -> Value {
    json!({"vulnerability": {"name": vulnerability}, "products": [product], "status": status,
        "justification": "vulnerable_code_not_in_execute_path", "impact_statement": "nobody calls it"})
}

fn openvex(statements: &[Value]) -> String {
    let document = json!({"@context": "https://openvex.dev/ns/v0.2.0", "@id": "x", "author": "a",
        "timestamp": "2026-01-01T00:00:00Z", "version": 1, "statements": statements});
    document.to_string()
}

#[test]
fn vex_takes_away_what_it_says_is_none() {
    let Some(world) = chain() else { return };
    let image = json!({"@id": "pkg:oci/app?tag=latest", "subcomponents": [{"@id": "pkg:deb/debian/curl"}]});
    world.file(
        "vex.json",
        openvex(&[
            statement("CVE-2026-2", &image, "not_affected"),
            statement(
                "CVE-2026-1",
                &json!({"@id": "pkg:deb/debian/libssl3"}),
                "under_investigation",
            ),
        ]),
    );
    let vex = path(&world, "vex.json");
    let scan = json_of(&world, &["scan", "--format", "json", "--vex", &vex, "app"]);
    assert_eq!(ids(&scan), ["CVE-2026-1"]);
    assert_eq!(scan[0]["Vulnerabilities"][0]["VEX"], "under_investigation");
    assert_eq!(
        scan[0]["Suppressed"][0]["Suppressed"],
        "vex: not_affected: vulnerable_code_not_in_execute_path: nobody calls it"
    );
    // It is about one image.
    let other = json_of(&world, &["scan", "--format", "json", "--vex", &vex, "other"]);
    assert_eq!(ids(&other), ["CVE-2026-2", "CVE-2026-1"]);
    world
        .dhow(&["scan", "--vex", &vex, "app"])
        .exits(0)
        .prints("1 critical; 1 suppressed");
    let shown = world
        .dhow(&["scan", "--vex", &vex, "--show-suppressed", "app"])
        .exits(0);
    assert!(shown.stdout.contains("nobody calls it"), "{shown:?}");
    // What a scan writes down is read back, and says the same of the same.
    let written = path(&world, "written.json");
    world
        .dhow(&[
            "scan", "--format", "openvex", "-o", &written, "--vex", &vex, "app",
        ])
        .exits(0);
    let again = json_of(&world, &["scan", "--format", "json", "--vex", &written, "app"]);
    assert_eq!(ids(&again), ["CVE-2026-1"]);
    // CycloneDX, about a component of another document.
    world.file(
        "cyclonedx.json",
        json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "vulnerabilities": [{"id": "CVE-2026-1",
            "analysis": {"state": "false_positive"}, "affects": [{"ref": "urn:cdx:f00/1#pkg%3Adeb%2Fdebian%2Flibssl3"}]}]})
        .to_string(),
    );
    let cyclonedx = path(&world, "cyclonedx.json");
    let scan = json_of(
        &world,
        &[
            "scan", "--format", "json", "--vex", &vex, "--vex", &cyclonedx, "app",
        ],
    );
    assert!(ids(&scan).is_empty(), "{scan}");
    world
        .dhow(&["scan", "--vex", &path(&world, "osv.json"), "app"])
        .one_error(1)
        .says("neither OpenVEX nor CycloneDX");
    world.clean();
}

#[test]
fn an_image_of_suses_is_looked_up_by_its_release() {
    let Some(world) = World::new() else { return };
    let affected = |product: &str, fixed: &str| {
        json!({"package": {"ecosystem": product, "name": "openssl-3"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]})
    };
    let record = json!({"id": "SUSE-SU-2026:1", "modified": "2026-01-01T00:00:00Z", "upstream": ["CVE-2026-1"], "affected": [
        affected("SUSE:Linux Enterprise Module for Basesystem 15 SP5", "3.0.8-2"),
        affected("SUSE:Linux Enterprise Server 16.0", "3.5.0-2"),
        affected("openSUSE:Tumbleweed", "3.6.0-2")]});
    world.file("osv.json", record.to_string());
    world
        .dhow(&["scan", "import", &path(&world, "osv.json")])
        .exits(0);
    for (distro, version, found) in [
        ("sles-15.5", "3.0.8-1", true),
        ("sles-15.5", "3.0.8-2", false),
        ("sles-16.0", "3.5.0-1", true),
        ("opensuse-tumbleweed-20260101", "3.6.0-1", true),
    ] {
        let os = distro.rsplit_once('-').unwrap().0;
        let purl = format!("pkg:rpm/{os}/openssl-3@{version}?arch=x86_64&distro={distro}");
        let document = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [
            {"type": "library", "name": "openssl-3", "version": version, "purl": purl}]});
        world.file("sbom.json", document.to_string());
        let scan = json_of(&world, &["scan", "--format", "json", &path(&world, "sbom.json")]);
        assert_eq!(ids(&scan).len(), usize::from(found), "{distro} {version}: {scan}");
    }
    world.clean();
}

#[test]
fn what_an_image_says_of_itself_counts_for_it_alone_when_it_is_asked_for() {
    let Some(world) = chain() else { return };
    let vex = openvex(&[
        json!({"vulnerability": {"name": "CVE-2026-1"}, "status": "not_affected",
        "justification": "component_not_present", "products": [{"@id": "pkg:deb/debian/libssl3"}]}),
    ]);
    world.file("in.vex.json", vex);
    world.file("odd.vex.json", "{}");
    world.file(
        "Saying",
        "FROM app\nCOPY in.vex.json /usr/share/\nCOPY odd.vex.json /\n",
    );
    let (file, folder) = (path(&world, "Saying"), path(&world, ""));
    world
        .dhow(&[
            "build",
            "-q",
            "--network",
            "none",
            "-t",
            "says",
            "-f",
            &file,
            &folder,
        ])
        .exits(0);
    let of = |args: &[&str]| ids(&json_of(&world, &[&["scan", "--format", "json"], args].concat())).join(" ");
    assert!(of(&["says"]).contains("CVE-2026-1"));
    assert!(!of(&["--vex", "embedded", "says"]).contains("CVE-2026-1"));
    // It is no word about another image.
    let both = world.dhow(&["scan", "--vex", "embedded", "says", "app"]).exits(0);
    assert!(
        both.stdout.contains("CVE-2026-1") && both.stdout.contains("1 suppressed"),
        "{both:?}"
    );
    assert!(both.stderr.contains("/odd.vex.json: "), "{both:?}");
    world.clean();
}

#[test]
fn an_ignore_file_has_reasons_and_ends() {
    let Some(world) = chain() else { return };
    let folder = path(&world, "here");
    world.file(
        "here/.dhowignore",
        "# remarks\nCVE-2026-2 package:curl # not reachable\nCVE-2026-1 until:2020-01-01 # over\n",
    );
    let mut command = world.command(&["scan", "--fail-on", "high", "app"]);
    command.current_dir(&folder);
    let ran = crate::world::finish(command, Vec::new()).exits(2);
    assert!(ran.stdout.contains("1 suppressed"), "{ran:?}");
    assert!(
        ran.stderr.contains("CVE-2026-1 counted until 2020-01-01"),
        "{ran:?}"
    );
    let elsewhere = world.dhow(&["scan", "app"]).exits(0);
    assert!(!elsewhere.stdout.contains("suppressed"), "{elsewhere:?}");
    // Trivy's lines.
    world.file("trivyignore", "CVE-2026-2 exp:2999-12-31\nCVE-2026-1\n");
    let trivy = path(&world, "trivyignore");
    world
        .dhow(&["scan", "--ignorefile", &trivy, "--fail-on", "low", "app"])
        .exits(0);
    // Its YAML, and Grype's.
    world.file(
        "t.yaml",
        "vulnerabilities:\n- id: CVE-2026-2\n  statement: not reachable\n- id: CVE-2026-1\n  paths: [nowhere]\n",
    );
    world.file(
        "g.yaml",
        "ignore:\n- vulnerability: CVE-2026-2\n- package: {type: deb, name: libssl3}\n",
    );
    for (file, counts) in [("t.yaml", 2), ("g.yaml", 0)] {
        let file = path(&world, file);
        world
            .dhow(&["scan", "--ignorefile", &file, "--fail-on", "low", "app"])
            .exits(counts)
            .prints("suppressed");
    }
    world.file(
        "wrong.yaml",
        "ignore:\n- vulnerability: CVE-2026-2\n  namespace: x\n",
    );
    world
        .dhow(&["scan", "--ignorefile", &path(&world, "wrong.yaml"), "app"])
        .one_error(1)
        .says("namespace");
    world.file("wrong", "CVE-2026-2\nCVE-2026-1 sometimes\n");
    world
        .dhow(&["scan", "--ignorefile", &path(&world, "wrong"), "app"])
        .one_error(1)
        .says("line 2");
    world.clean();
}

#[test]
fn what_is_known_of_attacks_is_shown_and_can_fail_a_scan() {
    let Some(world) = chain() else { return };
    world
        .dhow(&["scan", "--fail-on", "kev,epss=0.0001", "app"])
        .exits(0);
    world.file(
        "epss.csv",
        "#model_version:v1\ncve,epss,percentile\nCVE-2026-1,0.25,0.9\n",
    );
    world.file(
        "kev.json",
        json!({"catalogVersion": "1", "vulnerabilities": [{"cveID": "CVE-2026-2", "dateAdded": "2026-02-01",
            "knownRansomwareCampaignUse": "Known"}]})
        .to_string(),
    );
    world
        .dhow(&[
            "scan",
            "import",
            &path(&world, "epss.csv"),
            &path(&world, "kev.json"),
        ])
        .exits(0)
        .prints("EPSS, 1 scores");
    let table = world.dhow(&["scan", "app"]).exits(0);
    assert!(
        table.stdout.contains("known (ransomware)") && table.stdout.contains("25.0 %"),
        "{table:?}"
    );
    let scan = json_of(&world, &["scan", "--format", "json", "app"]);
    assert_eq!(scan[0]["Vulnerabilities"][0]["KnownExploited"], "2026-02-01");
    assert_eq!(scan[0]["Vulnerabilities"][1]["EPSS"], 0.25);
    world.dhow(&["scan", "--fail-on", "kev", "app"]).exits(2);
    world.dhow(&["scan", "--fail-on", "kev", "base"]).exits(0);
    world.dhow(&["scan", "--fail-on", "epss=0.2", "base"]).exits(2);
    world.dhow(&["scan", "--fail-on", "epss=0.3", "base"]).exits(0);
    world.dhow(&["scan", "--fail-on", "often", "base"]).one_error(125);
    world.clean();
}

#[test]
fn a_scan_of_what_cannot_be_read_fails_where_that_is_asked_for() {
    let Some(world) = World::new() else { return };
    world.file(
        "osv.json",
        osv(
            "CVE-2026-1",
            "curl",
            &json!([{"introduced": "0"}, {"fixed": "1"}]),
        )
        .to_string(),
    );
    world
        .dhow(&["scan", "import", &path(&world, "osv.json")])
        .exits(0);
    world.file("tree/etc/os-release", "ID=debian\nVERSION_ID=12\n");
    let status = "Package: curl\nStatus: install ok installed\nVersion: 7.88.1\nArchitecture: amd64\n\n";
    world.file("tree/var/lib/dpkg/status", status);
    let tree = path(&world, "tree");
    let scan = |condition: &str| world.dhow(&["scan", "--fail-on", condition, &tree]);
    scan("low,incomplete").exits(0);
    world.file("tree/var/lib/dpkg/status", "\u{0}\u{1}not a database");
    scan("low").exits(0).says("var/lib/dpkg/status: none of its");
    scan("low,incomplete").exits(2);
    world.clean();
}

#[test]
fn what_gets_no_fixes_any_more_is_said_and_can_fail_a_scan() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(world) = World::new() else { return };
    world.file(
        "osv.json",
        osv("CVE-2026-1", "curl", &json!([{"introduced": "0"}])).to_string(),
    );
    world
        .dhow(&["scan", "import", &path(&world, "osv.json")])
        .exits(0);
    let tree = path(&world, "tree");
    let release = |version: &str| {
        world.file(
            "tree/etc/os-release",
            format!("ID=debian\nVERSION_ID={version}\n"),
        )
    };
    release("8");
    world
        .dhow(&["scan", "--fail-on", "eol", &tree])
        .exits(2)
        .says("debian 8 gets no fixes since 2020-06-30");
    // One that nobody has announced an end of.
    release("99");
    world.dhow(&["scan", "--fail-on", "eol", &tree]).exits(0);
    let mut program = b"\x7fELF and \x002.7.18\0".to_vec();
    program.resize(20_000, 0);
    let program = world.file("tree/opt/bin/python2.7", program);
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = world
        .dhow(&["scan", "--format", "json", "--fail-on", "eol", &tree])
        .exits(2);
    let scan: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&scan[0]["Ends"][0]["Name"], &scan[0]["Ends"][0]["State"]),
        (&json!("python 2.7"), &json!("end-of-life"))
    );
}

#[test]
fn a_report_is_a_document_that_others_read() {
    let Some(world) = chain() else { return };
    let document = json_of(&world, &["scan", "--format", "cyclonedx", "app"]);
    let references: BTreeSet<&str> = document["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["bom-ref"].as_str().unwrap())
        .collect();
    let vulnerabilities = document["vulnerabilities"].as_array().unwrap();
    assert_eq!(vulnerabilities.len(), 2, "{document}");
    for one in vulnerabilities {
        let reference = one["affects"][0]["ref"].as_str().unwrap();
        assert!(references.contains(reference), "{one}");
        assert_eq!(one["ratings"][0]["severity"], "critical");
    }
    world
        .dhow(&["scan", "--format", "cyclonedx", "app", "other"])
        .one_error(1)
        .says("one image");
    let page = world.dhow(&["scan", "--format", "html", "app", "other"]).exits(0);
    assert!(
        page.stdout.starts_with("<!doctype html>") && page.stdout.contains("CVE-2026-2"),
        "{page:?}"
    );
    assert!(!page.stdout.contains("<script"), "{page:?}");
    // A bill of materials is scanned as what it is of.
    for format in ["cyclonedx", "spdx", "spdx3"] {
        let file = path(&world, &format!("{format}.json"));
        world
            .dhow(&["sbom", "--format", format, "-o", &file, "app"])
            .exits(0);
        let scan = json_of(&world, &["scan", "--format", "json", &file]);
        assert_eq!(ids(&scan), ["CVE-2026-2", "CVE-2026-1"], "{format}");
    }
    world
        .dhow(&["scan", &path(&world, "Dockerfile")])
        .one_error(1)
        .says("bill of materials");
    world.clean();
}

/// An archive of files that are not packed.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let mut fields = [20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
        fields.extend([size, size].concat());
        fields.extend(length);
        fields.extend([0, 0]);
        let at = u32::try_from(out.len()).unwrap().to_le_bytes();
        out.extend([&b"PK\x03\x04"[..], &fields, name.as_bytes(), content].concat());
        directory.extend([&b"PK\x01\x02\x14\0"[..], &fields, &[0; 10], &at, name.as_bytes()].concat());
    }
    let at = u32::try_from(out.len()).unwrap().to_le_bytes();
    let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    [
        &out[..],
        &directory,
        b"PK\x05\x06\0\0\0\0",
        &count,
        &count,
        &length,
        &at,
        &[0, 0],
    ]
    .concat()
}

#[test]
fn an_archive_of_records_is_imported_as_it_is() {
    let Some(world) = World::new() else { return };
    let record = |cve: &str| osv(cve, "curl", &json!([{"introduced": "0"}])).to_string();
    let (one, two) = (record("CVE-2026-1"), record("CVE-2026-2"));
    world.file(
        "all.zip",
        zip(&[
            ("one.json", one.as_bytes()),
            ("README", b"x"),
            ("two.json", two.as_bytes()),
        ]),
    );
    world
        .dhow(&["scan", "import", &path(&world, "all.zip")])
        .exits(0)
        .prints("OSV, 2 advisories");
    world.file("bad.zip", zip(&[("one.json", b"{")]));
    world.file("none.zip", zip(&[("README", b"x")]));
    for (name, why) in [("bad.zip", "no JSON"), ("none.zip", "no records")] {
        world
            .dhow(&["scan", "import", &path(&world, name)])
            .one_error(1)
            .says(why);
    }
    assert_eq!(
        json_of(&world, &["scan", "data", "--format", "json"])["Advisories"],
        2
    );
}

#[test]
fn a_source_tree_is_scanned_by_its_lock_files() {
    let Some(world) = World::new() else { return };
    let record = json!({"id": "GHSA-x", "modified": "2026-01-01T00:00:00Z", "affected": [{"package": {"ecosystem": "npm", "name": "a"},
        "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}]}]});
    world.file("osv.json", record.to_string());
    world
        .dhow(&["scan", "import", &path(&world, "osv.json")])
        .exits(0);
    world.file(
        "tree/package-lock.json",
        r#"{"packages":{"node_modules/a":{"version":"1.0.0"},"node_modules/b":{"version":"1.0.0"}}}"#,
    );
    let tree = path(&world, "tree");
    let scan = json_of(&world, &["scan", "--format", "json", &tree]);
    assert_eq!(ids(&scan), ["GHSA-x"]);
    assert_eq!(scan[0]["Vulnerabilities"][0]["Path"], "package-lock.json");
    // A system is what is installed in it.
    world.file("tree/etc/os-release", "ID=debian\nVERSION_ID=12\n");
    let scan = json_of(&world, &["scan", "--format", "json", &tree]);
    assert!(ids(&scan).is_empty(), "{scan}");
}

#[test]
fn a_file_has_an_owner_and_a_layer_that_brought_it() {
    let Some(world) = chain() else { return };
    world.file("list", "/.\n/opt\n/opt/tool\n/etc/tool.conf\n");
    world.file("tool", "one");
    world.file(
        "Dockerfile",
        "FROM middle\nCOPY list /var/lib/dpkg/info/curl.list\nCOPY tool /opt/tool\nRUN ln -s opt /link; echo x > /etc/tool.conf\n\
         COPY package.json /srv/node_modules/left-pad/package.json\nCOPY tool /srv/node_modules/left-pad/index.js\n",
    );
    let folder = path(&world, "");
    world
        .dhow(&["build", "-q", "--network", "none", "-t", "owned", &folder])
        .exits(0);
    let origins = json_of(
        &world,
        &[
            "sbom",
            "owner",
            "--format",
            "json",
            "owned",
            "/opt/tool",
            "link/tool",
            "/etc/tool.conf",
            "/srv/node_modules/left-pad/index.js",
            "/etc/os-release",
        ],
    );
    let told: Vec<(&str, &str, &str)> = origins
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let package = one["Packages"][0]["Name"].as_str().unwrap_or("-");
            (
                one["Path"].as_str().unwrap(),
                package,
                one["BroughtBy"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("opt/tool", "curl", "owned:latest"),
            ("opt/tool", "curl", "owned:latest"),
            ("etc/tool.conf", "curl", "owned:latest"),
            ("srv/node_modules/left-pad/index.js", "left-pad", "owned:latest"),
            ("etc/os-release", "-", "base:latest"),
        ]
    );
    assert!(
        origins[0]["Layer"].as_u64() < origins[2]["Layer"].as_u64(),
        "{origins}"
    );
    world
        .dhow(&["sbom", "owner", "owned", "/opt/tool"])
        .exits(0)
        .prints("curl 7.88.1-10+deb12u5 (deb)");
    world
        .dhow(&["sbom", "owner", "owned", "/none"])
        .one_error(1)
        .says("there is no /none in it");
    world.clean();
}

/// Takes one request, and gives its body.
fn hook() -> (String, std::thread::JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let taken = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let count = stream.read(&mut piece).unwrap();
            text.extend(&piece[..count]);
            let whole = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = whole.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                })
                .map_or(0, |length| length.trim().parse().unwrap());
            if body.len() >= length || count == 0 {
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                    .unwrap();
                return serde_json::from_str(body).unwrap();
            }
        }
    });
    (url, taken)
}

#[test]
fn a_watch_tells_what_is_new() {
    let Some(world) = chain() else { return };
    let look = ["scan", "--watch", "--once", "app"];
    let first = world.dhow(&look).exits(2);
    assert_eq!(first.stdout.lines().count(), 2, "{first:?}");
    world.dhow(&look).exits(0).silent();
    let more = [osv("CVE-2026-4", "curl", &json!([{"introduced": "0"}])), {
        let mut mended = osv(
            "CVE-2026-2",
            "curl",
            &json!([{"introduced": "0"}, {"fixed": "1"}]),
        );
        mended["modified"] = "2026-02-01T00:00:00Z".into();
        mended
    }];
    world.file("more.json", json!(more).to_string());
    world
        .dhow(&["scan", "import", &path(&world, "more.json")])
        .exits(0);
    // A webhook that is not there was told nothing: it is told the next time.
    let nowhere = format!("http://127.0.0.1:{}/", crate::world::free_port());
    let lost = world.dhow(&["scan", "--watch", "--once", "--webhook", &nowhere, "app"]);
    assert_eq!((lost.code, lost.stdout.as_str()), (1, ""), "{lost:?}");
    let (url, taken) = hook();
    let ran = world
        .dhow(&["scan", "--watch", "--once", "--webhook", &url, "app"])
        .exits(2);
    assert!(
        ran.stdout.contains("new\tapp\tCVE-2026-4\t") && ran.stdout.contains("gone\tapp\tCVE-2026-2\t"),
        "{ran:?}"
    );
    let told = taken.join().unwrap();
    assert_eq!(
        (&told[0]["Name"], &told[0]["New"][0]["ID"]),
        (&json!("app"), &json!("CVE-2026-4"))
    );
    let events = world
        .say("events --since 1 --stream=false --format {{.Action}}")
        .exits(0);
    assert_eq!(events.stdout.matches("vulnerable").count(), 3, "{events:?}");
    // One that is not as bad as is asked for fails nothing.
    world
        .dhow(&["scan", "--watch", "--once", "--fail-on", "kev", "other"])
        .exits(0);
    world.dhow(&["scan", "--once", "app"]).exits(1);
    world.clean();
}

#[test]
fn a_watch_looks_again_when_the_data_changes() {
    let Some(world) = chain() else { return };
    let out = world.path("watched");
    let mut command = world.command(&["scan", "--watch", "--every", "100ms", "--all"]);
    command.stdout(std::fs::File::create(&out).unwrap());
    let mut child = command.spawn().unwrap();
    let told = || std::fs::read_to_string(&out).unwrap();
    crate::world::eventually("the first look", || {
        told().contains("new\tbase:latest\tCVE-2026-1") || told().contains("CVE-2026-1")
    });
    world.file(
        "more.json",
        osv("CVE-2026-5", "openssl", &json!([{"introduced": "0"}])).to_string(),
    );
    world
        .dhow(&["scan", "import", &path(&world, "more.json")])
        .exits(0);
    crate::world::eventually("what is new", || told().contains("CVE-2026-5"));
    child.kill().unwrap();
    child.wait().unwrap();
    world.clean();
}

fn keys(world: &World, name: &str) -> (String, String) {
    world
        .dhow(&["sign", "--generate-key", &path(world, name)])
        .exits(0);
    (
        path(world, &format!("{name}.key")),
        path(world, &format!("{name}.pub")),
    )
}

#[test]
fn advisory_data_is_carried_as_one_signed_file() {
    let Some(world) = chain() else { return };
    let (key, public) = keys(&world, "ada");
    let (_, stranger) = keys(&world, "eve");
    let file = path(&world, "data.adv");
    world.dhow(&["scan", "export", "--key", &key, &file]).exits(0);
    let there = World::new().unwrap();
    there.dhow(&["scan", "import", &file]).one_error(1).says("--key");
    there
        .dhow(&["scan", "import", "--key", &stranger, &file])
        .one_error(1)
        .says("verify the advisory data");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    there.file("changed", &bytes);
    there
        .dhow(&["scan", "import", "--key", &public, &path(&there, "changed")])
        .one_error(1);
    there.dhow(&["scan", "data"]).one_error(1).says("scan pull");
    let ran = there.dhow(&["scan", "import", "--key", &public, &file]).exits(0);
    assert!(
        ran.stdout.starts_with("3 advisories of ") && ran.stdout.contains("signed by key"),
        "{ran:?}"
    );
    // What is newer is not taken back, unless that is wanted.
    there.file(
        "more.json",
        osv("CVE-2026-9", "curl", &json!([{"introduced": "0"}])).to_string(),
    );
    there
        .dhow(&["scan", "import", &path(&there, "more.json")])
        .exits(0);
    there
        .dhow(&["scan", "import", "--key", &public, &file])
        .one_error(1)
        .says("--replace");
    there
        .dhow(&["scan", "import", "--replace", "--unverified", &file])
        .exits(0)
        .prints("3 advisories");
    let data = json_of(&there, &["scan", "data", "--format", "json"]);
    assert_eq!(data["Advisories"], 3);
    world.clean();
}

#[test]
fn advisory_data_comes_from_a_registry() {
    let Some(world) = chain() else { return };
    let served = Served::start(&world.path("registry"));
    let name = served.name("security/advisories:1");
    let (key, public) = keys(&world, "ada");
    world
        .dhow(&["scan", "push", "--key", &key, &name])
        .exits(0)
        .prints("sha256:");
    let there = World::new().unwrap();
    there
        .dhow(&["scan", "pull", &name])
        .one_error(1)
        .says("--key FILE");
    there
        .dhow(&["scan", "pull", "--key", &public, &name])
        .exits(0)
        .prints("3 advisories");
    // Nobody signed this one, and this is no data.
    let bare = served.name("security/bare:1");
    world.dhow(&["scan", "push", &bare]).exits(0);
    there
        .dhow(&["scan", "pull", "--key", &public, &bare])
        .one_error(1)
        .says("nobody signed");
    let image = served.name("fleet/app:1");
    world.dhow(&["tag", "app", &image]).exits(0);
    world.dhow(&["push", &image]).exits(0);
    there
        .dhow(&["scan", "pull", "--key", &public, &image])
        .one_error(1)
        .says("is no advisory data");
    world.clean();
}

#[test]
fn what_is_attested_in_the_registry_counts_when_it_is_signed() {
    let Some(world) = chain() else { return };
    let served = Served::start(&world.path("registry"));
    let image = served.name("fleet/app:1");
    world.dhow(&["tag", "app", &image]).exits(0);
    world.dhow(&["push", &image]).exits(0);
    let (key, public) = keys(&world, "ada");
    let (_, stranger) = keys(&world, "eve");
    let product = json!({"@id": "pkg:oci/app", "subcomponents": [{"@id": "pkg:deb/debian/curl"}]});
    world.file("vex.json", openvex(&[statement("CVE-2026-2", &product, "fixed")]));
    world
        .dhow(&[
            "attest",
            "--key",
            &key,
            "--type",
            "openvex",
            "--predicate",
            &path(&world, "vex.json"),
            &image,
        ])
        .exits(0);
    let scan = |key: &str| {
        let ran = world
            .dhow(&[
                "scan", "--format", "json", "--vex", "attested", "--key", key, &image,
            ])
            .exits(0);
        let scan: Value = serde_json::from_str(&ran.stdout).unwrap();
        (ids(&scan).join(" "), ran.stderr)
    };
    assert_eq!(scan(&public).0, "CVE-2026-1");
    let (found, warned) = scan(&stranger);
    assert_eq!(found, "CVE-2026-2 CVE-2026-1");
    assert!(warned.contains("does not count"), "{warned}");
    world
        .dhow(&["scan", "--vex", "attested", &image])
        .one_error(1)
        .says("--key FILE");
    world
        .dhow(&["scan", "--vex", "attested", "--key", &public, "busybox"])
        .one_error(1)
        .says("never was in a registry");
    world.clean();
}
