//! The one static binary.

use std::path::Path;
use std::process::Command;

/// The C library is linked in and no library is loaded at run time; without relocations at start (docs/adr/0002).
const FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// The commit of the tree, with a word if files were changed since; none outside of a repository.
fn commit(root: &Path) -> Option<String> {
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(described.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| described.status.success() && !text.is_empty())
}

pub(crate) fn build() -> Result<String, Vec<String>> {
    let root = crate::root();
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let profile = std::env::args().nth(2).unwrap_or_else(|| "release".to_owned());
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    if let Some(commit) = commit(&root) {
        // What the runtime says when it is asked for its version.
        cargo.env("DHOW_COMMIT", commit);
    }
    cargo.args(["rustc", "--locked", "--package", "dhow", "--bin", "dhow"]);
    cargo.args(["--profile", &profile, "--target", &target, "--"]);
    // Names and linker that the list of pieces was made with.
    if std::env::consts::ARCH == "x86_64" {
        let script = crate::order::script(&target_folder(&root))?;
        cargo.arg(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    }
    let status = cargo
        .env("RUSTFLAGS", FLAGS)
        .current_dir(&root)
        .status()
        .map_err(|error| vec![format!("dist: run cargo: {error}")])?;
    if !status.success() {
        return Err(vec![format!("dist: cargo build: {status}")]);
    }
    let built = target_folder(&root).join(&target).join(&profile).join("dhow");
    let folder = root.join("dist");
    let copy = || -> std::io::Result<u64> {
        std::fs::create_dir_all(&folder)?;
        let beside = folder.join(".dhow.new");
        std::fs::copy(&built, &beside)?;
        // By rename, since the old one may be running.
        std::fs::rename(&beside, folder.join("dhow"))?;
        std::fs::metadata(folder.join("dhow")).map(|metadata| metadata.len())
    };
    let size = copy().map_err(|error| vec![format!("dist: copy {}: {error}", built.display())])?;
    static_only(&folder.join("dhow"))?;
    Ok(format!(
        "dist/dhow, {size} bytes ({:.1} MB), static",
        size as f64 / 1e6
    ))
}

fn target_folder(root: &Path) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into)
}

/// A static program names no interpreter: program header of type 3 (ELF, PT_INTERP).
fn static_only(path: &Path) -> Result<(), Vec<String>> {
    let bytes =
        std::fs::read(path).map_err(|error| vec![format!("dist: read {}: {error}", path.display())])?;
    let word = |at: usize, size: usize| -> u64 {
        bytes
            .get(at..at + size)
            .unwrap_or(&[])
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (offset, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    let interpreted =
        (0..count).any(|index| usize::try_from(offset + index * size).is_ok_and(|at| word(at, 4) == 3));
    if interpreted {
        Err(vec![
            "dist: the binary wants a dynamic loader; it must be static".to_owned(),
        ])
    } else {
        Ok(())
    }
}
