//! Classes of service on a tree that stands in for the kernel's: a directory gets its files when it is made.

use super::*;

fn fill(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::write(path.join("tasks"), "")?;
    fs::write(
        path.join("schemata"),
        "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n",
    )?;
    fs::create_dir(path.join("mon_groups"))
}

fn tree() -> (tempfile::TempDir, Resctrl) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("resctrl");
    fill(&root).unwrap();
    let resctrl = Resctrl {
        root,
        make: fill,
        remove: |path| fs::remove_dir_all(path),
    };
    (folder, resctrl)
}

fn class(text: &str) -> Result<Class, Error> {
    Class::parse(&serde_json::from_str(text).unwrap())
}

/// Enters, and writes its number as the container's process does.
fn enter(resctrl: &Resctrl, text: &str, id: &str) -> Result<Membership, Error> {
    let mut noted = None;
    let entrances = resctrl.enter(&class(text)?, id, |membership| {
        noted = serde_json::from_slice(&serde_json::to_vec(membership).unwrap()).unwrap();
        Ok(())
    })?;
    for entrance in &entrances {
        rustix::io::write(entrance, b"0").unwrap();
    }
    Ok(noted.unwrap())
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

#[test]
fn a_class_of_the_containers_own_comes_and_goes_with_it() {
    let (_folder, resctrl) = tree();
    let text = r#"{"l3CacheSchema": "L3:0=f;1=f0", "memBwSchema": "MB:0=20;1=70", "schemata": ["L2:0=3"], "enableMonitoring": true}"#;
    let membership = enter(&resctrl, text, "one").unwrap();
    let own = resctrl.root.join("one");
    // In the order that the standard has.
    assert!(read(own.join("schemata")).starts_with("L3:0=f;1=f0\nMB:0=20;1=70\nL2:0=3\n"));
    assert_eq!(read(own.join("tasks")), "0");
    assert_eq!(read(own.join("mon_groups/one/tasks")), "0");
    resctrl.leave(&membership).unwrap();
    assert!(!own.exists() && resctrl.root.exists());
    // What is gone is as good as removed.
    resctrl.leave(&membership).unwrap();
}

#[test]
fn a_named_class_is_made_with_schemata_found_without_and_stays() {
    let (_folder, resctrl) = tree();
    let error = enter(&resctrl, r#"{"closID": "gold"}"#, "one").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("gold is not there"), "{error}");
    let text = r#"{"closID": "gold", "schemata": ["L3:0=ff"]}"#;
    let membership = enter(&resctrl, text, "one").unwrap();
    assert!(!membership.made);
    let monitored = enter(&resctrl, r#"{"closID": "gold", "enableMonitoring": true}"#, "two").unwrap();
    let gold = resctrl.root.join("gold");
    assert!(gold.join("mon_groups/two").exists());
    resctrl.leave(&membership).unwrap();
    resctrl.leave(&monitored).unwrap();
    assert!(gold.exists() && !gold.join("mon_groups/two").exists());
    // The default class is the root.
    let membership = enter(&resctrl, r#"{"closID": "/"}"#, "three").unwrap();
    assert_eq!(read(resctrl.root.join("tasks")), "0");
    resctrl.leave(&membership).unwrap();
    assert!(resctrl.root.exists());
}

#[test]
fn without_schemata_none_is_written() {
    let (_folder, resctrl) = tree();
    let before = read(resctrl.root.join("schemata"));
    enter(&resctrl, "{}", "one").unwrap();
    assert_eq!(read(resctrl.root.join("one/schemata")), before);
}

#[test]
fn a_class_that_is_there_must_have_the_schemata() {
    let (_folder, resctrl) = tree();
    fill(&resctrl.root.join("gold")).unwrap();
    let ask = |l3: &str| {
        enter(
            &resctrl,
            &format!(r#"{{"closID": "gold", "l3CacheSchema": "{l3}"}}"#),
            "one",
        )
    };
    // Blanks, zeros and the order of domains are the kernel's.
    ask("L3:1=FFFFF;0=0fffff").unwrap();
    for other in ["L3:0=f", "L3:2=fffff", "L2:0=fffff", "L3:"] {
        let error = ask(other).unwrap_err().to_string();
        assert!(error.contains("other schemata"), "{other}: {error}");
    }
    assert!(enter(&resctrl, r#"{"closID": "gold", "memBwSchema": "MB:0=50"}"#, "one").is_err());
}

#[test]
fn what_is_no_class_is_refused() {
    for wrong in [
        r#"{"closID": ".."}"#,
        r#"{"closID": "a/b"}"#,
        r#"{"closID": "/a"}"#,
        r#"{"closID": "info"}"#,
        r#"{"closID": "a\n"}"#,
        r#"{"memBwSchema": "L3:0=1"}"#,
        r#"{"l3CacheSchema": "L3:0=1\nMB:0=1"}"#,
        r#"{"schemata": ["L3:0=1\n"]}"#,
    ] {
        assert_eq!(
            class(wrong).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{wrong}"
        );
    }
    assert!(class(r#"{"closID": "/"}"#).is_ok() && class(r#"{"closID": "a.b"}"#).is_ok());
}

#[test]
fn the_mount_is_found_in_the_table_of_mounts() {
    let table = "25 1 0:23 / /sys rw - sysfs sysfs rw\n30 25 0:26 / /sys/fs/res\\040ctrl rw shared:9 - resctrl resctrl rw\n";
    assert_eq!(mount_point(table), Some(PathBuf::from("/sys/fs/res ctrl")));
    assert_eq!(mount_point("25 1 0:23 / /resctrl rw - tmpfs resctrl rw\n"), None);
    assert_eq!(mount_point(""), None);
}

#[test]
fn the_kernels_words_are_told() {
    let (_folder, resctrl) = tree();
    fs::create_dir(resctrl.root.join("info")).unwrap();
    fs::write(
        resctrl.root.join("info/last_cmd_status"),
        "Mask f0f non-consecutive 1-bits\n",
    )
    .unwrap();
    let refused = Resctrl {
        make: |_| Err(io::ErrorKind::InvalidInput.into()),
        ..resctrl
    };
    let error = enter(&refused, "{}", "one").unwrap_err().to_string();
    assert!(error.contains("non-consecutive"), "{error}");
}

#[test]
fn statistics_are_of_the_monitoring_group_of_the_container() {
    let (_folder, resctrl) = tree();
    let membership = enter(&resctrl, r#"{"schemata": ["L3:0=f"], "enableCMT": true}"#, "one").unwrap();
    let data = resctrl.root.join("one/mon_groups/one/mon_data");
    for (domain, occupancy, total) in [("mon_L3_00", "4096", "7"), ("mon_L3_01", "Unavailable", "9")] {
        fs::create_dir_all(data.join(domain)).unwrap();
        fs::write(data.join(domain).join("llc_occupancy"), occupancy).unwrap();
        fs::write(data.join(domain).join("mbm_total_bytes"), total).unwrap();
    }
    let told = resctrl.allocation(&membership).unwrap();
    assert_eq!(told.root, ["L3:0=fffff;1=fffff", "MB:0=100;1=100"]);
    assert_eq!(told.own[0], "L3:0=f");
    let domain = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    };
    let wanted = [
        domain(&[("llc_occupancy", 4096), ("mbm_total_bytes", 7)]),
        domain(&[("mbm_total_bytes", 9)]),
    ];
    assert_eq!(told.monitors, wanted);
}
