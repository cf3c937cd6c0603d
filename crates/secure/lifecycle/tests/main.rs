//! Statements and tables.

#![expect(clippy::unwrap_used, reason = "a helper of tests, which may panic")]

use std::collections::BTreeMap;

use dhow_lifecycle::{Date, KIND_MICROSOFT, KIND_NEUTRAL, Standing, Statement, Table};
use proptest::prelude::*;

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

fn statement() -> Statement {
    Statement {
        date: day("2026-06-01"),
        successor: Some("app:2".to_owned()),
        reason: Some("CVE-2026-1".to_owned()),
        revoked: false,
        signed: true,
        by: None,
    }
}

#[test]
fn the_day_decides() {
    let mut statement = statement();
    assert_eq!(statement.on(day("2026-05-30")), Standing::Deprecated(2));
    assert_eq!(statement.on(day("2025-06-01")), Standing::Deprecated(365));
    assert_eq!(statement.on(day("2026-06-01")), Standing::Ended);
    statement.revoked = true;
    assert_eq!(statement.on(day("2026-06-01")), Standing::Revoked);
    assert_eq!(
        statement.told(day("2026-06-02")),
        "it has been revoked since 2026-06-01: CVE-2026-1; use app:2 instead"
    );
}

#[test]
fn it_reads_back_as_it_was_written_but_for_the_signature() {
    let written = statement();
    assert_eq!(Statement::decode(&written.encode()).unwrap(), written);
    for kind in [KIND_MICROSOFT, KIND_NEUTRAL] {
        let read = Statement::of(&written.annotations(kind)).unwrap();
        assert!(!read.signed);
        assert_eq!(Statement { signed: true, ..read }, written);
    }
}

#[test]
fn what_microsofts_tools_write_is_read_and_nonsense_is_not() {
    let key = "vnd.microsoft.artifact.lifecycle.end-of-life.date".to_owned();
    let of = |date: &str| Statement::of(&BTreeMap::from([(key.clone(), date.to_owned())]));
    assert_eq!(of("2026-06-01").unwrap().date, day("2026-06-01"));
    assert_eq!(of("2026-06-01T12:00:00Z").unwrap().date, day("2026-06-01"));
    for date in [
        "",
        "soon",
        "2026-13-01",
        "2026-06-01x",
        "99999-01-01",
        "2026-06-0\u{e4}",
    ] {
        of(date).unwrap_err();
    }
    Statement::of(&BTreeMap::new()).unwrap_err();
}

#[test]
fn releases_are_found_by_version() {
    let table = Table::built_in();
    let (release, ends) = table.release("debian", "12.5").unwrap();
    assert_eq!(release, "12");
    assert!(ends.extended > ends.end);
    assert_eq!(table.release("alpine", "3.20.3").unwrap().0, "3.20");
    assert_eq!(table.release("ubuntu", "22.04").unwrap().0, "22.04");
    assert!(table.release("alpine", "3").is_none());
    assert!(table.release("debian", "").is_none());
}

#[test]
fn tables_are_taken_in_all_forms_and_replace_what_was_known() {
    let mut table = Table::built_in();
    let v1 =
        br#"{"result":{"name":"debian","releases":[{"name":"12","eolFrom":"2030-01-01","eoesFrom":null}]}}"#;
    assert_eq!(table.import("x", v1).unwrap(), 1);
    let v0 = br#"[{"cycle":"20","eol":true},{"cycle":22,"eol":"2027-04-30","extendedSupport":false}]"#;
    assert_eq!(table.import("nodejs", v0).unwrap(), 2);
    let many = br#"{"alpine-linux":{"releases":[{"releaseCycle":"3.99","eol":"2031-01-01"}]}}"#;
    assert_eq!(table.import("x", many).unwrap(), 1);
    let mut read = Table::default();
    read.parse(&table.encode());
    for table in [&table, &read] {
        assert_eq!(
            table.release("debian", "12").unwrap().1.end,
            Some(day("2030-01-01"))
        );
        assert_eq!(
            table.release("nodejs", "20.1.2").unwrap().1.end,
            Some(day("1970-01-01"))
        );
        assert_eq!(table.release("alpine", "3.99.1").unwrap().0, "3.99");
    }
    for wrong in [
        "",
        "[]x",
        "7",
        "{\"a\":1}",
        r#"[{"cycle":"1","eol":"never"}]"#,
        r#"[{"eol":true}]"#,
    ] {
        table.import("x", wrong.as_bytes()).unwrap_err();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes in any::<Vec<u8>>(), text in ".{0,80}") {
        let _read = Statement::decode(&bytes);
        let _table = Table::default().import("x", &bytes);
        Table::default().parse(&text);
        let key = "vnd.artifact.lifecycle.end-of-life.date".to_owned();
        let _statement = Statement::of(&BTreeMap::from([(key, text)]));
    }
}
