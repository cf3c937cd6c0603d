//! Names, lists, removal, pruning, disk use.

use dhow_image::{LabelFilter, Prune, Removed, Store, Use};
use dhow_meta::Lease;
use dhow_reference::Reference;
use dhow_types::{DiffId, Digest, ErrorKind, ImageId};

use crate::{World, base, chain, image};

/// A world with image `a` under `app:1`.
fn pulled() -> (World, ImageId, String) {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    let id = world.pull("app:1").unwrap().image;
    let name = world.registry.name("app:1");
    (world, id, name)
}

fn user(world: &World, id: ImageId, running: bool) -> Use {
    Use {
        image: id,
        container: "c0ffee".repeat(10),
        running,
        layers: world.store.image(&id).unwrap().record.layers,
    }
}

fn parse(name: &str) -> Reference {
    Reference::parse(name).unwrap()
}

#[test]
fn an_image_is_found_by_every_name_that_docker_finds_it_by() {
    let (world, id, name) = pulled();
    let digest = image("a").digest();
    let hex = id.hex();
    world.store.tag(&id, &parse("web")).unwrap();
    let pinned = world.registry.name(&format!("app@{digest}"));
    let full = id.to_string();
    for text in [
        &name,
        &pinned,
        &full,
        &hex,
        &hex[..12],
        &hex[..3],
        &full[..20],
        "web",
        "web:latest",
        "docker.io/library/web",
    ] {
        assert_eq!(world.store.resolve(text).unwrap().id, id, "{text}");
    }
    for text in ["nothing", "web:2", &"0".repeat(64), "sha256:0000"] {
        let error = world.store.resolve(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{text}");
        assert!(error.to_string().starts_with("no such image: "), "{error}");
    }
    for text in ["", "lower/UPPER", "a b", "../x", &"x".repeat(5000)] {
        assert_eq!(
            world.store.resolve(text).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{text}"
        );
    }
}

#[test]
fn history_and_list_say_what_the_config_says() {
    let (world, id, name) = pulled();
    let found = world.store.resolve(&name).unwrap();
    let history = world.store.history(&found).unwrap();
    let steps: Vec<_> = history
        .iter()
        .map(|line| (line.created_by.as_str(), line.size))
        .collect();
    assert_eq!(steps, [("CMD [\"true\"]", 0), ("step 1", 1), ("step 0", 26)]);
    assert_eq!((history[0].id, history[1].id), (Some(id), None));
    assert_eq!(found.record.size, 27);
    assert_eq!(found.record.created, 1_714_521_600);
    assert_eq!(world.store.list().unwrap(), vec![found.clone()]);
    assert_eq!(world.store.summaries().unwrap()[0].record, found.record);
}

#[test]
fn a_tag_moves_and_the_last_name_takes_the_image_with_it() {
    let (world, id, name) = pulled();
    world.store.tag(&id, &parse("web:1")).unwrap();
    let removed = world.store.remove("web:1", false, &[]).unwrap();
    assert_eq!(removed, [Removed::Untagged("web:1".to_owned())]);
    let removed = world.store.remove(&name, false, &[]).unwrap();
    let pinned = world.registry.name(&format!("app@{}", image("a").digest()));
    assert_eq!(
        removed,
        [
            Removed::Untagged(name),
            Removed::Untagged(pinned),
            Removed::Deleted(id)
        ]
    );
    assert!(world.store.layers.list().unwrap().is_empty());
    assert!(
        std::fs::read_dir(world.root().join("trash"))
            .unwrap()
            .next()
            .is_none()
    );
    assert!(
        std::fs::read_dir(world.root().join("refs"))
            .unwrap()
            .next()
            .is_none()
    );
    world.assert_clean();
}

#[test]
fn what_was_to_take_the_place_of_a_name_is_none_and_goes() {
    let (world, id, name) = pulled();
    world.registry.put_image("app", "2", &image("b"));
    let other = world.pull("app:2").unwrap().image;
    world.store.tag(&id, &parse("web:1")).unwrap();
    // As a process that was killed before its rename leaves it.
    let refs = world.root().join("refs");
    let file = refs.join("docker.io+library+web:1");
    let next = refs.join(".next");
    std::fs::hard_link(&file, &next).unwrap();
    let store = Store::open(world.root()).unwrap();
    assert_eq!(store.resolve("web:1").unwrap().record.id, id);
    assert_eq!(store.resolve(&name).unwrap().record.id, id);
    assert!(!next.exists());
    // And one that stands in the way of the next.
    std::fs::write(&next, b"half").unwrap();
    store.tag(&other, &parse("web:1")).unwrap();
    assert_eq!(store.resolve("web:1").unwrap().record.id, other);
    assert!(!next.exists());
    world.assert_clean();
}

#[test]
fn an_id_with_names_in_two_repositories_must_be_forced() {
    let (world, id, _) = pulled();
    world.store.tag(&id, &parse("web:1")).unwrap();
    let error = world.store.remove(&id.hex()[..12], false, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            id.short()
        )
    );
    let removed = world.store.remove(&id.hex(), true, &[]).unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert!(world.store.list().unwrap().is_empty());
}

#[test]
fn an_id_with_one_name_needs_no_force() {
    let (world, id, _) = pulled();
    assert!(
        world
            .store
            .remove(&id.short(), false, &[])
            .unwrap()
            .contains(&Removed::Deleted(id))
    );
}

#[test]
fn an_image_in_use_stays_with_dockers_words() {
    let (world, id, name) = pulled();
    let running = [user(&world, id, true)];
    let stopped = [user(&world, id, false)];
    let by_name = world.store.remove(&name, false, &stopped).unwrap_err();
    assert_eq!(
        by_name.to_string(),
        format!(
            "conflict: unable to remove repository reference {name:?} (must force) - container c0ffeec0ffee is using its referenced image {}",
            id.short()
        )
    );
    let by_id = world.store.remove(&id.hex(), false, &stopped).unwrap_err();
    assert!(
        by_id
            .to_string()
            .ends_with("(must be forced) - image is being used by stopped container c0ffeec0ffee")
    );
    let forced = world.store.remove(&id.hex(), true, &running).unwrap_err();
    assert!(
        forced
            .to_string()
            .ends_with("(cannot be forced) - image is being used by running container c0ffeec0ffee")
    );
    assert_eq!(world.store.resolve(&name).unwrap().id, id);
}

#[test]
fn the_layers_of_a_container_stay_when_its_image_goes() {
    let (world, id, name) = pulled();
    let stopped = [user(&world, id, false)];
    world.store.remove(&id.hex(), true, &stopped).unwrap();
    assert!(world.store.resolve(&name).is_err());
    assert_eq!(world.store.layers.list().unwrap().len(), 2);
    world.store.sweep(&[]).unwrap();
    assert!(world.store.layers.list().unwrap().is_empty());
}

#[test]
fn the_layers_below_a_snapshot_stay_until_it_goes() {
    let (world, id, _) = pulled();
    let stack = world.store.image(&id).unwrap().record.layers;
    world.store.snapshots.prepare("container", &stack).unwrap();
    world.store.remove(&id.hex(), true, &[]).unwrap();
    assert_eq!(world.store.layers.list().unwrap().len(), 2);
    world.store.snapshots.remove("container").unwrap();
    assert_eq!(world.store.sweep(&[]).unwrap().layers.len(), 2);
}

#[test]
fn forcing_a_name_away_from_a_container_keeps_the_image_without_it() {
    let (world, id, name) = pulled();
    let users = [user(&world, id, true)];
    let removed = world.store.remove(&name, true, &users).unwrap();
    assert!(
        removed.iter().all(|step| matches!(step, Removed::Untagged(_))),
        "{removed:?}"
    );
    assert_eq!(world.store.image(&id).unwrap().names, Vec::<String>::new());
}

#[test]
fn shared_layers_outlive_one_of_their_images() {
    let (world, _, name) = pulled();
    world.registry.put_image("app", "2", &image("b"));
    world.pull("app:2").unwrap();
    let usage = world.store.disk_usage(&[]).unwrap();
    let shared = world.store.layers.layer(&base().diff_id()).unwrap().disk();
    assert_eq!(usage.layers.len(), 3);
    assert!(
        usage
            .images
            .iter()
            .all(|image| image.shared == shared && image.unique > 0),
        "{usage:?}"
    );
    assert_eq!(
        usage.layers_total,
        shared + usage.images.iter().map(|image| image.unique).sum::<u64>()
    );
    assert_eq!(usage.reclaimable, usage.layers_total);
    world.store.remove(&name, false, &[]).unwrap();
    let left: Vec<DiffId> = world.store.layers.list().unwrap();
    assert_eq!(left.len(), 2);
    assert!(left.contains(&base().diff_id()));
    world.assert_clean();
}

#[test]
fn a_lease_and_the_build_cache_keep_layers() {
    let (world, _, name) = pulled();
    let (pinned, cached) = (image("a").layers[0].diff_id(), image("a").layers[1].diff_id());
    let lease = Lease::acquire(world.root()).unwrap();
    lease.pin(&pinned.0).unwrap();
    let key = Digest::of(b"step");
    let record = dhow_meta::CacheRecord {
        key,
        value: Vec::new(),
        layers: vec![cached],
        bytes: 0,
        seconds: 1.0,
        created: 0,
        used: 0,
    };
    world.store.meta.put_cache(&record).unwrap();
    world.store.remove(&name, false, &[]).unwrap();
    assert_eq!(world.store.layers.list().unwrap().len(), 2);
    world.store.meta.remove_cache(&key).unwrap();
    assert_eq!(world.store.sweep(&[]).unwrap().layers, [cached]);
    drop(lease);
    assert_eq!(world.store.sweep(&[]).unwrap().layers, [pinned]);
}

#[test]
fn prune_takes_what_its_filters_leave() {
    let (world, used, _) = pulled();
    for (tag, name) in [("2", "b"), ("3", "c")] {
        world.registry.put_image("app", tag, &image(name));
        world.pull(&format!("app:{tag}")).unwrap();
    }
    let users = [user(&world, used, true)];
    let none = world.store.prune(&Prune::default(), &users).unwrap();
    assert_eq!((none.removed, none.reclaimed), (vec![], 0));
    let label = |name: &str, value: Option<&str>, negate| LabelFilter {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        negate,
    };
    for labels in [
        vec![label("made-by", Some("other"), false)],
        vec![label("made-by", None, true)],
        vec![label("missing", None, false)],
    ] {
        let what = Prune {
            all: true,
            labels,
            until: None,
        };
        assert_eq!(world.store.prune(&what, &users).unwrap().removed, vec![]);
    }
    let early = Prune {
        all: true,
        until: Some(1_000_000_000),
        ..Prune::default()
    };
    assert_eq!(world.store.prune(&early, &users).unwrap().removed, vec![]);
    // A name that moves away leaves an image without one.
    world.registry.put_image("app", "3", &image("b"));
    world.pull("app:3").unwrap();
    let dangling = world.store.prune(&Prune::default(), &users).unwrap();
    assert!(
        dangling.removed.contains(&Removed::Deleted(image("c").id())),
        "{dangling:?}"
    );
    assert!(dangling.reclaimed > 0);
    let all = Prune {
        all: true,
        labels: vec![label("made-by", Some("testkit"), false)],
        until: None,
    };
    assert!(
        world
            .store
            .prune(&all, &users)
            .unwrap()
            .removed
            .contains(&Removed::Deleted(image("b").id()))
    );
    assert_eq!(world.store.list().unwrap().len(), 1);
    world.assert_clean();
}

#[test]
fn a_commit_needs_its_layers_and_names_without_digests() {
    let (world, id, _) = pulled();
    let mut config = world.store.image(&id).unwrap().config;
    config.author = Some("me".to_owned());
    let copy = world
        .store
        .commit(config.clone(), &[parse("mine:1"), parse("mine:2")])
        .unwrap();
    assert_eq!(world.store.resolve("mine:2").unwrap().id, copy);
    assert_ne!(copy, id);
    let pinned = parse("mine").with_digest(Digest::of(b"x"));
    assert_eq!(
        world.store.commit(config.clone(), &[pinned]).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    config.rootfs.diff_ids.push(DiffId(Digest::of(b"nowhere")));
    let error = world.store.commit(config, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{}", chain(&error));
    world.assert_clean();
}

#[test]
fn the_longest_names_are_files_too() {
    let (world, id, _) = pulled();
    let long = format!("{}:{}", ["a"; 100].join("/") + "/longest", "t".repeat(128));
    world.store.tag(&id, &parse(&long)).unwrap();
    let again = Store::open(world.root()).unwrap();
    assert_eq!(again.resolve(&long).unwrap().id, id);
    again.rebuild().unwrap();
    assert_eq!(again.resolve(&long).unwrap().id, id);
    assert_eq!(
        again.remove(&long, false, &[]).unwrap(),
        [Removed::Untagged(long)]
    );
}

/// A directory of one block keeps who searches it waiting for the disk (see `widen` of the store).
#[test]
fn ext4_finds_names_by_an_index() {
    let world = World::new();
    for name in [".", "refs", "tmp", "leases"] {
        let directory = world.root().join(name);
        let left = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".wide");
        let names = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(names.filter(|name| left(name)).count(), 0, "{name}");
        let file_system = rustix::fs::statfs(&directory).unwrap();
        if file_system.f_type != 0xef53 {
            eprintln!("skipped: the store of this test is not on ext4");
            return;
        }
        let size = std::fs::metadata(&directory).unwrap().len();
        assert!(size > file_system.f_bsize.unsigned_abs(), "{name}: {size} bytes");
    }
}
