use super::*;

fn node(path: &str, kind: EntryKind) -> Node {
    Node {
        entry: Entry::new(path, kind, 0o644),
        data: 0,
    }
}

fn image(nodes: &[Node]) -> (File, Meta) {
    let file = tempfile::tempfile().unwrap();
    let meta = finish(&file, nodes, TAR).unwrap();
    (file, meta)
}

#[test]
fn an_image_ends_on_a_page_and_its_hash_can_be_taken_again() {
    let (file, meta) = image(&[node("d", EntryKind::Directory), node("d/f", EntryKind::File)]);
    assert_eq!(meta.start, TAR);
    assert_eq!(file.metadata().unwrap().len() % PAGE, 0);
    assert_eq!(hash(&file, meta.start).unwrap(), meta.hash);
    for at in [SUPERBLOCK as u64 + 14, meta.start + 64, meta.start + 600] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        assert_ne!(hash(&file, meta.start).unwrap(), meta.hash, "byte {at}");
        file.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn no_inode_and_no_short_link_crosses_a_block() {
    let mut nodes = Vec::new();
    for length in 1..600 {
        let mut link = node(&format!("{length:04}"), EntryKind::Symlink);
        link.entry.link = vec![b'x'; length];
        nodes.push(link);
    }
    let mut tree = Tree::new(&nodes).unwrap();
    tree.place().unwrap();
    let mut before = 0;
    for inode in &tree.inodes {
        assert!(inode.at >= before, "inodes overlap");
        let length = INODE + inode.xattrs.len() as u64 + inode.inline().unwrap_or(0);
        assert!(
            inode.at % BLOCK + length <= BLOCK,
            "{} at {}",
            inode.size,
            inode.at
        );
        before = inode.at + length;
    }
}

#[test]
fn directories_are_sorted_with_the_dots_among_the_names() {
    let names = ["!", "-", "a", "b-", "b/x", "b"];
    let mut nodes: Vec<Node> = names
        .iter()
        .map(|name| node(name, EntryKind::Directory))
        .collect();
    nodes.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let tree = Tree::new(&nodes).unwrap();
    let blocks = tree.inodes[0].names();
    let found: Vec<&[u8]> = blocks.iter().flatten().map(|(name, _)| *name).collect();
    assert_eq!(found, [&b"!"[..], b"-", b".", b"..", b"a", b"b", b"b-"]);
    // Itself twice, and the `..` of the five directories in it.
    assert_eq!(tree.inodes[0].links, 2 + 5);
}

#[test]
fn a_name_without_its_directory_is_refused() {
    let file = tempfile::tempfile().unwrap();
    assert!(finish(&file, &[node("d/f", EntryKind::File)], TAR).is_err());
    let mut link = node("l", EntryKind::Hardlink);
    link.entry.link = b"gone".to_vec();
    assert!(finish(&file, &[link], TAR).is_err());
}
