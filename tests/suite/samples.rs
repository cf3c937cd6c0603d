//! Small images and archives, made here.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use dhow_testkit::Tar;
use dhow_types::Digest;
use serde_json::json;

/// Programs that the tests call; links to the one binary.
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "cut",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mv",
    "nc",
    "nproc",
    "nslookup",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "timeout",
    "test",
    "touch",
    "tr",
    "trap",
    "true",
    "tty",
    "umount",
    "uname",
    "vi",
    "wc",
    "wget",
    "whoami",
    "yes",
];

/// A root file system of busybox alone.
pub(crate) fn busybox_tar() -> Vec<u8> {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| {
        let places = ["/bin/busybox", "/usr/bin/busybox"];
        let binary = places.iter().find_map(|place| fs::read(place).ok());
        let binary = binary.expect("busybox is not there: apt-get install busybox-static (./test does it)");
        let mut tar = Tar::new()
            .directory("bin", 0o755)
            .directory("etc", 0o755)
            .directory("tmp", 0o1777)
            .directory("root", 0o700)
            .directory("home", 0o755)
            .directory("data", 0o755)
            .file("data/seed", 0o644, b"from the image\n")
            .file(
                "etc/passwd",
                0o644,
                b"root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000:Ada:/home:/bin/sh\n",
            )
            .file("etc/group", 0o644, b"root:x:0:\nada:x:1000:\nwheel:x:10:ada\n")
            .file("bin/busybox", 0o755, &binary)
            .file("etc/not-a-program", 0o644, b"text\n");
        for applet in APPLETS {
            tar = tar.symlink(&format!("bin/{applet}"), "busybox");
        }
        tar.finish()
    })
    .clone()
}

/// A small image as `save` would write it, in docker's old form.
pub(crate) fn docker_archive(name: &str, layer: &[u8]) -> Vec<u8> {
    docker_archive_of(name, &[layer.to_vec()])
}

/// The same of several layers, lowest first.
pub(crate) fn docker_archive_of(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let digests: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = config(&digests);
    let id = Digest::of(&config).hex().clone();
    let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    let manifest = json!([{"Config": format!("{id}.json"), "RepoTags": [name], "Layers": names}]);
    let mut tar = Tar::new()
        .file("manifest.json", 0o644, manifest.to_string().as_bytes())
        .file(&format!("{id}.json"), 0o644, &config);
    for (name, layer) in names.iter().zip(layers) {
        tar = tar.file(name, 0o644, layer);
    }
    tar.finish()
}

/// A config of these layers.
pub(crate) fn config(layers: &[Digest]) -> Vec<u8> {
    let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
    let config = json!({
        "architecture": dhow_types::Platform::host().architecture, "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": [{"created_by": "sample"}],
    });
    config.to_string().into_bytes()
}

/// An OCI layout with one image as a tar. `spoil` gets each document's name and bytes and may change the bytes after
/// their digests were taken.
pub(crate) fn oci_archive(name: &str, layer: &[u8], spoil: &dyn Fn(&str, Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let config = config(&[Digest::of(layer)]);
    let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config), "layers": [descriptor("layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["annotations"] =
        json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]})
        .to_string()
        .into_bytes();
    let mut tar = Tar::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    tar = tar
        .file("index.json", 0o644, &spoil("index", index))
        .directory("blobs", 0o755)
        .directory("blobs/sha256", 0o755);
    for (what, bytes) in [
        ("config", config),
        ("layer", layer.to_vec()),
        ("manifest", manifest),
    ] {
        let path = format!("blobs/sha256/{}", Digest::of(&bytes).hex());
        tar = tar.file(&path, 0o644, &spoil(what, bytes));
    }
    tar.finish()
}

/// Bytes that no codec makes smaller, the same in every run.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Every file below a folder with its digest, sorted: to compare trees byte for byte.
pub(crate) fn tree(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(place) = pending.pop() {
        for entry in fs::read_dir(&place).unwrap().flatten() {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
                found.push((name, Digest::of(&fs::read(entry.path()).unwrap()).to_string()));
            }
        }
    }
    found.sort();
    found
}
