//! Trees as they can be compared.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: i64,
    pub(crate) links: u64,
    pub(crate) content: String,
}

/// Everything below a directory by its path; the directory itself is "".
pub(crate) fn read(root: &Path) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let data = path.symlink_metadata().unwrap();
        let (kind, content) = if data.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            ('d', String::new())
        } else if data.is_symlink() {
            (
                'l',
                std::fs::read_link(&path).unwrap().to_string_lossy().into_owned(),
            )
        } else if data.file_type().is_file() {
            ('f', dhow_types::Digest::of(&std::fs::read(&path).unwrap()).hex())
        } else if data.file_type().is_char_device() {
            ('c', data.rdev().to_string())
        } else {
            ('?', String::new())
        };
        let node = Node {
            kind,
            mode: data.mode() & 0o7777,
            owner: (data.uid(), data.gid()),
            mtime: data.mtime(),
            links: if kind == 'd' { 1 } else { data.nlink() },
            content,
        };
        nodes.insert(
            path.strip_prefix(root).unwrap().to_string_lossy().into_owned(),
            node,
        );
    }
    nodes
}

/// What is not the same in both, one line each.
pub(crate) fn differences(one: &BTreeMap<String, Node>, two: &BTreeMap<String, Node>) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, node) in one {
        match two.get(path) {
            None => lines.push(format!("only in the first: {path}")),
            Some(other) if other != node => lines.push(format!("{path}: {node:?} against {other:?}")),
            Some(_) => (),
        }
    }
    lines.extend(
        two.keys()
            .filter(|path| !one.contains_key(*path))
            .map(|path| format!("only in the second: {path}")),
    );
    lines
}
