//! kill -9 at any moment: what is left is swept, and every name that is there is whole.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dhow_image::{Check, Pull, Store};
use dhow_reference::Reference;
use dhow_testkit::{Layer, Tar, TinyImage};
use dhow_types::Silent;

use crate::{World, base, client};

/// Tells the process that is killed where to work: `root host`.
const ORDERS: &str = "DHOW_TEST_VICTIM";

const ROUNDS: u64 = 40;

/// An image whose layers take a few milliseconds.
fn image(name: &str) -> TinyImage {
    let mut tar = Tar::new();
    for number in 0..200_u32 {
        tar = tar.file(
            &format!("{name}-{number}"),
            0o644,
            &vec![number.to_ne_bytes()[0]; 3000],
        );
    }
    TinyImage::oci(vec![base(), Layer::gzip(tar.finish())])
}

/// Not a test: the process that `a_process_killed_at_any_moment_leaves_a_store_that_checks_clean` kills.
#[test]
fn victim() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let (root, host) = orders.split_once(' ').unwrap();
    let store = Store::open(Path::new(root)).unwrap();
    let client = client();
    let name = |text: &str| Reference::parse(&format!("{host}/{text}")).unwrap();
    loop {
        for tag in ["app:1", "app:2"] {
            store
                .pull(&client, &name(tag), &Pull::default(), &Silent)
                .unwrap();
        }
        let image = store.resolve(&name("app:1").canonical()).unwrap();
        let mut config = image.config.clone();
        config.author = Some(std::process::id().to_string());
        store.commit(config, &[name("mine:1")]).unwrap();
        store.push(&client, &name("mine:1"), &Silent).unwrap();
        let mut archive = Vec::new();
        store.save(&[&name("app:2").canonical()], &mut archive).unwrap();
        for tag in ["app:1", "app:2", "mine:1"] {
            store.remove(&name(tag).canonical(), true, &[]).unwrap();
        }
        store.load(archive.as_slice(), &Silent).unwrap();
        store.remove(&name("app:2").canonical(), true, &[]).unwrap();
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_store_that_checks_clean() {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    world.registry.put_image("app", "2", &image("b"));
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::victim", "--test-threads=1"])
            .env(
                ORDERS,
                format!("{} {}", world.root().display(), world.registry.host()),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_millis(20 + seed % 150));
        let early = victim.try_wait().unwrap();
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert!(early.is_none(), "round {round}: the victim failed by itself");
        let store = Store::open(world.root()).unwrap();
        let report = store
            .check(Check {
                repair: false,
                deep: true,
            })
            .unwrap();
        assert!(report.clean(), "round {round}: {report:?}");
        interrupted += usize::from(!report.findings.is_empty());
        for image in store.list().unwrap() {
            for diff in &image.config.rootfs.diff_ids {
                assert_eq!(store.layers.verify(diff).unwrap(), vec![], "round {round}");
            }
        }
        world.assert_clean();
    }
    assert!(
        interrupted > 5,
        "only {interrupted} of {ROUNDS} kills came in the middle of something"
    );
    // Whatever state it was left in: the next command works.
    let pulled = world.pull("app:1").unwrap();
    assert_eq!(pulled.image, image("a").id());
}
