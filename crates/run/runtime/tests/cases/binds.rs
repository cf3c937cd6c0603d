//! Bind mounts in all their forms, and what covers the root.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use dhow_oci::runtime::{IdMapping, Mount, Namespace, Spec};
use dhow_runtime::{Create, Plan, Rootfs, Settings, run, wait};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, chain, host, linux, mount, piped};

tests! {
    a_bind_without_attributes_keeps_those_of_its_source
    a_bind_with_attributes_has_those_alone_but_for_access_times
    a_user_namespace_keeps_what_is_locked_and_refuses_to_lower_it
    recursive_attributes_reach_what_is_below
    a_mount_has_the_ids_it_is_mapped_to
    ids_are_mapped_as_the_container_maps_its_own
    ids_of_what_lies_inside_the_root_are_mapped_in_a_user_namespace_too
    ids_without_a_mapping_or_on_a_new_file_system_are_refused
    a_source_that_only_root_reaches_is_bound_in_a_user_namespace
    a_bind_is_no_peer_of_its_source_unless_asked
    the_root_of_the_host_is_bound_without_that_of_the_container
    relative_sources_are_of_the_bundle_and_the_root_is_seen_with_its_mounts
    a_tmpfs_gets_what_it_covers
    links_are_bound_copied_and_mounted_on_as_asked
    nothing_is_mounted_into_proc_but_what_tools_replace
    the_root_is_covered_by_the_first_mount_alone
}

fn bind(destination: &str, source: &std::path::Path, options: &[&str]) -> Mount {
    mount(destination, "bind", source.to_str().unwrap(), options)
}

fn users(spec: &mut Spec) {
    let mapping = IdMapping {
        container_id: 0,
        host_id: 100_000,
        size: 65536,
    };
    let linux = linux(spec);
    linux.namespaces.push(Namespace {
        kind: "user".into(),
        path: None,
    });
    (linux.uid_mappings, linux.gid_mappings) = (vec![mapping.clone()], vec![mapping]);
}

fn given_away(image: &Image) {
    let root = image.root();
    host(&format!(
        "chown -R 100000:100000 {0} && chmod 755 {0}/..",
        root.display()
    ));
}

/// A private mount namespace with a tmpfs of these options, and the options that a bind of it has in a container.
struct Volume {
    image: Image,
    path: std::path::PathBuf,
}

impl Volume {
    fn new(options: &str) -> Self {
        let image = Image::new();
        let path = image.beside("volume");
        dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
        host("mount --make-rprivate /");
        host(&format!("mount -t tmpfs -o {options} x {}", path.display()));
        Self { image, path }
    }

    fn spec(&self, options: &[&str]) -> Spec {
        Image::shell("grep ' /volume ' /proc/self/mounts | cut -d' ' -f4", |spec| {
            spec.mounts.push(bind("/volume", &self.path, options));
        })
    }

    fn seen(&self, options: &[&str]) -> Vec<String> {
        let outcome = self
            .image
            .run(&self.spec(options))
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        let mut seen: Vec<String> = outcome.out.trim().split(',').map(str::to_owned).collect();
        seen.retain(|one| !one.contains('=') && !one.starts_with("inode"));
        seen
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        host(&format!("umount -l {}", self.path.display()));
    }
}

fn a_bind_without_attributes_keeps_those_of_its_source() {
    let volume = Volume::new("ro,noexec,nodiratime");
    assert_eq!(volume.seen(&["bind"]), ["ro", "noexec", "nodiratime", "relatime"]);
    assert_eq!(
        volume.seen(&["rbind", "rslave"]),
        ["ro", "noexec", "nodiratime", "relatime"]
    );
}

fn a_bind_with_attributes_has_those_alone_but_for_access_times() {
    let volume = Volume::new("nosuid,noexec,noatime");
    assert_eq!(volume.seen(&["bind", "nodev"]), ["rw", "nodev", "noatime"]);
    assert_eq!(volume.seen(&["bind", "exec"]), ["rw", "noatime"]);
    assert_eq!(volume.seen(&["bind", "ro", "atime"]), ["ro", "noatime"]);
    assert_eq!(volume.seen(&["bind", "relatime"]), ["rw", "relatime"]);
    assert_eq!(
        volume.seen(&["bind", "nodiratime"]),
        ["rw", "nodiratime", "relatime"]
    );
    assert_eq!(
        volume.seen(&["bind", "nodiratime", "strictatime"]),
        ["rw", "nodiratime"]
    );
}

fn a_user_namespace_keeps_what_is_locked_and_refuses_to_lower_it() {
    let volume = Volume::new("ro,nosuid,noatime");
    given_away(&volume.image);
    let run = |options: &[&str]| {
        let mut spec = volume.spec(options);
        users(&mut spec);
        volume.image.run(&spec)
    };
    let kept = run(&["bind", "nodev"]).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(kept.out.starts_with("ro,nosuid,nodev,noatime"), "{}", kept.out);
    for lowered in ["rw", "suid", "relatime"] {
        let error = chain(&run(&["bind", lowered]).unwrap_err());
        assert!(
            error.contains("error mounting")
                && error.contains("to rootfs at \"/volume\"")
                && error.contains("not permitted"),
            "{error}"
        );
    }
}

fn recursive_attributes_reach_what_is_below() {
    let volume = Volume::new("rw,noatime");
    host(&format!(
        "mkdir {0}/below && mount -t tmpfs -o noatime x {0}/below",
        volume.path.display()
    ));
    let below = |options: &[&str]| {
        let mut spec = volume.spec(options);
        let script = "for at in /volume /volume/below; do grep \" $at \" /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1-3; done";
        spec.process.as_mut().unwrap().args[2] = script.into();
        volume
            .image
            .run(&spec)
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
            .out
    };
    let both = |words: &str| -> bool {
        let out = below(&["rbind", words]);
        let wanted = match words {
            "rrelatime" | "ratime" => "rw,relatime",
            "rnodiratime" => "nodiratime",
            other => &other[1..],
        };
        out.lines().filter(|line| line.contains(wanted)).count() == 2
    };
    for words in [
        "rro",
        "rnosuid",
        "rnodev",
        "rnoexec",
        "rnodiratime",
        "rnoatime",
        "rrelatime",
        "ratime",
        "rnosymfollow",
    ] {
        assert!(both(words), "{words}: {}", below(&["rbind", words]));
    }
    let strict = below(&["rbind", "rstrictatime"]);
    assert!(!strict.contains("atime"), "{strict}");
    let top = below(&["rbind", "ro"]);
    assert!(top.starts_with("ro,") && top.contains("\nrw,"), "{top}");
    host(&format!("umount -l {}/below", volume.path.display()));
}

fn mapped(source: &std::path::Path, options: &[&str], host_id: u32) -> Mount {
    let mapping = vec![IdMapping {
        container_id: 0,
        host_id,
        size: 10,
    }];
    Mount {
        uid_mappings: mapping.clone(),
        gid_mappings: mapping,
        ..bind("/mapped", source, options)
    }
}

fn a_mount_has_the_ids_it_is_mapped_to() {
    let image = Image::new();
    let source = image.beside("source");
    std::fs::write(source.join("file"), "").unwrap();
    let out = image.sh(
        "stat -c %u:%g /mapped/file; touch /mapped/new || echo refused",
        |spec| {
            spec.mounts.push(mapped(&source, &["bind"], 1000));
        },
    );
    assert!(
        out.starts_with("1000:1000\n") && out.ends_with("refused\n"),
        "{out}"
    );
    given_away(&image);
    // The image's root is to be reached by the container's.
    let out = image.sh("stat -c %u:%g /mapped/file; touch /mapped/new", |spec| {
        users(spec);
        spec.mounts.push(mapped(&source, &["rbind", "ridmap"], 100_000));
    });
    assert_eq!(out, "0:0\n");
    assert_eq!(std::fs::metadata(source.join("new")).unwrap().uid(), 0);
}

fn ids_are_mapped_as_the_container_maps_its_own() {
    let image = Image::new();
    let source = image.beside("source");
    std::fs::write(source.join("file"), "").unwrap();
    given_away(&image);
    let script = "stat -c %u:%g /source/file";
    let out = image.sh(script, |spec| {
        users(spec);
        spec.mounts.push(bind("/source", &source, &["bind", "idmap"]));
    });
    assert_eq!(out, "0:0\n");
    let out = image.sh(script, |spec| {
        users(spec);
        spec.mounts.push(bind("/source", &source, &["bind"]));
    });
    assert_eq!(out, "65534:65534\n");
}

/// What the mounts before have put inside the root only the container's process can bind, and only its parent can map: no
/// user namespace has rights over the whole file system.
fn ids_of_what_lies_inside_the_root_are_mapped_in_a_user_namespace_too() {
    let image = Image::new();
    let source = image.beside("source");
    std::fs::write(source.join("file"), "").unwrap();
    given_away(&image);
    let inside = image.root().join("first");
    let out = image.sh(
        "stat -c %u:%g /first/file /mapped/file; touch /mapped/new",
        |spec| {
            users(spec);
            spec.root.as_mut().unwrap().path = image.root();
            spec.mounts.push(bind("/first", &source, &["bind"]));
            spec.mounts.push(mapped(&inside, &["bind"], 100_000));
        },
    );
    assert_eq!(out, "65534:65534\n0:0\n");
    assert_eq!(std::fs::metadata(source.join("new")).unwrap().uid(), 0);
}

fn ids_without_a_mapping_or_on_a_new_file_system_are_refused() {
    let image = Image::new();
    let source = image.beside("source");
    let said = |mount: Mount| {
        let (kind, message) = image.refused(&Image::shell("true", |spec| spec.mounts.push(mount)));
        assert_eq!(kind, ErrorKind::InvalidArgument);
        message
    };
    assert!(said(bind("/x", &source, &["bind", "idmap"])).contains("needs mappings"));
    let mut half = mapped(&source, &["bind"], 1000);
    half.gid_mappings.clear();
    assert!(said(half).contains("both uid and gid mappings"));
    let mut new = mapped(&source, &[], 1000);
    new.kind = Some("tmpfs".into());
    assert!(said(new).contains("only supported for bind-mounts"));
}

fn a_source_that_only_root_reaches_is_bound_in_a_user_namespace() {
    let image = Image::new();
    given_away(&image);
    let closed = image.beside("closed");
    let source = image.beside("closed/source");
    std::fs::write(source.join("file"), "content").unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let out = image.sh("cat /source/file", |spec| {
        users(spec);
        spec.mounts.push(bind("/source", &source, &["bind", "ro"]));
    });
    assert_eq!(out, "content");
}

fn a_bind_is_no_peer_of_its_source_unless_asked() {
    let volume = Volume::new("mode=755");
    host(&format!("mount --make-shared {}", volume.path.display()));
    given_away(&volume.image);
    for (apart, options, peer) in [
        (false, &["rbind"][..], false),
        (true, &["rbind"], false),
        (false, &["rbind", "rshared"], true),
    ] {
        let out = volume.image.sh("grep ' /volume ' /proc/self/mountinfo", |spec| {
            if apart {
                users(spec);
            }
            spec.mounts.push(bind("/volume", &volume.path, options));
        });
        assert_eq!(out.contains("shared:"), peer, "{apart} {options:?}: {out}");
    }
}

fn the_root_of_the_host_is_bound_without_that_of_the_container() {
    let image = Image::new();
    let outside = image.beside("outside");
    std::fs::write(outside.join("file"), "of the host").unwrap();
    let script = format!("cat /host{}/file; ls -d /host/host", outside.display());
    let spec = Image::shell(
        &format!("{script} 2>&1; grep -c shared: /proc/self/mountinfo"),
        |spec| {
            spec.mounts
                .push(bind("/host", std::path::Path::new("/"), &["rbind"]));
        },
    );
    let outcome = image
        .run(&spec)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(outcome.out.starts_with("of the host"), "{}", outcome.out);
    assert!(outcome.out.trim_end().ends_with('0'), "{}", outcome.out);
}

fn in_bundle(image: &Image, spec: &Spec) -> Result<String, dhow_runtime::Error> {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    let settings = Settings {
        bundle: Some(image.root().parent().unwrap().to_owned()),
        ..Settings::default()
    };
    let plan = Plan::prepare(spec, &settings)?;
    let (stdio, mut output) = piped();
    let running = run(Create {
        plan: &plan,
        rootfs: Rootfs::Path(image.root()),
        stdio,
        group: None,
        namespaces: Vec::new(),
        state: None,
    })?;
    let mut out = String::new();
    output.read_to_string(&mut out).unwrap();
    wait(running.pidfd.as_fd()).unwrap();
    Ok(out)
}

fn relative_sources_are_of_the_bundle_and_the_root_is_seen_with_its_mounts() {
    let image = Image::new();
    std::fs::write(image.beside("a").join("file"), "of the bundle\n").unwrap();
    let root = image.root();
    let spec = Image::shell("cat /mnt/file /again/file", |spec| {
        spec.mounts.push(mount("/mnt", "bind", "a", &["bind"]));
        // The source is in the root, with what was mounted there before; the target begins as it does on the host.
        let again = format!("{}/again", root.display());
        spec.mounts.push(bind(&again, &root.join("mnt"), &["bind"]));
    });
    assert_eq!(
        in_bundle(&image, &spec).unwrap(),
        "of the bundle\nof the bundle\n"
    );
    let (kind, _) = image.refused(&spec);
    assert_eq!(kind, ErrorKind::InvalidArgument);
}

fn a_tmpfs_gets_what_it_covers() {
    let image = Image::new();
    let root = image.root();
    host(&format!(
        "mkdir -p {0}/full/deep && echo one > {0}/full/deep/file && chmod 640 {0}/full/deep/file && \
         chown 7:8 {0}/full/deep/file && ln -s deep/file {0}/full/link && mkfifo {0}/full/fifo",
        root.display()
    ));
    let script = "cat /full/link; stat -c '%a %u:%g' /full/deep/file; stat -c %F /full/fifo; touch /full/new || echo refused; \
                  grep ' /full ' /proc/self/mounts | cut -d' ' -f3";
    for (options, end) in [(vec!["tmpcopyup"], ""), (vec!["tmpcopyup", "ro"], "refused\n")] {
        let out = image.sh(script, |spec| {
            spec.mounts.push(mount("/full", "tmpfs", "tmpfs", &options))
        });
        assert!(out.starts_with("one\n640 7:8\nfifo\n"), "{out}");
        assert!(out.ends_with(&format!("{end}tmpfs\n")), "{out}");
    }
    assert!(!root.join("full/new").exists());
    let wrong = Image::shell("true", |spec| {
        spec.mounts.push(mount("/x", "proc", "proc", &["tmpcopyup"]));
    });
    assert_eq!(image.refused(&wrong).0, ErrorKind::InvalidArgument);
}

fn links_are_bound_copied_and_mounted_on_as_asked() {
    let image = Image::new();
    let source = image.beside("source");
    std::fs::write(source.join("file"), "content").unwrap();
    symlink("file", source.join("link")).unwrap();
    symlink("nowhere", source.join("broken")).unwrap();
    symlink("nowhere", image.root().join("target")).unwrap();
    let out = image.sh(
        "readlink /deep/copied; cat /target; readlink /etc/bound || echo no link",
        |spec| {
            spec.mounts.push(bind(
                "/deep/copied",
                &source.join("broken"),
                &["bind", "copy-symlink"],
            ));
            spec.mounts
                .push(bind("/target", &source.join("link"), &["bind", "dest-nofollow"]));
        },
    );
    assert_eq!(out, "nowhere\ncontentno link\n");
    let out = image.sh("readlink /target", |spec| {
        let options = ["bind", "dest-nofollow", "src-nofollow"];
        spec.mounts.push(bind("/target", &source.join("link"), &options));
    });
    assert_eq!(out, "file\n");
    let (_, message) = image.refused(&Image::shell("true", |spec| {
        spec.mounts.push(bind("/x", &source.join("broken"), &["bind"]));
    }));
    assert!(message.contains("open the source of mount"), "{message}");
}

fn nothing_is_mounted_into_proc_but_what_tools_replace() {
    let image = Image::new();
    let source = image.beside("source");
    std::fs::write(source.join("file"), "replaced\n").unwrap();
    let out = image.sh("cat /proc/uptime", |spec| {
        spec.mounts
            .push(bind("/proc/uptime", &source.join("file"), &["bind"]));
    });
    assert_eq!(out, "replaced\n");
    symlink("/proc/sys/kernel", image.root().join("way")).unwrap();
    for (target, options, file) in [
        ("/proc/sys/kernel/hostname", &["bind"][..], true),
        ("/proc/./sys", &["bind"], false),
        ("/way/hostname", &["bind"], true),
        ("/proc", &["bind"], false),
    ] {
        let from = if file { source.join("file") } else { source.clone() };
        let spec = Image::shell("true", |spec| spec.mounts.push(bind(target, &from, options)));
        image.refused(&spec);
    }
}

fn the_root_is_covered_by_the_first_mount_alone() {
    let image = Image::new();
    let other = Image::new();
    std::fs::write(other.root().join("etc/other"), "").unwrap();
    let out = image.sh("ls /etc; ls -d /proc/self/status", |spec| {
        spec.mounts.insert(0, bind("/", &other.root(), &["bind"]));
    });
    assert_eq!(out, "other\n/proc/self/status\n");
    let out = image.sh(
        "grep ' / ' /proc/self/mounts | cut -d' ' -f3; touch /new",
        |spec| {
            spec.mounts
                .insert(0, mount("/", "tmpfs", "tmpfs", &["tmpcopyup"]));
        },
    );
    assert_eq!(out, "tmpfs\n");
    assert!(!image.root().join("new").exists());
    let late = Image::shell("true", |spec| spec.mounts.push(mount("/", "tmpfs", "tmpfs", &[])));
    assert_eq!(image.refused(&late).0, ErrorKind::InvalidArgument);
}
