//! The example that shows the whole life of a family of images, with real packages.

use std::path::Path;
use std::process::Command;

use crate::world::{self, program};

#[test]
fn a_family_of_images_is_mended_signed_and_retired() {
    // It starts containers, and asks apt which versions there are.
    if !world::root() || !program("apt-cache") {
        return;
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/lifecycle/run");
    let ran = Command::new(example)
        .env("DHOW", world::binary())
        .env("DHOW_LIFECYCLE_PORT", "5018")
        .output()
        .unwrap();
    if ran.status.code() == Some(77) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&ran.stderr));
        return;
    }
    assert!(
        ran.status.success(),
        "{}\n--- stderr\n{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}
