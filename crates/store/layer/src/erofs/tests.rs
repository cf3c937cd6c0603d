use super::*;

fn node(path: &str, kind: EntryKind) -> Entry {
    Entry::new(path, kind, 0o644)
}

fn try_image(nodes: &[Entry], links: &[(u32, u32)]) -> Result<(File, Meta), Error> {
    let file = tempfile::tempfile().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (data, links) = (Column::new(dir.path()), packed(dir.path(), links));
    let meta = finish(&file, dir.path(), &mut nodes.to_vec(), &data, &links, TAR)?;
    Ok((file, meta))
}

fn packed(dir: &Path, links: &[(u32, u32)]) -> Column<u64> {
    let mut packed = Column::new(dir);
    for (link, target) in links {
        packed.push(u64::from(*link) << 32 | u64::from(*target)).unwrap();
    }
    packed
}

fn image(nodes: &[Entry]) -> (File, Meta) {
    try_image(nodes, &[]).unwrap()
}

fn read(file: &File, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let mut number = [0; 8];
    number[..length].copy_from_slice(&bytes[at..at + length]);
    u64::from_le_bytes(number)
}

/// The inode with this number: size, first block, links.
fn inode(file: &File, meta: Meta, at: u64) -> (u64, u64, u64) {
    let bytes = read(file, meta.start + at * SLOT, 64);
    (number(&bytes, 8, 8), number(&bytes, 16, 4), number(&bytes, 44, 4))
}

/// The names in a directory, with the number and type of each.
fn listed(file: &File, meta: Meta, at: u64) -> Vec<(String, u64, u8)> {
    let (size, block, _) = inode(file, meta, at);
    let bytes = read(file, block * BLOCK, usize::try_from(size).unwrap());
    let mut found = Vec::new();
    for block in bytes.chunks(512) {
        let place = |at: usize| usize::try_from(number(block, at * DIRENT + 8, 2)).unwrap();
        let count = place(0) / DIRENT;
        for at in 0..count {
            let end = if at + 1 < count {
                place(at + 1)
            } else {
                block.len()
            };
            let name = String::from_utf8_lossy(&block[place(at)..end]);
            let name = name.trim_end_matches('\0').to_owned();
            found.push((name, number(block, at * DIRENT, 8), block[at * DIRENT + 10]));
        }
    }
    found
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
        link.link = vec![b'x'; length];
        nodes.push(link);
    }
    let (file, meta) = image(&nodes);
    let mut before = 0;
    let names = listed(&file, meta, ROOT.into());
    for (name, at, _) in names.iter().filter(|(name, ..)| !name.starts_with('.')) {
        let at = at * SLOT;
        assert!(at >= before, "inodes overlap");
        let length: u64 = name.parse().unwrap();
        let target = if INODE + length <= BLOCK {
            before = at + INODE + length;
            assert!(at % BLOCK + INODE + length <= BLOCK, "{length} at {at}");
            meta.start + at + INODE
        } else {
            before = at + INODE;
            inode(&file, meta, at / SLOT).1 * BLOCK
        };
        let target = read(&file, target, usize::try_from(length).unwrap());
        assert!(target.iter().all(|byte| *byte == b'x'), "{length}");
    }
    assert_eq!(names.len(), 599 + 2);
}

#[test]
fn directories_are_sorted_with_the_dots_among_the_names() {
    let mut nodes: Vec<Entry> = ["!", "-", "a", "a-", "a-/y", "a/x", "b-", "b/x", "b", "b/x/z"]
        .iter()
        .map(|name| node(name, EntryKind::Directory))
        .collect();
    nodes.sort_by(|a, b| a.path.cmp(&b.path));
    let (file, meta) = image(&nodes);
    let root: u64 = ROOT.into();
    let found = listed(&file, meta, root);
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["!", "-", ".", "..", "a", "a-", "b", "b-"]);
    // Itself twice, and the `..` of the six directories in it.
    assert_eq!(inode(&file, meta, root).2, 2 + 6);
    for (dir, child) in [("a", "x"), ("a-", "y"), ("b", "x")] {
        let (_, at, kind) = found.iter().find(|(name, ..)| name == dir).unwrap();
        let inside = listed(&file, meta, *at);
        let names: Vec<&str> = inside.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!((names, *kind), (vec![".", "..", child], 2));
        assert_eq!((inside[0].1, inside[1].1), (*at, root));
    }
}

#[test]
fn a_directory_of_many_blocks_has_all_its_names() {
    let nodes: Vec<Entry> = (0..5000)
        .map(|number| {
            node(
                &format!("{number:05}-{}", "n".repeat(number % 200)),
                EntryKind::File,
            )
        })
        .collect();
    let (file, meta) = image(&nodes);
    let found = listed(&file, meta, ROOT.into());
    let names: Vec<&[u8]> = found[2..].iter().map(|(name, ..)| name.as_bytes()).collect();
    let wanted: Vec<&[u8]> = nodes.iter().map(|node| node.path.as_slice()).collect();
    assert!(names == wanted);
}

#[test]
fn a_hard_link_is_a_name_of_the_inode_that_it_leads_to() {
    let nodes = [
        node("a", EntryKind::Hardlink),
        node("b", EntryKind::Fifo),
        node("c", EntryKind::Hardlink),
    ];
    let (file, meta) = try_image(&nodes, &[(0, 1), (2, 1)]).unwrap();
    let found = listed(&file, meta, ROOT.into());
    let (_, at, kind) = found[3];
    assert_eq!(found[2], ("a".to_owned(), at, kind));
    assert_eq!(found[4], ("c".to_owned(), at, 5));
    assert_eq!(inode(&file, meta, at).2, 3);
}

#[test]
fn a_name_without_its_directory_is_refused() {
    assert!(try_image(&[node("d/f", EntryKind::File)], &[]).is_err());
    let nodes = [node("e", EntryKind::File), node("l", EntryKind::Hardlink)];
    for links in [&[][..], &[(1, 2)], &[(1, 1)], &[(9, 0)]] {
        assert!(try_image(&nodes, links).is_err(), "{links:?}");
    }
    assert!(try_image(&nodes, &[(1, 0)]).is_ok());
}

#[test]
fn an_entry_of_a_large_layer_takes_little_memory_while_its_image_is_written() {
    let nodes = (0..50_000).map(|number| node(&format!("a-name-of-a-file-{number:06}"), EntryKind::File));
    let nodes: Vec<Entry> = nodes.collect();
    let dir = tempfile::tempdir().unwrap();
    let plan = |kept| Plan::keeping(dir.path(), kept, &mut nodes.clone(), &Column::new(dir.path())).unwrap();
    let each = plan(crate::column::KEPT).size() / nodes.len();
    assert!(each <= 48, "{each} bytes for each entry");
    assert!(plan(20_000).size() < 100_000, "{}", plan(20_000).size());
}

#[test]
fn an_image_is_the_same_when_what_is_known_of_it_is_in_files() {
    let (mut nodes, mut links) = (Vec::new(), Vec::new());
    for number in 0..3000 {
        let dir = format!("{:02}", number / 70);
        if number % 70 == 0 {
            nodes.push(node(&dir, EntryKind::Directory));
            nodes.push(node(&format!("{dir}/-"), EntryKind::Directory));
            let mut link = node(&format!("{dir}/-/long"), EntryKind::Symlink);
            link.link = vec![b'l'; 4090];
            nodes.push(link);
        }
        let at = u32::try_from(nodes.len()).unwrap();
        if number % 7 == 3 {
            links.push((at, at - 1));
            nodes.push(node(&format!("{dir}/{number:05}"), EntryKind::Hardlink));
        } else {
            nodes.push(node(&format!("{dir}/{number:05}"), EntryKind::File));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let written = |kept: usize| {
        let file = tempfile::tempfile().unwrap();
        let links = packed(dir.path(), &links);
        let mut plan = Plan::keeping(dir.path(), kept, &mut nodes.clone(), &links).unwrap();
        plan.place_outside().unwrap();
        let mut output = Output::new(&file, TAR);
        let data = Column::new(dir.path());
        plan.write_inodes(&mut nodes.clone(), &data, &mut output).unwrap();
        plan.write_outside(&mut nodes.clone(), &mut output).unwrap();
        let (length, _) = output.finish().unwrap();
        (plan.size(), read(&file, 0, usize::try_from(length).unwrap()))
    };
    let (memory, all) = (written(usize::MAX), written(4000));
    assert!(
        all.0 < memory.0 && all.1 == memory.1,
        "{} and {}",
        all.0,
        memory.0
    );
}
