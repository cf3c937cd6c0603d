//! User namespaces of a normal user's containers, which are made in that of the user.

use crate::unprivileged::Nobody;
use crate::world::Ran;

fn sh_in(nobody: &Nobody, image: &str, flags: &str, script: &str) -> Ran {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(flags.split_whitespace());
    args.extend([image, "sh", "-c", script]);
    nobody.dhow(&args)
}

/// A tar of these: path, mode, owner and group; a folder's path ends in a slash.
fn tar_of(entries: &[(&str, u32, u64, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, uid, gid) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(match path.ends_with('/') {
            true => tar::EntryType::Directory,
            false => tar::EntryType::Regular,
        });
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(*gid);
        header.set_size(0);
        builder.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A directory that a layer does not name looks as the layers below say.
#[test]
fn unprivileged_a_directory_that_is_implied_keeps_its_owner() {
    let Some(nobody) = Nobody::with_ids() else { return };
    let layers = [
        crate::samples::busybox_tar(),
        tar_of(&[("deep/", 0o1777, 5, 6)]),
        tar_of(&[("deep/f", 0o600, 7, 8)]),
    ];
    let archive = crate::samples::docker_archive_of("above", &layers);
    nobody.feed(&["load"], archive).ok();
    let script = "stat -c '%a %u:%g' /deep /deep/f";
    let seen = sh_in(&nobody, "above", "", script);
    assert_eq!(seen.ok(), "1777 5:6\n600 7:8");
}
