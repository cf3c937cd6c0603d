use dhow_types::Digest;
use proptest::prelude::*;

use super::*;
use crate::EntryKind;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop::sample::select(vec![
        EntryKind::File,
        EntryKind::Directory,
        EntryKind::Symlink,
        EntryKind::Hardlink,
        EntryKind::CharDevice,
        EntryKind::BlockDevice,
        EntryKind::Fifo,
        EntryKind::Whiteout,
    ]);
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u64>(),
        any::<i64>(),
        any::<u32>(),
        any::<u32>(),
    );
    let xattrs = prop::collection::vec((bytes(20), bytes(40)), 0..4);
    let content = prop::option::of(any::<[u8; 32]>());
    (kind, any::<(bool, bool)>(), numbers, bytes(40), xattrs, content).prop_map(
        |(kind, (opaque, implied), (mode, uid, gid, size, mtime, major, minor), link, xattrs, content)| {
            Entry {
                path: Vec::new(),
                kind,
                opaque,
                implied,
                mode,
                uid,
                gid,
                size,
                mtime,
                link,
                major,
                minor,
                xattrs,
                content: content.map(Digest::from_bytes),
            }
        },
    )
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let named = prop::collection::btree_map("[a-c/-]{0,6}", entry(), 0..30);
    named.prop_map(|map| {
        map.into_iter()
            .map(|(path, entry)| Entry {
                path: path.into_bytes(),
                ..entry
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_index_comes_back(entries in entries()) {
        let index = Index::decode(Index::encode(&entries).unwrap()).unwrap();
        prop_assert_eq!(index.len(), entries.len());
        prop_assert_eq!(index.entries().collect::<Vec<_>>(), entries.clone());
        for entry in &entries {
            prop_assert_eq!(index.find(&entry.path), Some(entry.clone()));
        }
        prop_assert_eq!(index.find(b"nobody"), None);
    }

    #[test]
    fn below_gives_the_subtree(entries in entries(), path in "[a-c-]{1,2}") {
        let path = path.into_bytes();
        let index = Index::decode(Index::encode(&entries).unwrap()).unwrap();
        let prefix = [path.as_slice(), b"/"].concat();
        let expected: Vec<Entry> = entries
            .iter()
            .filter(|entry| entry.path == path || entry.path.starts_with(&prefix))
            .cloned()
            .collect();
        prop_assert_eq!(index.below(&path), expected);
        prop_assert_eq!(index.below(b"").len(), entries.len());
    }

    #[test]
    fn damage_is_found(entries in entries(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut stored = Index::encode(&entries).unwrap();
        let at = at.index(stored.len());
        stored[at] ^= 1 << bit;
        prop_assert!(Index::decode(stored).is_err());
    }

    #[test]
    fn cuts_are_found(entries in entries(), at in any::<prop::sample::Index>()) {
        let mut stored = Index::encode(&entries).unwrap();
        stored.truncate(at.index(stored.len()));
        prop_assert!(Index::decode(stored).is_err());
    }

    #[test]
    fn a_forged_index_with_a_right_checksum_never_panics(entries in entries(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut stored = Index::encode(&entries).unwrap();
        let body = stored.len() - 4;
        for (at, value) in flips {
            let at = at.index(body);
            stored[at] = value;
        }
        let mut crc = flate2::Crc::new();
        crc.update(&stored[..body]);
        stored[body..].copy_from_slice(&crc.sum().to_le_bytes());
        if let Ok(index) = Index::decode(stored) {
            prop_assert_eq!(index.entries().count(), index.len());
        }
    }
}

#[test]
fn unsorted_and_repeated_paths_are_refused() {
    let at = |path: &str| Entry::new(path, EntryKind::File, 0o644);
    for paths in [["b", "a"], ["a", "a"]] {
        let entries: Vec<Entry> = paths.into_iter().map(at).collect();
        assert_eq!(
            Index::encode(&entries).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
}

#[test]
fn a_version_to_come_is_told_from_damage() {
    let mut stored = Index::encode(&[]).unwrap();
    stored[8] = 9;
    assert_eq!(Index::decode(stored).unwrap_err().kind(), ErrorKind::Unsupported);
}
