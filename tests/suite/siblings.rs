//! Containers of a name that has images for several machines here, by one index.
//!
//! The programs of all are this machine's, so that each can run and tells by a file which image it is of.

use std::os::unix::process::CommandExt as _;

use dhow_testkit::{FakeRegistry, Layer, Tar, TinyImage, index};
use dhow_types::Platform;

use crate::build_provenance::{PROVENANCE, said};
use crate::podman_update;
use crate::samples::busybox_tar;
use crate::world::{Ran, World, finish};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A platform that no machine of the tests is.
const FOREIGN: &str = "linux/s390x";

/// `app:1` in a registry that notes who asks: an index of an image for this machine and one for another.
struct Published {
    registry: FakeRegistry,
    name: String,
    /// This machine's platform.
    host: String,
    own: TinyImage,
    foreign: TinyImage,
}

impl Published {
    fn new() -> Self {
        let registry = FakeRegistry::start();
        let host = Platform::host().to_string();
        let [own, foreign] = [host.as_str(), FOREIGN].map(|platform| made(platform, "1"));
        let published = Self {
            name: registry.name("app:1"),
            registry,
            host,
            own,
            foreign,
        };
        published.put("1", &published.own, &published.foreign);
        published
    }

    /// An index of these under a tag of `app`.
    fn put(&self, tag: &str, own: &TinyImage, foreign: &TinyImage) {
        for image in [own, foreign] {
            self.registry.put_image("app", &image.digest().hex()[..12], image);
        }
        let list = index(&[(foreign, FOREIGN), (own, &self.host)]);
        self.registry.put_manifest("app", tag, INDEX, &list);
    }

    fn pull(&self, world: &World, platform: &str) {
        world
            .dhow(&["pull", "-q", "--platform", platform, &self.name])
            .ok();
    }

    /// A root that has both images, and a registry that was asked nothing since.
    fn both(&self) -> Option<World> {
        let world = World::new()?;
        for platform in [FOREIGN, &self.host] {
            self.pull(&world, platform);
        }
        self.registry.forget_requests();
        Some(world)
    }

    fn asked(&self) -> usize {
        self.registry.requests().len()
    }
}

/// An image for a machine, with a file that says which it is.
fn made(platform: &str, version: &str) -> TinyImage {
    let text = format!("{platform} {version}\n");
    let own = Tar::new().file("machine", 0o644, text.as_bytes()).finish();
    TinyImage::on(vec![Layer::gzip(busybox_tar()), Layer::gzip(own)], platform)
}

/// Which image a container runs that is made with these flags.
fn ran(world: &World, flags: &str, name: &str) -> Ran {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(flags.split_whitespace());
    args.extend([name, "cat", "/machine"]);
    world.dhow(&args)
}

/// The same, fails unless it ran and nothing was said.
#[track_caller]
fn quietly(world: &World, flags: &str, name: &str) -> String {
    let ran = ran(world, flags, name);
    assert_eq!(ran.stderr, "", "{ran:?}");
    ran.ok()
}

#[test]
fn a_container_is_of_the_stored_image_for_the_platform_that_is_asked_for() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let (name, host) = (&published.name, &published.host);
    assert_eq!(
        quietly(&world, &format!("--platform {host}"), name),
        format!("{host} 1")
    );
    assert_eq!(
        quietly(&world, &format!("--platform {FOREIGN}"), name),
        format!("{FOREIGN} 1")
    );
    assert_eq!(
        quietly(&world, "--os linux --arch s390x", name),
        format!("{FOREIGN} 1")
    );
    for (container, platform, image) in [
        ("own", host.as_str(), &published.own),
        ("other", FOREIGN, &published.foreign),
    ] {
        let args = [
            "create",
            "--name",
            container,
            "--platform",
            platform,
            name,
            "cat",
            "/machine",
        ];
        world.dhow(&args).ok();
        assert_eq!(
            world.inspect(container, "{{.Image}} {{.Config.Image}}"),
            format!("{} {name}", image.id())
        );
        let manifest = "{{.ImageManifestDescriptor.digest}} {{.ImageManifestDescriptor.size}} \
                        {{.ImageManifestDescriptor.platform.os}}/{{.ImageManifestDescriptor.platform.architecture}}";
        assert_eq!(
            world.inspect(container, manifest),
            format!("{} {} {platform}", image.digest(), image.manifest.len())
        );
        let listed = [
            "ps",
            "-a",
            "-f",
            &format!("name={container}"),
            "--format",
            "{{.Platform}}",
        ];
        assert_eq!(world.dhow(&listed).ok(), platform);
        assert_eq!(
            world.say(&format!("start -a {container}")).ok(),
            format!("{platform} 1")
        );
    }
    assert_eq!(published.asked(), 0, "all of it was here");
    // A name in another spelling means all of them, an ID the one.
    let other = published.registry.name("other:1");
    world.dhow(&["tag", name, &other]).ok();
    let of = |ancestor: &str| {
        let filter = format!("ancestor={ancestor}");
        world
            .dhow(&["ps", "-a", "-f", &filter, "--format", "{{.Names}}"])
            .ok()
    };
    assert_eq!(of(&other), "other\nown");
    assert_eq!(of(&published.own.id().to_string()), "own");
    world.clean();
}

#[test]
fn a_container_without_a_platform_is_of_this_machines_image_whichever_was_pulled_last() {
    let published = Published::new();
    let (name, host) = (&published.name, &published.host);
    for order in [[host.as_str(), FOREIGN], [FOREIGN, host.as_str()]] {
        let Some(world) = World::new() else { return };
        for platform in order {
            published.pull(&world, platform);
        }
        assert_eq!(quietly(&world, "", name), format!("{host} 1"));
        assert_eq!(world.inspect(name, "{{.Id}}"), published.own.id().to_string());
        assert_eq!(
            quietly(&world, &format!("--platform {FOREIGN}"), name),
            format!("{FOREIGN} 1")
        );
        // So does the name, in docker's words that it was downloaded; of another tag of the index, too.
        published.put("2", &published.own, &published.foreign);
        let other = published.registry.name("app:2");
        world
            .dhow(&["pull", "--platform", FOREIGN, &other])
            .prints("Status: Downloaded newer image")
            .ok();
        assert_eq!(quietly(&world, "--pull never", &other), format!("{host} 1"));
        world.clean();
    }
}

#[test]
fn podmans_pull_gives_the_name_to_what_was_pulled() {
    let published = Published::new();
    let Some(world) = World::new() else { return };
    let name = published.name.as_str();
    let [own, foreign] = [&published.own, &published.foreign].map(|image| image.id().hex());
    assert_eq!(world.podman_of(&["pull", "-q", name]).ok(), own);
    let pull = |policy: &str| world.podman_of(&["pull", "-q", "--arch", "s390x", "--policy", policy, name]);
    pull("never").exits(125).says("image not known");
    for policy in ["missing", "always", "never"] {
        assert_eq!(pull(policy).ok(), foreign, "{policy}");
        assert_eq!(
            world.inspect(name, "{{.Id}}"),
            format!("sha256:{foreign}"),
            "{policy}"
        );
    }
    world.podman_of(&["pull", "-q", name]).ok();
    assert_eq!(world.inspect(name, "{{.Id}}"), format!("sha256:{own}"));
    world.clean();
}

#[test]
fn an_image_that_is_not_here_for_the_platform_is_pulled_unless_it_must_not_be() {
    let published = Published::new();
    let Some(world) = World::new() else { return };
    let (name, host) = (&published.name, &published.host);
    published.pull(&world, host);
    let never = |platform: &str| ran(&world, &format!("--pull never --platform {platform}"), name);
    never(FOREIGN)
        .exits(125)
        .says(&format!(
            "image with reference {name} was found but does not provide the specified platform ({FOREIGN})"
        ))
        .says(&format!("it is here for {host}"));
    // An ID is one image: no registry has another by it.
    published.registry.forget_requests();
    let id = published.own.id().to_string();
    for id in [id.as_str(), &id[7..19]] {
        ran(&world, &format!("--platform {FOREIGN}"), id)
            .exits(125)
            .says("does not provide the specified platform");
    }
    assert_eq!(published.asked(), 0);

    assert_eq!(
        ran(&world, &format!("--platform {FOREIGN}"), name)
            .says(&format!("Unable to find image '{name}' locally"))
            .ok(),
        format!("{FOREIGN} 1")
    );
    // Neither takes the other away.
    published.registry.forget_requests();
    for platform in [host.as_str(), FOREIGN] {
        for pull in ["never", "missing"] {
            assert_eq!(
                quietly(&world, &format!("--pull {pull} --platform {platform}"), name),
                format!("{platform} 1")
            );
        }
    }
    assert_eq!(published.asked(), 0);
    ran(&world, "--platform linux/riscv64", name)
        .exits(125)
        .says("no matching manifest for linux/riscv64")
        .says(&format!("it has {FOREIGN}, {host}"));
    world.clean();
}

#[test]
fn always_asks_the_registry_for_the_platform() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let name = &published.name;
    let [own, foreign] = [published.host.as_str(), FOREIGN].map(|platform| made(platform, "2"));
    published.put("1", &own, &foreign);
    let always = format!("-q --pull always --platform {FOREIGN}");
    assert_eq!(ran(&world, &always, name).ok(), format!("{FOREIGN} 2"));
    assert_ne!(published.asked(), 0);
    world.clean();
}

#[test]
fn another_machines_image_is_warned_of_unless_it_was_asked_for() {
    let published = Published::new();
    let Some(world) = World::new() else { return };
    published.pull(&world, FOREIGN);
    let warned = ran(&world, "", &published.name);
    let host = &published.host;
    assert_eq!(
        warned.stderr,
        format!(
            "WARNING: The requested image's platform ({FOREIGN}) does not match the detected host platform ({host}) and no specific platform was requested\n"
        )
    );
    assert_eq!(warned.ok(), format!("{FOREIGN} 1"));
    let warned = world.podman_of(&["run", "--rm", "--network", "none", &published.name, "true"]);
    assert_eq!(
        warned.exits(0).stderr,
        format!("WARNING: image platform ({FOREIGN}) does not match the expected platform ({host})\n")
    );
    quietly(&world, &format!("--platform {FOREIGN}"), &published.name);
    world.clean();
}

#[test]
fn the_image_that_goes_with_its_container_is_the_one_of_its_platform() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let name = &published.name;
    let run = [
        "run",
        "--rmi",
        "--network",
        "none",
        "--platform",
        FOREIGN,
        name,
        "true",
    ];
    world.podman_of(&run).exits(0);
    let ids = world.say("images -aq --no-trunc").ok();
    assert_eq!(ids, published.own.id().to_string());
    world.clean();
}

#[test]
fn a_name_is_one_image_in_lists_and_its_others_stay_and_go_with_it() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let (name, own) = (&published.name, published.own.id().to_string());
    let foreign = published.foreign.id().to_string();
    let listed = |flags: &str| world.say(&format!("images -q --no-trunc {flags}")).ok();
    assert_eq!(listed(""), own);
    assert_eq!(listed("-f dangling=true"), "");
    assert_eq!(listed("-a").lines().count(), 2);
    let tree = world.say("images --tree").ok();
    assert!(!tree.contains("<untagged>"), "{tree}");
    assert_eq!(tree.lines().count(), 4, "{tree}");
    let total = |kind: &str| {
        let row = world.say("system df").ok();
        let row = row
            .lines()
            .find(|line| line.starts_with(kind))
            .unwrap()
            .to_owned();
        row.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(total("Images"), "1");
    assert_eq!(world.say("info -f {{.Images}}").ok(), "1");

    world.say("image prune -f").ok();
    let create = ["create", "--name", "user", "--platform", FOREIGN, name, "true"];
    world.dhow(&create).ok();
    world.say("image prune -af").ok();
    assert_eq!(listed("-a").lines().count(), 2);
    world
        .dhow(&["rmi", name])
        .exits(1)
        .says("is using its referenced image")
        .says(&foreign[7..19]);
    world.say("rm user").ok();
    let removed = world.dhow(&["rmi", name]).ok();
    for id in [&own, &foreign] {
        assert!(removed.contains(&format!("Deleted: {id}")), "{removed}");
    }
    assert_eq!(listed("-a"), "");
    world.clean();
}

#[test]
fn by_force_a_container_keeps_its_image_without_the_name() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let create = [
        "create",
        "--name",
        "user",
        "--platform",
        FOREIGN,
        &published.name,
        "cat",
        "/machine",
    ];
    world.dhow(&create).ok();
    world.dhow(&["rmi", "-f", &published.name]).ok();
    let foreign = published.foreign.id().to_string();
    assert_eq!(world.say("images -aq --no-trunc").ok(), foreign);
    assert_eq!(world.inspect("user", "{{.Image}}"), foreign);
    assert_eq!(world.say("start -a user").ok(), format!("{FOREIGN} 1"));
    world.clean();
}

#[test]
fn a_build_begins_with_the_stored_image_for_its_platform() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let recipe = format!("FROM {}\n", published.name);
    let folder = world.path("out");
    for platform in [FOREIGN, &published.host, FOREIGN] {
        let output = folder.display().to_string();
        let args = ["build", "-q", "--platform", platform, "-o", &output, "-"];
        world.feed(&args, recipe.clone()).exits(0);
        let machine = std::fs::read_to_string(folder.join("machine")).unwrap();
        assert_eq!(machine, format!("{platform} 1\n"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert_eq!(published.asked(), 0);
    world
        .feed(
            &["build", "--platform", "linux/riscv64", "--pull=never", "-"],
            recipe,
        )
        .exits(1)
        .says("there is no such image here for linux/riscv64");
    world.clean();
}

#[test]
fn stages_for_two_platforms_of_one_name_have_two_bases() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let (name, host) = (&published.name, &published.host);
    let recipe = format!(
        "FROM --platform={FOREIGN} {name} AS other\nFROM --platform={host} {name}\nCOPY --from=other /machine /other\n"
    );
    let layout = world.path("layout");
    let output = format!("type=oci,dest={},tar=false", layout.display());
    let args = [
        "build",
        "-q",
        "-t",
        "two:1",
        "--load",
        "--provenance=true",
        "-o",
        &output,
        "-",
    ];
    world.feed(&args, recipe).exits(0);
    let (_, _, statement) = said(&layout, PROVENANCE);
    let made_of = statement["predicate"]["buildDefinition"]["resolvedDependencies"].clone();
    let made_of = made_of.as_array().unwrap().iter();
    let mut platforms: Vec<&str> = made_of
        .map(|one| one["uri"].as_str().unwrap().rsplit_once("platform=").unwrap().1)
        .collect();
    platforms.sort_unstable();
    let mut wanted = [FOREIGN, host].map(|platform| platform.replace('/', "%2F"));
    wanted.sort();
    assert_eq!(platforms, wanted, "{statement}");
}

#[test]
fn a_container_of_another_platform_is_updated_to_a_newer_image_for_that() {
    let published = Published::new();
    let Some(world) = published.both() else { return };
    let name = &published.name;
    podman_update::systemctl(&world, &format!("--platform {FOREIGN} {name}"), "registry");
    podman_update::begin(&world);
    let update = || podman_update::update(&world, podman_update::SHORT).ok();
    assert_eq!(update(), "web.service=registry=false");
    let [own, foreign] = [published.host.as_str(), FOREIGN].map(|platform| made(platform, "2"));
    published.put("1", &own, &published.foreign);
    assert_eq!(
        update(),
        "web.service=registry=false",
        "the same in another index"
    );
    published.put("1", &own, &foreign);
    assert_eq!(update(), "web.service=registry=true");
    assert_eq!(world.inspect("web", "{{.Image}}"), foreign.id().to_string());
    assert_eq!(update(), "web.service=registry=false");
    world.dhow(&["rm", "-f", "-t", "0", "web"]).ok();
}

#[test]
fn the_environment_names_the_platform_that_no_flag_does() {
    let published = Published::new();
    let Some(world) = World::new() else { return };
    let (name, host) = (published.name.as_str(), published.host.as_str());
    let under = |platform: &str, called: &str, args: &[&str]| {
        let mut command = world.command(args);
        command.arg0(called).env("DOCKER_DEFAULT_PLATFORM", platform);
        finish(command, Vec::new())
    };
    under(FOREIGN, "dhow", &["pull", "-q", name]).ok();
    assert_eq!(world.inspect(name, "{{.Id}}"), published.foreign.id().to_string());
    published.pull(&world, host);
    let run = ["run", "--rm", "--network", "none"];
    let machine = |platform: &str, called: &str, flags: &[&str]| {
        under(
            platform,
            called,
            &[&run[..], flags, &[name, "cat", "/machine"]].concat(),
        )
    };
    let foreign = machine(FOREIGN, "dhow", &[]);
    assert_eq!(foreign.stderr, "", "nobody is warned of what was asked for");
    assert_eq!(foreign.ok(), format!("{FOREIGN} 1"));
    for (platform, called, flags) in [
        (FOREIGN, "dhow", vec!["--platform", host]),
        (FOREIGN, "podman", vec![]),
        ("", "dhow", vec![]),
    ] {
        assert_eq!(
            machine(platform, called, &flags).ok(),
            format!("{host} 1"),
            "{called} {flags:?}"
        );
    }
    machine("linux", "dhow", &[])
        .exits(125)
        .says("DOCKER_DEFAULT_PLATFORM: \"linux\" is not a platform");
    world.file("context/Dockerfile", format!("FROM {name}\n"));
    let (context, out) = (world.path("context"), world.path("out"));
    let [context, out] = [context, out].map(|path| path.display().to_string());
    under(FOREIGN, "dhow", &["build", "-q", "-o", &out, &context]).exits(0);
    let machine = std::fs::read_to_string(world.path("out/machine")).unwrap();
    assert_eq!(machine, format!("{FOREIGN} 1\n"));
    let tar = world.file("root.tar", busybox_tar()).display().to_string();
    under(FOREIGN, "dhow", &["import", &tar, "made:1"]).ok();
    assert_eq!(world.inspect("made:1", "{{.Architecture}}"), "s390x");
}
