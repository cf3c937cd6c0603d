//! Lists of manifests: made, annotated, pushed, forgotten.

use dhow_image::{Annotate, ManifestLists};
use dhow_oci::{Index, media_type};
use dhow_testkit::TinyImage;
use dhow_types::{Digest, ErrorKind};

use crate::{World, base, chain, image, layer};

#[test]
fn a_list_is_made_of_manifests_and_pushed_with_those_of_other_repositories() {
    let world = World::new();
    let (own, arm) = (
        image("own"),
        TinyImage::on(vec![base(), layer("arm", b"arm")], "linux/arm64/v8"),
    );
    world.registry.put_image("app", "own", &own);
    world.registry.put_image("elsewhere", "arm", &arm);
    let lists = ManifestLists::new(world.root());
    let (list, members) = (
        world.reference("app:1"),
        [world.reference("app:own"), world.reference("elsewhere:arm")],
    );
    lists.create(&world.client, &list, &members, false).unwrap();
    let how = Annotate {
        variant: Some("v9".into()),
        os_features: vec!["a".into()],
        ..Annotate::default()
    };
    lists.annotate(&list, &members[1], &how).unwrap();
    let digest = lists.push(&world.client, &list, true).unwrap();
    let (kind, bytes) = world.registry.manifest("app", "1").unwrap();
    assert_eq!(
        (kind.as_str(), digest),
        (media_type::OCI_INDEX, Digest::of(&bytes))
    );
    let index: Index = serde_json::from_slice(&bytes).unwrap();
    let platforms: Vec<_> = index
        .manifests
        .iter()
        .map(|one| one.platform.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(
        platforms,
        [
            dhow_types::Platform::host().to_string(),
            "linux/arm64/v9".to_owned()
        ]
    );
    assert_eq!(index.manifests[1].digest, arm.digest());
    assert!(
        world
            .registry
            .manifest("app", &arm.digest().to_string())
            .is_some()
    );
    assert!(world.registry.blob("app", &arm.id().0).is_some());
    assert_eq!(lists.find(&list).unwrap(), None, "purged");
    world.assert_clean();
}

#[test]
fn a_list_of_dockers_manifests_is_dockers() {
    let world = World::new();
    world
        .registry
        .put_image("app", "1", &TinyImage::docker(vec![base()]));
    let lists = ManifestLists::new(world.root());
    let list = world.reference("app:all");
    lists
        .create(&world.client, &list, &[world.reference("app:1")], false)
        .unwrap();
    lists.push(&world.client, &list, false).unwrap();
    assert_eq!(
        world.registry.manifest("app", "all").unwrap().0,
        media_type::DOCKER_LIST
    );
    lists.remove(&list).unwrap();
    assert_eq!(lists.remove(&list).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_list_is_added_to_only_when_that_is_wanted_and_holds_no_lists() {
    let world = World::new();
    let (one, two) = (image("one"), image("two"));
    world.registry.put_image("app", "1", &one);
    world.registry.put_image("app", "2", &two);
    let index = dhow_testkit::index(&[(&one, "linux/amd64")]);
    world
        .registry
        .put_manifest("app", "list", media_type::OCI_INDEX, &index);
    let lists = ManifestLists::new(world.root());
    let list = world.reference("app:all");
    let create = |member: &str, amend| lists.create(&world.client, &list, &[world.reference(member)], amend);
    create("app:1", false).unwrap();
    assert_eq!(
        create("app:2", false).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    create("app:2", true).unwrap();
    create("app:2", true).unwrap();
    assert_eq!(lists.find(&list).unwrap().unwrap().members.len(), 2);
    let error = create("app:list", true).unwrap_err();
    assert!(chain(&error).contains("is a manifest list"), "{}", chain(&error));
    let missing = lists
        .annotate(&list, &world.reference("app:3"), &Annotate::default())
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}
