//! The merged tree of a stack of layers, from their indexes alone: nothing is mounted. Every directory knows the
//! Merkle hash of what it holds; a layer on top hashes only the directories that it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dhow_layer::{Entry, EntryKind, Index, LayerStore};
use dhow_types::{DiffId, Digest};

use crate::failure::{Context as _, Error};
use crate::keys::{KeyWriter, xattr_digest};
use crate::source::{Item, ItemKind, Opened, Source, Xattrs, join};

/// The merged tree of a stack.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    /// What the layer says; `None` for a directory that no layer names.
    entry: Option<Arc<Entry>>,
    /// The layer that has the content.
    layer: DiffId,
    /// What names the same file in its layer, when it has several names there.
    inode: Option<(u64, u64)>,
    children: BTreeMap<Vec<u8>, Arc<Self>>,
    hash: OnceLock<Digest>,
}

impl Clone for Node {
    /// A copy is made to be changed: it does not know its hash.
    fn clone(&self) -> Self {
        Self {
            entry: self.entry.clone(),
            layer: self.layer,
            inode: self.inode,
            children: self.children.clone(),
            hash: OnceLock::new(),
        }
    }
}

impl Node {
    const fn directory(layer: DiffId) -> Self {
        Self {
            entry: None,
            layer,
            inode: None,
            children: BTreeMap::new(),
            hash: OnceLock::new(),
        }
    }

    fn is_dir(&self) -> bool {
        self.entry
            .as_ref()
            .is_none_or(|entry| entry.kind == EntryKind::Directory)
    }

    fn item(&self, path: &[u8]) -> Item {
        let Some(entry) = &self.entry else {
            return Item {
                path: path.to_vec(),
                kind: ItemKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                size: 0,
                mtime: (0, 0),
                content: None,
                xattrs: xattr_digest(&[]),
                inode: None,
            };
        };
        let kind = match entry.kind {
            EntryKind::Directory => ItemKind::Directory,
            EntryKind::Symlink => ItemKind::Symlink(entry.link.clone()),
            EntryKind::CharDevice => ItemKind::CharDevice(entry.major, entry.minor),
            EntryKind::BlockDevice => ItemKind::BlockDevice(entry.major, entry.minor),
            EntryKind::Fifo => ItemKind::Fifo,
            EntryKind::File | EntryKind::Hardlink | EntryKind::Whiteout => ItemKind::File,
        };
        let content = match kind {
            ItemKind::File => entry.content.or_else(|| Some(self.nameless(entry))),
            _ => None,
        };
        Item {
            path: path.to_vec(),
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            mtime: (entry.mtime, 0),
            content,
            xattrs: xattr_digest(&entry.xattrs),
            inode: self.inode,
        }
    }

    /// Stands for a content whose hash the index does not have: its place in its layer.
    fn nameless(&self, entry: &Entry) -> Digest {
        if entry.size == 0 {
            return Digest::of(b"");
        }
        let mut writer = KeyWriter::new("content");
        writer.digest(&self.layer.0).bytes(&entry.path);
        writer.finish()
    }

    fn hash(&self) -> Digest {
        *self.hash.get_or_init(|| {
            let mut writer = KeyWriter::new("node");
            writer.item(b"", &self.item(b""));
            for (name, child) in &self.children {
                writer.bytes(name).digest(&child.hash());
            }
            writer.finish()
        })
    }
}

impl Tree {
    fn empty() -> Self {
        Self {
            root: Arc::new(Node::directory(DiffId(Digest::of(b"")))),
        }
    }

    /// Merkle hash of the whole tree, without times.
    pub(crate) fn merkle(&self) -> Digest {
        self.root.hash()
    }

    /// Puts a layer on top.
    fn apply(&mut self, layer: DiffId, index: &Index) {
        let root = Arc::make_mut(&mut self.root);
        root.hash = OnceLock::new();
        // Removals first: what the layer itself adds is never below its own whiteouts.
        for entry in index.entries() {
            if entry.kind == EntryKind::Whiteout {
                remove(root, &entry.path);
            } else if entry.opaque {
                clear(root, &entry.path);
            }
        }
        let several = Several::of(layer, index);
        for entry in index.entries() {
            match entry.kind {
                EntryKind::Whiteout => {}
                EntryKind::Hardlink => {
                    let original = index
                        .find(&entry.link)
                        .filter(|found| found.kind == EntryKind::File);
                    let inode = several.inode(&entry.link);
                    let mut linked = match original.or_else(|| lookup(root, &entry.link)) {
                        Some(original) => original,
                        None => entry.clone(),
                    };
                    linked.path = entry.path;
                    linked.kind = EntryKind::File;
                    insert(root, layer, linked, inode);
                }
                _ => {
                    let inode = several.inode(&entry.path);
                    insert(root, layer, entry, inode);
                }
            }
        }
    }

    fn node(&self, path: &[u8]) -> Option<&Node> {
        let mut node = self.root.as_ref();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            node = node.children.get(name)?;
        }
        Some(node)
    }

    /// Whether something is at `path` (no links are followed).
    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        self.node(path).is_some()
    }

    /// The names in the directory `path`.
    pub(crate) fn names(&self, path: &[u8]) -> BTreeSet<&[u8]> {
        let children = self.node(path).map(|node| node.children.keys());
        children.into_iter().flatten().map(Vec::as_slice).collect()
    }

    /// What the layers say about `path`.
    pub(crate) fn entry(&self, path: &[u8]) -> Option<&Entry> {
        self.node(path)?.entry.as_deref()
    }
}

/// The files of a layer that have several names.
struct Several {
    /// Stands for the layer.
    layer: u64,
    /// A number for each such file, by the name that the others are links to.
    files: HashMap<Vec<u8>, u64>,
}

impl Several {
    fn of(layer: DiffId, index: &Index) -> Self {
        let mut files = HashMap::new();
        for entry in index.entries() {
            if entry.kind == EntryKind::Hardlink {
                let next = files.len() as u64;
                files.entry(entry.link).or_insert(next);
            }
        }
        let mut start = [0; 8];
        for (to, from) in start.iter_mut().zip(layer.0.as_bytes()) {
            *to = *from;
        }
        Self {
            layer: u64::from_le_bytes(start),
            files,
        }
    }

    fn inode(&self, path: &[u8]) -> Option<(u64, u64)> {
        self.files.get(path).map(|number| (self.layer, *number))
    }
}

fn lookup(root: &Node, path: &[u8]) -> Option<Entry> {
    let mut node = root;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        node = node.children.get(name)?;
    }
    node.entry.as_deref().cloned()
}

/// The node at the parent of `path`, its directories made, and the last name.
fn descend<'a, 'b>(root: &'a mut Node, layer: DiffId, path: &'b [u8]) -> Option<(&'a mut Node, &'b [u8])> {
    let mut names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    let last = names.pop()?;
    let mut node = root;
    for name in names {
        node = changed_child(node, layer, name);
    }
    Some((node, last))
}

/// A child to be changed; what was no directory becomes one.
fn changed_child<'a>(node: &'a mut Node, layer: DiffId, name: &[u8]) -> &'a mut Node {
    let child = node
        .children
        .entry(name.to_vec())
        .or_insert_with(|| Arc::new(Node::directory(layer)));
    let child = Arc::make_mut(child);
    child.hash = OnceLock::new();
    if !child.is_dir() {
        *child = Node::directory(layer);
    }
    child
}

fn insert(root: &mut Node, layer: DiffId, entry: Entry, inode: Option<(u64, u64)>) {
    let implied = entry.implied;
    let directory = entry.kind == EntryKind::Directory;
    let path = entry.path.clone();
    let Some((parent, name)) = descend(root, layer, &path) else {
        if directory && !implied {
            root.entry = Some(Arc::new(entry));
        }
        return;
    };
    if directory {
        let node = changed_child(parent, layer, name);
        // An implied directory says nothing about one that is there.
        if !implied || node.entry.is_none() {
            node.layer = layer;
            node.entry = Some(Arc::new(entry));
        }
        return;
    }
    parent.children.insert(
        name.to_vec(),
        Arc::new(Node {
            entry: Some(Arc::new(entry)),
            inode,
            ..Node::directory(layer)
        }),
    );
}

fn remove(root: &mut Node, path: &[u8]) {
    with_parent(root, path, |parent, name| {
        parent.children.remove(name);
    });
}

fn clear(root: &mut Node, path: &[u8]) {
    if path.is_empty() {
        root.children.clear();
        return;
    }
    with_parent(root, path, |parent, name| {
        if let Some(child) = parent.children.get_mut(name) {
            let child = Arc::make_mut(child);
            child.hash = OnceLock::new();
            child.children.clear();
        }
    });
}

/// Runs `change` on the existing parent of `path`; a path that is not there stays so.
fn with_parent(root: &mut Node, path: &[u8], change: impl FnOnce(&mut Node, &[u8])) {
    let mut names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    let Some(last) = names.pop() else { return };
    let mut node = root;
    for name in names {
        let Some(child) = node.children.get_mut(name) else {
            return;
        };
        node = Arc::make_mut(child);
        node.hash = OnceLock::new();
    }
    change(node, last);
}

/// The trees of a build, each made once.
#[derive(Debug)]
pub(crate) struct Trees {
    layers: LayerStore,
    known: Mutex<HashMap<Vec<DiffId>, Tree>>,
}

impl Trees {
    pub(crate) fn new(layers: LayerStore) -> Self {
        Self {
            layers,
            known: Mutex::new(HashMap::new()),
        }
    }

    fn known(&self, stack: &[DiffId]) -> Option<Tree> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(stack).cloned()
    }

    /// The tree of a stack, lowest layer first.
    pub(crate) fn tree(&self, stack: &[DiffId]) -> Result<Tree, Error> {
        let mut done = stack.len();
        let mut tree = loop {
            if done == 0 {
                break Tree::empty();
            }
            if let Some(tree) = self.known(&stack[..done]) {
                break tree;
            }
            done -= 1;
        };
        for (above, diff) in stack.iter().enumerate().skip(done) {
            let layer = self.layers.layer(diff).context(|| "open a layer")?;
            let index = layer
                .index()
                .context(|| format!("read the index of layer {diff}"))?;
            tree.apply(*diff, &index);
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(stack[..=above].to_vec(), tree.clone());
        }
        Ok(tree)
    }
}

/// A stack as a source of `COPY --from`.
#[derive(Debug)]
pub(crate) struct StackSource<'a> {
    pub(crate) tree: Tree,
    pub(crate) layers: &'a LayerStore,
}

impl Source for StackSource<'_> {
    fn stat(&self, path: &[u8]) -> Result<Option<Item>, Error> {
        Ok(self.tree.node(path).map(|node| node.item(path)))
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Item>, Error> {
        let Some(node) = self.tree.node(path) else {
            return Ok(Vec::new());
        };
        let children = node.children.iter();
        Ok(children
            .map(|(name, child)| child.item(&join(path, name)))
            .collect())
    }

    fn walk(&self, path: &[u8], out: &mut Vec<Item>) -> Result<(), Error> {
        fn go(node: &Node, path: &[u8], out: &mut Vec<Item>) {
            for (name, child) in &node.children {
                let path = join(path, name);
                out.push(child.item(&path));
                go(child, &path, out);
            }
        }
        if let Some(node) = self.tree.node(path) {
            go(node, path, out);
        }
        Ok(())
    }

    fn open(&self, item: &Item) -> Result<Opened, Error> {
        let missing = || Error::new(dhow_types::ErrorKind::Internal, "a copied file left its tree");
        let node = self.tree.node(&item.path).ok_or_else(missing)?;
        let root = self.layers.tree(&node.layer).context(|| "open a layer's tree")?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&item.path));
        let file: File = root.open_file(path).context(|| "open a file of a layer")?;
        let xattrs = node.entry.as_ref().map(|entry| entry.xattrs.clone());
        Ok((file, xattrs.unwrap_or_default()))
    }

    fn directory_xattrs(&self, item: &Item) -> Result<Xattrs, Error> {
        let entry = self.tree.entry(&item.path);
        Ok(entry.map(|entry| entry.xattrs.clone()).unwrap_or_default())
    }

    fn hash(&self, _: &mut [Item]) -> Result<(), Error> {
        Ok(())
    }

    fn missing_hint(&self, _: &[u8]) -> Option<String> {
        None
    }
}

impl Tree {
    /// Where `path` leads when the links of what is there are followed; what is missing is taken as written.
    pub(crate) fn follow(&self, path: &[u8]) -> Vec<u8> {
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.split(|byte| *byte == b'/');
            parts
                .filter(|part| !part.is_empty() && *part != b".")
                .rev()
                .map(<[u8]>::to_vec)
                .collect()
        };
        let mut here: Vec<Vec<u8>> = Vec::new();
        let mut todo = split(path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                here.pop();
                continue;
            }
            here.push(name);
            let entry = self.entry(&here.join(&b'/'));
            if let Some(entry) = entry.filter(|entry| entry.kind == EntryKind::Symlink) {
                links += 1;
                if links > 40 {
                    break;
                }
                here.pop();
                if entry.link.starts_with(b"/") {
                    here.clear();
                }
                todo.extend(split(&entry.link));
            }
        }
        here.join(&b'/')
    }
}
