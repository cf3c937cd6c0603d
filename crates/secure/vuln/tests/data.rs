//! Advisory data of every kind, compiled, and what is found with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use dhow_types::ErrorKind;
use dhow_vuln::{Database, Exploit, Feed, Finding, Importer, Level, Query, State, read_feed};
use proptest::prelude::*;
use serde_json::json;

fn compiled(path: &Path, documents: &[serde_json::Value]) -> Database {
    let importer = Importer::begin(path, true).unwrap();
    for document in documents {
        importer
            .document("test", &serde_json::to_vec(document).unwrap())
            .unwrap();
    }
    importer.finish("2026-01-01T00:00:00Z").unwrap();
    Database::open(path).unwrap()
}

fn query(ecosystem: &str, name: &str, version: &str) -> Query {
    Query {
        ecosystem: ecosystem.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

fn find(database: &Database, ecosystem: &str, name: &str, version: &str) -> Vec<Finding> {
    database
        .findings(&[query(ecosystem, name, version)])
        .unwrap()
        .found
}

/// Name, state, fix.
fn told(findings: &[Finding]) -> Vec<(String, &'static str, Option<&str>)> {
    findings
        .iter()
        .map(|finding| {
            (
                finding.advisory.known_as().to_owned(),
                finding.state.name(),
                finding.fixed.as_deref(),
            )
        })
        .collect()
}

fn told_of(
    name: &str,
    state: &'static str,
    fixed: Option<&'static str>,
) -> (String, &'static str, Option<&'static str>) {
    (name.to_owned(), state, fixed)
}

fn osv(id: &str, upstream: &[&str], affected: serde_json::Value) -> serde_json::Value {
    json!({
        "schema_version": "1.7.0", "id": id, "modified": "2026-01-01T00:00:00Z", "upstream": upstream,
        "summary": "a thing\nwith a second line", "affected": affected,
    })
}

fn debian(release: &str, package: &str, events: serde_json::Value) -> serde_json::Value {
    json!({
        "package": {"ecosystem": format!("Debian:{release}"), "name": package},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    })
}

#[test]
fn a_release_has_its_own_fix_and_another_release_none() {
    let dir = tempfile::tempdir().unwrap();
    let record = osv(
        "DEBIAN-CVE-2026-1",
        &["CVE-2026-1"],
        json!([
            debian(
                "12",
                "openssl",
                json!([{"introduced": "0"}, {"fixed": "3.0.18-1~deb12u1"}])
            ),
            debian("11", "openssl", json!([{"introduced": "0"}])),
        ]),
    );
    let database = compiled(&dir.path().join("db"), &[record]);
    let at = |release: &str, version: &str| find(&database, release, "openssl", version);
    assert_eq!(
        told(&at("Debian:12", "3.0.17-1~deb12u2")),
        [told_of("CVE-2026-1", "affected", Some("3.0.18-1~deb12u1"))]
    );
    assert_eq!(told(&at("Debian:12", "3.0.18-1~deb12u1")), []);
    assert_eq!(told(&at("Debian:12", "3.0.18-1~deb12u2")), []);
    assert_eq!(
        told(&at("Debian:11", "1.1.1w-0")),
        [told_of("CVE-2026-1", "affected", None)]
    );
    assert_eq!(told(&at("Debian:13", "1")), []);
    assert_eq!(
        at("Debian:12", "1")[0].advisory.summary,
        "a thing with a second line"
    );
}

#[test]
fn events_count_in_the_order_of_their_versions() {
    let dir = tempfile::tempdir().unwrap();
    let events =
        json!([{"fixed": "2.9-1"}, {"fixed": "1.10-1"}, {"introduced": "2.0-1"}, {"introduced": "0"}]);
    let record = osv(
        "DEBIAN-CVE-2026-7",
        &["CVE-2026-7"],
        json!([debian("12", "a", events)]),
    );
    let database = compiled(&dir.path().join("db"), &[record]);
    for (version, fixed) in [
        ("1.9-1", Some("1.10-1")),
        ("1.10-1", None),
        ("2.0-1", Some("2.9-1")),
        ("2.10-1", None),
    ] {
        let found = find(&database, "Debian:12", "a", version);
        assert_eq!(
            found.first().and_then(|found| found.fixed.as_deref()),
            fixed,
            "{version}"
        );
    }
}

#[test]
fn an_advisory_of_a_distribution_is_known_by_the_cve_that_it_mends() {
    let record = |ecosystem: &str, related: &[&str]| {
        let affected = json!([{"package": {"ecosystem": ecosystem, "name": "patch"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.7.6-11.el8"}]}]}]);
        let mut record = osv("ALSA-2020:1852", &[], affected);
        record["related"] = json!(related);
        read_feed(&serde_json::to_vec(&record).unwrap())
            .unwrap()
            .1
            .remove(0)
    };
    assert_eq!(
        record("AlmaLinux:8", &["CVE-2019-1", "x"]).known_as(),
        "CVE-2019-1"
    );
    let several = record("AlmaLinux:8", &["CVE-2019-1", "CVE-2019-2"]);
    assert_eq!((several.known_as(), several.aliases.len()), ("ALSA-2020:1852", 2));
    // Elsewhere it is only something like it.
    assert_eq!(record("npm", &["CVE-2019-1"]).known_as(), "ALSA-2020:1852");
}

#[test]
fn red_hats_repositories_are_of_one_release() {
    let dir = tempfile::tempdir().unwrap();
    let affected = |repository: &str| {
        json!({"package": {"ecosystem": format!("Red Hat:{repository}"), "name": "openssl-libs"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1:3.0.7-25.el9"}]}]})
    };
    let record = osv(
        "RHSA-2024:1",
        &["CVE-2024-1"],
        json!([
            affected("enterprise_linux:9::appstream"),
            affected("enterprise_linux:9::baseos"),
            affected("rhel_eus:8.6::baseos")
        ]),
    );
    let database = compiled(&dir.path().join("db"), &[record]);
    let at = |release: &str, version: &str| find(&database, release, "openssl-libs", version);
    assert_eq!(
        told(&at("Red Hat:enterprise_linux:9", "1:3.0.7-24.el9")),
        [told_of("CVE-2024-1", "affected", Some("1:3.0.7-25.el9"))]
    );
    assert_eq!(told(&at("Red Hat:enterprise_linux:9", "1:3.0.7-25.el9")), []);
    assert_eq!(told(&at("Red Hat:enterprise_linux:8", "1:1")), []);
}

#[test]
fn suses_products_and_modules_are_of_one_release() {
    let dir = tempfile::tempdir().unwrap();
    let affected = |product: &str, fixed: &str| {
        json!({"package": {"ecosystem": format!("SUSE:Linux Enterprise {product}"), "name": "openssl-3"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]})
    };
    let record = osv(
        "SUSE-SU-2024:1",
        &["CVE-2024-1"],
        json!([
            affected("Module for Basesystem 15 SP5", "3.0.8-1"),
            affected("Server 15 SP4-LTSS", "3.0.8-2"),
            affected("Module for Python 3 15 SP6", "3.0.8-3"),
            affected("Server LTSS Extended Security 12 SP5", "3.0.8-4"),
            affected("Server 16.0", "3.0.8-5"),
            affected("Micro 5.3", "3.0.8-6"),
            affected("Server 12-LTSS", "3.0.8-7"),
        ]),
    );
    let database = compiled(&dir.path().join("db"), &[record]);
    for (release, fixed) in [
        ("15 SP5", Some("3.0.8-1")),
        ("15 SP4", Some("3.0.8-2")),
        ("15 SP6", Some("3.0.8-3")),
        ("12 SP5", Some("3.0.8-4")),
        ("16.0", Some("3.0.8-5")),
        ("Micro 5.3", Some("3.0.8-6")),
        ("12", Some("3.0.8-7")),
        ("15", None),
        ("5.3", None),
    ] {
        let release = format!("SUSE:Linux Enterprise {release}");
        let wanted = fixed.map(|fixed| told_of("CVE-2024-1", "affected", Some(fixed)));
        let found = find(&database, &release, "openssl-3", "3.0.7-9");
        assert_eq!(told(&found), wanted.into_iter().collect::<Vec<_>>(), "{release}");
    }
}

#[test]
fn packages_of_modules_and_of_the_distribution_itself_are_not_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let record = |id: &str, fixed: &str| {
        let ranges = json!([{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]);
        let package = json!({"ecosystem": "Rocky Linux:8", "name": "perl"});
        osv(id, &[id], json!([{"package": package, "ranges": ranges}]))
    };
    let (plain, module) = ("4:5.26.3-422.el8", "4:5.30.1-453.module+el8.6.0+996+0ef5d8ca");
    let records = [record("CVE-2024-1", plain), record("CVE-2024-2", module)];
    let database = compiled(&dir.path().join("db"), &records);
    for (version, found) in [
        ("4:5.26.3-421.el8", Some(("CVE-2024-1", plain))),
        ("4:5.26.3-422.el8", None),
        (
            "4:5.30.1-452.module+el8.4.0+646+4d1a6c2f",
            Some(("CVE-2024-2", module)),
        ),
        (
            "4:5.24.4-404.module_el8.6.0+2771+1a0a4f2e",
            Some(("CVE-2024-2", module)),
        ),
    ] {
        let wanted = found.map(|(id, fixed)| told_of(id, "affected", Some(fixed)));
        let found = find(&database, "Rocky Linux:8", "perl", version);
        assert_eq!(told(&found), wanted.into_iter().collect::<Vec<_>>(), "{version}");
    }
}

#[test]
fn withdrawn_records_find_nothing_and_a_newer_form_takes_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let affected = json!([debian("12", "a", json!([{"introduced": "0"}]))]);
    let mut record = osv("DEBIAN-CVE-2026-2", &["CVE-2026-2"], affected.clone());
    let database = compiled(&path, &[record.clone()]);
    assert_eq!(find(&database, "Debian:12", "a", "1").len(), 1);
    // The same, fixed meanwhile; what was there stays beside it.
    record["affected"] = json!([debian("12", "a", json!([{"introduced": "0"}, {"fixed": "2"}]))]);
    let other = osv("DEBIAN-CVE-2026-3", &["CVE-2026-3"], affected.clone());
    let database = compiled(&path, &[record, other]);
    assert_eq!(
        told(&find(&database, "Debian:12", "a", "2")),
        [told_of("CVE-2026-3", "affected", None)]
    );
    assert_eq!(database.facts().unwrap().advisories, 2);
    let mut withdrawn = osv("DEBIAN-CVE-2026-4", &["CVE-2026-4"], affected);
    withdrawn["withdrawn"] = json!("2026-02-01T00:00:00Z");
    let database = compiled(&path, &[withdrawn]);
    assert_eq!(database.affected("CVE-2026-4").unwrap(), []);
}

#[test]
fn what_only_gathers_others_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let affected = json!([debian("12", "a", json!([{"introduced": "0"}, {"fixed": "2"}]))]);
    let records = [
        osv("DEBIAN-CVE-2026-1", &["CVE-2026-1"], affected.clone()),
        osv("DSA-1-1", &["CVE-2026-1"], affected.clone()),
        osv("DSA-2-1", &["CVE-2026-9"], affected.clone()),
        osv("DSA-3-1", &[], affected),
    ];
    let database = compiled(&dir.path().join("db"), &[json!(records)]);
    let found = find(&database, "Debian:12", "a", "1");
    let names: Vec<&str> = found.iter().map(|finding| finding.advisory.known_as()).collect();
    assert_eq!(names, ["CVE-2026-1", "CVE-2026-9", "DSA-3-1"]);
}

#[test]
fn debians_tracker_keeps_what_it_says_of_each_release() {
    let dir = tempfile::tempdir().unwrap();
    let issue = |bookworm: serde_json::Value| json!({"description": "x", "releases": {"bookworm": bookworm}});
    let tracker = json!({"curl": {
        "CVE-1": issue(json!({"status": "resolved", "fixed_version": "7.88.1-10+deb12u5", "urgency": "medium"})),
        "CVE-2": issue(json!({"status": "open", "urgency": "unimportant"})),
        "CVE-3": issue(json!({"status": "open", "nodsa": "minor", "nodsa_reason": "postponed", "urgency": "low**"})),
        "CVE-4": issue(json!({"status": "open", "nodsa_reason": "ignored", "urgency": "not yet assigned"})),
        "CVE-5": issue(json!({"status": "resolved", "fixed_version": "0", "urgency": "unimportant"})),
        "CVE-6": issue(json!({"status": "undetermined", "urgency": "high"})),
        "CVE-7": issue(json!({"status": "open", "urgency": "end-of-life"})),
        "CVE-8": {"releases": {"sid": {"status": "open"}}},
        "CVE-9": issue(json!({"status": "resolved", "urgency": "low"})),
    }});
    let database = compiled(&dir.path().join("db"), &[tracker]);
    let found = find(&database, "Debian:12", "curl", "7.88.1-10+deb12u4");
    assert_eq!(
        told(&found),
        [
            told_of("CVE-1", "affected", Some("7.88.1-10+deb12u5")),
            told_of("CVE-2", "unimportant", None),
            told_of("CVE-3", "postponed", None),
            told_of("CVE-4", "ignored", None),
            told_of("CVE-6", "undetermined", None),
            told_of("CVE-7", "end-of-life", None),
        ]
    );
    let levels: Vec<Level> = found.iter().map(|finding| finding.severity.level).collect();
    assert_eq!(
        levels,
        [
            Level::Medium,
            Level::Negligible,
            Level::Low,
            Level::Unknown,
            Level::High,
            Level::Unknown
        ]
    );
    assert_eq!(told(&find(&database, "Debian:unstable", "curl", "1")).len(), 1);
}

#[test]
fn secdb_says_fixes_and_what_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let secdb = json!({
        "distroversion": "v3.20", "reponame": "main",
        "packages": [{"pkg": {"name": "openssl", "secfixes": {
            "3.3.2-r0": ["CVE-2024-6119", "CVE-2024-1 GHSA-x"], "0": ["CVE-2023-1"], "3.0.1-r0": ["CVE-2021-1"],
        }}}],
    });
    let database = compiled(&dir.path().join("db"), &[secdb]);
    let found = find(&database, "Alpine:v3.20", "openssl", "3.3.1-r3");
    assert_eq!(
        told(&found),
        [
            told_of("CVE-2024-1", "affected", Some("3.3.2-r0")),
            told_of("CVE-2024-6119", "affected", Some("3.3.2-r0"))
        ]
    );
    assert_eq!(database.affected("GHSA-x").unwrap().len(), 1);
    assert_eq!(
        database.affected("CVE-2023-1").unwrap()[0].affected[0].state,
        State::NotAffected
    );
}

#[test]
fn ranges_of_languages_have_several_parts_and_names_have_no_case_where_the_ecosystem_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let events =
        json!([{"introduced": "1.0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"last_affected": "2.3"}]);
    let affected = json!([{
        "package": {"ecosystem": "PyPI", "name": "Zope.Interface"},
        "ranges": [{"type": "ECOSYSTEM", "events": events}, {"type": "GIT", "events": [{"introduced": "0"}]}],
        "versions": ["0.9"],
    }, {
        "package": {"ecosystem": "npm", "name": "x"}, "versions": ["1.0.0", "1.0.2"],
    }, {
        "package": {"ecosystem": "GitHub Actions", "name": "x"}, "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }]);
    let mut record = osv("GHSA-1", &[], affected);
    record["aliases"] = json!(["CVE-2026-5", "PYSEC-1"]);
    record["severity"] = json!([{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"},
        {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}]);
    let database = compiled(&dir.path().join("db"), &[record]);
    let hit = |version: &str| find(&database, "PyPI", "zope-interface", version);
    for (version, fixed) in [
        ("0.9", None),
        ("1.0", Some("1.5")),
        ("1.4.9", Some("1.5")),
        ("2.3", None),
    ] {
        if version == "0.9" {
            // Listed, but ranges say more exactly.
            assert_eq!(told(&hit(version)), []);
        } else {
            assert_eq!(
                told(&hit(version)),
                [told_of("CVE-2026-5", "affected", fixed)],
                "{version}"
            );
        }
    }
    assert_eq!((hit("1.5").len(), hit("2.3.1").len()), (0, 0));
    let severity = &hit("1.0")[0].severity;
    assert_eq!((severity.level, severity.score), (Level::High, Some(75)));
    assert_eq!(find(&database, "npm", "x", "1.0.2").len(), 1);
    assert_eq!(find(&database, "npm", "x", "1.0.1").len(), 0);
}

#[test]
fn a_version_that_cannot_be_ordered_is_told_and_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let affected = json!([debian("12", "a", json!([{"introduced": "1"}, {"fixed": "2"}]))]);
    let database = compiled(&dir.path().join("db"), &[osv("X-1", &[], affected)]);
    let long = "1".repeat(2000);
    let answer = database.findings(&[query("Debian:12", "a", &long)]).unwrap();
    assert_eq!(
        (answer.found.len(), answer.unordered),
        (0, vec![(0, "X-1".to_owned())])
    );
}

#[test]
fn records_that_are_wrong_are_refused_by_name_and_keep_no_other_out() {
    let affected = json!([debian("12", "a", json!([{"introduced": "0"}]))]);
    let good = osv("GOOD-1", &[], affected.clone());
    let mut bad = osv("BAD-1", &[], affected);
    bad["affected"][0]["ranges"][0]["events"][0]["introduced"] = json!(7);
    let nameless = json!({"id": "x y", "modified": "z", "affected": []});
    let bytes = serde_json::to_vec(&json!([bad, good, nameless])).unwrap();
    let (feed, advisories, refused) = read_feed(&bytes).unwrap();
    assert_eq!((feed, advisories.len()), (Feed::Osv, 1));
    assert_eq!(
        refused,
        ["BAD-1: introduced is no version", "x y: its id is no name"]
    );
    let lines = [
        serde_json::to_vec(&good).unwrap(),
        b"\n".to_vec(),
        serde_json::to_vec(&good).unwrap(),
    ]
    .concat();
    assert_eq!(read_feed(&lines).unwrap().1.len(), 2);
    for nothing in [&b"{}"[..], b"[1]", b"no json", b"", b"{\"a\":{}}"] {
        let error = read_feed(nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn what_is_known_of_attacks_stands_beside_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let affected = json!([debian("12", "a", json!([{"introduced": "0"}]))]);
    let database = compiled(&path, &[osv("DEBIAN-CVE-2026-1", &["CVE-2026-1"], affected)]);
    let exploit = |database: &Database| find(database, "Debian:12", "a", "1")[0].exploit.clone();
    assert_eq!(exploit(&database), Exploit::default());
    let add = |name: &str, bytes: &[u8]| {
        let importer = Importer::begin(&path, true).unwrap();
        let imported = importer.document(name, bytes).unwrap();
        importer.finish("2026-01-02T00:00:00Z").unwrap();
        (imported.feed, imported.advisories, Database::open(&path).unwrap())
    };
    let kev = json!({"catalogVersion": "1", "vulnerabilities": [{"cveID": "CVE-2026-1", "dateAdded": "2026-01-01"}]});
    let (feed, count, _) = add("kev.json", &serde_json::to_vec(&kev).unwrap());
    assert_eq!((feed, count), (Feed::Kev, 1));
    let (feed, count, database) = add(
        "epss.csv",
        b"cve,epss,percentile\nCVE-2026-1,0.5,0.9\nCVE-2026-2,0.1,0.2\n",
    );
    assert_eq!((feed, count), (Feed::Epss, 2));
    let known = exploit(&database);
    assert_eq!(
        (known.epss, known.percentile, known.known.as_deref()),
        (Some(50_000), Some(90_000), Some("2026-01-01"))
    );
    // A later list is the whole of its kind.
    let (_, _, database) = add("epss.csv", b"cve,epss,percentile\nCVE-2026-2,0.1,0.2\n");
    assert_eq!(
        (exploit(&database).epss, exploit(&database).known.is_some()),
        (None, true)
    );
    assert_eq!(database.facts().unwrap().advisories, 1);
}

#[test]
fn what_is_in_the_data_is_known_without_counting_it_and_a_lie_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    // A name that means something to who reads names of databases.
    let path = dir.path().join("a?b#c%41 d&immutable=0");
    let records = [
        osv(
            "CVE-2026-1",
            &[],
            json!([debian("12", "curl", json!([{"introduced": "0"}]))]),
        ),
        osv(
            "CVE-2026-2",
            &[],
            json!([debian("12", "curl", json!([{"introduced": "0"}]))]),
        ),
        osv(
            "CVE-2026-3",
            &[],
            json!([debian("13", "curl", json!([{"introduced": "0"}]))]),
        ),
    ];
    let database = compiled(&path, &records);
    let facts = database.facts().unwrap();
    let ecosystems = [("Debian:12".to_owned(), 1), ("Debian:13".to_owned(), 1)];
    assert_eq!((facts.advisories, &facts.ecosystems[..]), (3, &ecosystems[..]));
    database.check().unwrap();
    drop(database);
    let change = |sql: &str| {
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        Database::open(&path).unwrap()
    };
    let lying = change("UPDATE fact SET value = '[9,[]]' WHERE key = 'counts'");
    assert_eq!(lying.facts().unwrap().advisories, 9);
    assert_eq!(lying.check().unwrap_err().kind(), ErrorKind::DataLoss);
    // Data of an older program.
    let older = change("DELETE FROM fact WHERE key = 'counts'");
    assert_eq!(older.facts().unwrap(), facts);
    older.check().unwrap();
}

#[test]
fn an_import_that_fails_leaves_the_old_data_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let affected = json!([debian("12", "a", json!([{"introduced": "0"}]))]);
    compiled(&path, &[osv("X-1", &[], affected)]);
    let importer = Importer::begin(&path, true).unwrap();
    assert!(importer.document("bad", b"{}").is_err());
    drop(importer);
    let names = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["db", "db.lock"]);
    assert_eq!(
        find(&Database::open(&path).unwrap(), "Debian:12", "a", "1").len(),
        1
    );
    // One that was killed half-way left this.
    std::fs::write(path.with_extension("new"), b"half of it").unwrap();
    Importer::begin(&path, true)
        .unwrap()
        .finish("2026-01-02T00:00:00Z")
        .unwrap();
    assert_eq!(names(), ["db", "db.lock"]);
    assert_eq!(
        find(&Database::open(&path).unwrap(), "Debian:12", "a", "1").len(),
        1
    );
    std::fs::write(&path, b"SQLite format 3\0 and nothing more of it").unwrap();
    assert_eq!(Database::open(&path).unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(
        Database::open(&dir.path().join("none")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn imports_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = &path;
            scope.spawn(move || {
                let affected = json!([debian("12", "a", json!([{"introduced": "0"}]))]);
                compiled(path, &[osv(&format!("X-{number}"), &[], affected)]);
            });
        }
    });
    assert_eq!(Database::open(&path).unwrap().facts().unwrap().advisories, 8);
}

/// Advisories of Debian's own, where they are at hand: versions that a fix says are fixed are, and the last before are not.
#[test]
fn every_fix_of_the_shared_records_is_a_fix() {
    let folder = std::env::var_os("DHOW_DATA")
        .map_or_else(|| "../../../../shared/data".into(), std::path::PathBuf::from);
    let Ok(bytes) = std::fs::read(folder.join("osv-debian.json")) else {
        println!("skipped: no osv-debian.json in {}", folder.display());
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let importer = Importer::begin(&path, false).unwrap();
    let imported = importer.document("osv-debian.json", &bytes).unwrap();
    assert_eq!(imported.refused, Vec::<String>::new());
    importer.finish("2026-01-01T00:00:00Z").unwrap();
    let database = Database::open(&path).unwrap();
    let mut checked = 0;
    for advisory in read_feed(&bytes).unwrap().1 {
        let cves: Vec<&String> = advisory
            .aliases
            .iter()
            .filter(|name| name.starts_with("CVE-"))
            .collect();
        for affected in &advisory.affected {
            for range in &affected.ranges {
                let Some(fixed) = &range.fixed else { continue };
                let names = |version: &str| -> Vec<String> {
                    find(&database, &affected.ecosystem, &affected.package, version)
                        .iter()
                        .map(|finding| finding.advisory.known_as().to_owned())
                        .collect()
                };
                let own = advisory.known_as().to_owned();
                assert!(!names(fixed).contains(&own), "{} {fixed}", advisory.id);
                // `~` is before everything. Of what only gathers others, these are found.
                let before = names(&format!("{fixed}~"));
                let by_others = !cves.is_empty() && cves.iter().all(|cve| before.contains(cve));
                assert!(before.contains(&own) || by_others, "{} {fixed}~", advisory.id);
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

proptest! {
    #[test]
    fn no_document_stops_the_reader(text in "\\PC{0,300}", number in any::<i64>()) {
        drop(read_feed(text.as_bytes()));
        for document in [
            json!({"id": text, "modified": text, "affected": [{"package": {"ecosystem": text, "name": number}}]}),
            json!({"id": "a", "modified": "", "affected": [{"package": {"ecosystem": "Debian:12", "name": text},
                "ranges": [{"events": [{"introduced": text}, {"fixed": number}]}], "versions": [text, number]}]}),
            json!({"distroversion": text, "packages": [{"pkg": {"name": text, "secfixes": {text.clone(): [text, number]}}}]}),
            json!({text.clone(): {text.clone(): {"releases": {"bookworm": {"status": text, "fixed_version": number}}}}}),
        ] {
            drop(read_feed(&serde_json::to_vec(&document).unwrap()));
        }
    }
}
