use super::*;

fn id(digit: char) -> ContainerId {
    digit.to_string().repeat(64).parse().unwrap()
}

#[test]
fn options_are_read_and_others_named() {
    let options: Vec<String> = ["type:svirt_t", "level:s0:c1,c2", "filetype:x_file_t"]
        .map(str::to_owned)
        .into();
    let choice = Choice::parse(&options).unwrap();
    assert_eq!(
        (choice.kind, choice.level, choice.file_kind, choice.disable),
        (Some("svirt_t"), Some("s0:c1,c2"), Some("x_file_t"), false)
    );
    for wrong in [
        "",
        "type:",
        "colour:red",
        "type:a b",
        "type:a\n",
        "disable:x",
        "type",
    ] {
        let options = [wrong.to_owned()];
        assert_eq!(
            Choice::parse(&options).err().unwrap().kind(),
            ErrorKind::InvalidArgument,
            "{wrong}"
        );
    }
}

#[test]
fn contexts_are_those_of_the_policy() {
    let text = "# policy\nprocess = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n";
    assert_eq!(
        context(text, "process").unwrap(),
        ["system_u", "system_r", "container_t"]
    );
    assert_eq!(context(text, "file").unwrap()[2], "container_file_t");
    assert_eq!(context("process = \"a:b\"", "process"), None);
    assert_eq!(
        shared("system_u:object_r:container_file_t:s0:c1,c2"),
        "system_u:object_r:container_file_t:s0"
    );
}

#[test]
fn a_systemd_has_a_type_of_its_own_where_the_policy_has_one() {
    let kind = |text: &str, systemd| of_processes(text, systemd).unwrap()[2].clone();
    let plain = "process = \"system_u:system_r:container_t:s0\"\n";
    let both = format!("{plain}init_process = \"system_u:system_r:container_init_t:s0\"\n");
    assert_eq!(kind(&both, true), "container_init_t");
    assert_eq!(kind(&both, false), "container_t");
    assert_eq!(kind(plain, true), "container_t");
}

#[test]
fn pairs_are_two_of_a_kind_in_order() {
    assert_eq!(pair(&[0, 7, 0, 3]), Some((3, 7)));
    assert_eq!(pair(&[0, 3, 0, 3]), None);
    assert_eq!(pair(&[255, 255, 0, 0]), Some((0, 1023)));
    assert_eq!(pair(&[1]), None);
}

#[test]
fn a_pair_belongs_to_one_container_until_it_is_released() {
    let root = tempfile::tempdir().unwrap();
    let pairs: std::collections::BTreeSet<String> =
        (0..50).map(|_| reserve(root.path(), &id('a')).unwrap()).collect();
    assert_eq!(pairs.len(), 50);
    let pair = pairs.first().unwrap();
    let labels = SelinuxLabels {
        process: format!("u:r:t:s0:{pair}"),
        mount: format!("u:r:f:s0:{pair}"),
    };
    release(root.path(), &id('b'), &labels).unwrap();
    assert!(
        root.path().join("mcs").join(pair).exists(),
        "another container's stays"
    );
    release(root.path(), &id('a'), &labels).unwrap();
    assert!(!root.path().join("mcs").join(pair).exists());
    release(root.path(), &id('a'), &labels).unwrap();
    for process in ["u:r:t:s0", "u:r:t:s0:../containers", ""] {
        let odd = SelinuxLabels {
            process: process.to_owned(),
            ..SelinuxLabels::default()
        };
        release(root.path(), &id('a'), &odd).unwrap();
    }
}

#[test]
fn a_stale_reservation_is_taken_back_and_a_living_ones_not() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("mcs");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(root.path().join("containers").join(id('b').as_str())).unwrap();
    let long_ago = std::time::SystemTime::now() - 2 * ON_ITS_WAY;
    for (name, owner, old, stays) in [
        ("c1,c2", 'a', true, false),
        ("c1,c3", 'a', false, true),
        ("c1,c4", 'b', true, true),
    ] {
        let file = folder.join(name);
        fs::write(&file, id(owner).as_str()).unwrap();
        if old {
            fs::File::open(&file).unwrap().set_modified(long_ago).unwrap();
        }
        forget_stale(root.path(), &file);
        assert_eq!(file.exists(), stays, "{name}");
    }
}

#[test]
fn the_hosts_own_folders_are_not_relabelled() {
    let scratch = tempfile::tempdir().unwrap();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    for path in [
        Path::new("/"),
        Path::new("/etc/"),
        Path::new("/usr/lib"),
        Path::new("/var/../home"),
        &link,
    ] {
        let error = relabel(path, "u:r:t:s0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", path.display());
    }
}

#[test]
fn every_file_of_a_folder_is_labelled_and_no_link_followed() {
    // Without SELinux the attribute is stored as it is given, by root alone.
    if !rustix::process::geteuid().is_root() || dhow_runtime::lsm::selinux_enabled() {
        eprintln!("skipped: needs root, on a host without SELinux");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (tree, outside) = (scratch.path().join("tree"), scratch.path().join("outside"));
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/file"), "").unwrap();
    fs::write(&outside, "").unwrap();
    std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
    if relabel(&tree, "u:r:t:s0").is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
        eprintln!("skipped: this process may not set labels");
        return;
    }
    let label = |path: &Path| {
        let mut value = [0; 64];
        rustix::fs::lgetxattr(path, c"security.selinux", &mut value)
            .map(|length| String::from_utf8_lossy(&value[..length]).into_owned())
            .unwrap_or_default()
    };
    for name in ["", "a", "a/b", "a/b/file", "link"] {
        assert_eq!(
            label(&tree.join(name)).trim_end_matches('\0'),
            "u:r:t:s0",
            "{name}"
        );
    }
    assert_eq!(label(&outside), "");
    relabel(&outside, "u:r:f:s0").unwrap();
    assert_eq!(label(&outside), "u:r:f:s0");
}

#[test]
fn a_layer_is_labelled_with_all_below_and_told_by_its_own_label() {
    use super::layers::{carries, label_all};
    // Without SELinux the attribute is stored as it is given, by root alone.
    if !rustix::process::geteuid().is_root() || dhow_runtime::lsm::selinux_enabled() {
        eprintln!("skipped: needs root, on a host without SELinux");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let layer = scratch.path().join("layer");
    fs::create_dir_all(layer.join("bin")).unwrap();
    fs::write(layer.join("bin/sh"), "").unwrap();
    let label = "system_u:object_r:container_ro_file_t:s0";
    if label_all(&layer, label).is_err_and(|errno| errno == Errno::PERM) {
        eprintln!("skipped: this process may not set labels");
        return;
    }
    for name in ["", "bin", "bin/sh"] {
        assert!(carries(&layer.join(name), label), "{name}");
    }
    assert!(!carries(scratch.path(), label), "nothing above");
    // Whoever made it.
    assert!(carries(&layer, "unconfined_u:object_r:container_ro_file_t:s0"));
    // The files of another container, of another type, and a label that is none.
    for other in [
        "system_u:object_r:container_ro_file_t:s0:c1,c2",
        "system_u:object_r:container_file_t:s0",
        "container_ro_file_t",
        "",
    ] {
        assert!(!carries(&layer, other), "{other}");
    }
    assert_eq!(
        label_all(&layer.join("bin/sh"), label).unwrap_err(),
        Errno::NOTDIR
    );
}

#[test]
fn a_host_without_selinux_has_no_label_for_layers() {
    if dhow_runtime::lsm::selinux_enabled() {
        eprintln!("skipped: this host has SELinux");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("layers");
    fs::create_dir(&folder).unwrap();
    super::layers::mark(root.path()).unwrap();
    super::layers::make_readable(std::iter::once(folder.as_path())).unwrap();
    assert_eq!(
        rustix::fs::lgetxattr(&folder, c"security.selinux", &mut [0_u8; 64][..]),
        Err(Errno::NODATA)
    );
}
