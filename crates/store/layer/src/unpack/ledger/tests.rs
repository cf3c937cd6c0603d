use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What the ledger promises, in the plainest words.
#[derive(Default)]
struct Model {
    items: BTreeMap<String, Item>,
    next: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    since: u32,
    kind: EntryKind,
    body: Option<u64>,
    link: String,
    opaque: bool,
}

impl Model {
    fn push(&mut self, path: &str, kind: EntryKind, body: Option<u64>, link: &str) {
        self.next += 1;
        let old = self.items.get(path);
        let item = Item {
            since: old.map_or(self.next, |old| old.since),
            kind,
            body,
            link: link.to_owned(),
            opaque: old.is_some_and(|old| old.opaque),
        };
        self.items.insert(path.to_owned(), item);
    }

    fn forget(&mut self, path: &str) {
        let below = format!("{path}/");
        let mut doomed: Vec<(String, Item)> = Vec::new();
        self.items.retain(|name, item| {
            let goes = name == path || name.starts_with(&below);
            if goes {
                doomed.push((name.clone(), item.clone()));
            }
            !goes
        });
        for (name, item) in doomed {
            let mut heirs: Vec<&mut Item> = self
                .items
                .values_mut()
                .filter(|other| other.kind == EntryKind::Hardlink && other.link == name)
                .collect();
            heirs.sort_by_key(|heir| heir.since);
            let mut heirs = heirs.into_iter();
            let Some(first) = heirs.next() else { continue };
            let since = first.since;
            (first.kind, first.body, first.link) = (item.kind, item.body, item.link);
            let rest: Vec<u32> = heirs.map(|heir| heir.since).collect();
            let found = self.items.iter().find(|(_, heir)| heir.since == since);
            let name = found.map(|(name, _)| name.clone()).unwrap();
            for other in self
                .items
                .values_mut()
                .filter(|other| rest.contains(&other.since))
            {
                other.link.clone_from(&name);
            }
        }
    }
}

fn kind(of: &Model, path: &str) -> Option<EntryKind> {
    let item = of.items.get(path)?;
    match item.kind {
        EntryKind::Hardlink => of.items.get(&item.link).map(|item| item.kind),
        kind => Some(kind),
    }
}

/// Makes room for an entry, and makes it.
fn make(
    model: &mut Model,
    ledger: &mut Ledger,
    path: &str,
    (kind, body, link): (EntryKind, Option<u64>, &str),
) {
    if kind != EntryKind::Directory || model.items.get(path).is_some_and(|item| item.kind != kind) {
        model.forget(path);
        ledger.forget(path.as_bytes()).unwrap();
    }
    if kind == EntryKind::Hardlink && !model.items.contains_key(link) {
        return;
    }
    model.push(path, kind, body, link);
    let mut entry = Entry::new(path, kind, 0o755);
    entry.link = link.into();
    ledger.push(&entry, body).unwrap();
}

/// Does to both what unpacking does.
fn step(model: &mut Model, ledger: &mut Ledger, (what, place, other): (u8, usize, usize), body: u64) {
    const DIRS: [&str; 4] = ["", "a/", "a/b/", "a-b/"];
    const NAMES: [&str; 4] = ["a", "b", "a-b", "f"];
    let dir = DIRS[place % 4];
    let path = format!("{dir}{}", NAMES[place / 4 % 4]);
    let above = dir.trim_end_matches('/');
    if !above.is_empty() && kind(model, above) != Some(EntryKind::Directory) {
        return;
    }
    match what % 8 {
        0..=2 => make(model, ledger, &path, (EntryKind::File, Some(body), "")),
        3 => make(model, ledger, &path, (EntryKind::Directory, None, "")),
        4 => make(model, ledger, &path, (EntryKind::Fifo, None, "")),
        5 => {
            model.forget(&path);
            ledger.forget(path.as_bytes()).unwrap();
        }
        6 => {
            if let Some(item) = model
                .items
                .get_mut(&path)
                .filter(|item| item.kind == EntryKind::Directory)
            {
                item.opaque = true;
                ledger.mark_opaque(path.into()).unwrap();
            }
        }
        _ => {
            let target = format!("{}{}", DIRS[other % 4], NAMES[other / 4 % 4]);
            let Some(item) = model.items.get(&target) else {
                return;
            };
            let target = match item.kind {
                EntryKind::Hardlink => item.link.clone(),
                EntryKind::Directory => return,
                _ => target,
            };
            let original = ledger.original(target.as_bytes()).unwrap().unwrap();
            assert_eq!(original.path, target.as_bytes());
            if path != target {
                make(model, ledger, &path, (EntryKind::Hardlink, None, &target));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_replaced_forgotten_and_linked_is_as_the_model_says(
        steps in proptest::collection::vec((0..8_u8, 0..16_usize, 0..16_usize), 0..80),
        kept in prop_oneof![Just(60_usize), Just(KEPT)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut model, mut ledger) = (Model::default(), Ledger::keeping(dir.path(), kept));
        for (body, one) in steps.into_iter().enumerate() {
            step(&mut model, &mut ledger, one, body as u64);
            for path in ["a", "a/b", "a-b/f"] {
                let found = ledger.find(path.as_bytes()).unwrap().map(|entry| entry.kind);
                prop_assert_eq!(found, model.items.get(path).map(|item| item.kind));
            }
        }
        let mut found = Vec::new();
        let mut sorted = ledger.sort(dir.path(), |entry, body| {
            let path = String::from_utf8(entry.path.clone()).unwrap();
            found.push((path, entry.kind, body, entry.opaque));
            Ok(())
        }).unwrap();
        let wanted: Vec<_> = model.items.iter().map(|(path, item)| (path.clone(), item.kind, item.body, item.opaque)).collect();
        prop_assert_eq!(&found, &wanted);
        // The same from the disk; and links by number are those by name.
        let written = crate::Index::decode(std::fs::read(dir.path().join("index")).unwrap()).unwrap();
        prop_assert_eq!(written.len(), wanted.len());
        let mut links = (0..sorted.links.len()).map(|at| sorted.links.get(at).unwrap());
        for (at, item) in model.items.values().enumerate() {
            let entry = sorted.index.entry(at).unwrap();
            prop_assert_eq!(written.at(at), Some(entry.clone()));
            prop_assert_eq!(&entry.link, item.link.as_bytes());
            if item.kind == EntryKind::Hardlink {
                let both = links.next().unwrap();
                prop_assert_eq!((both >> 32) as usize, at);
                let target = sorted.index.entry((both & 0xffff_ffff) as usize).unwrap();
                prop_assert_eq!(&target.path, &entry.link);
            }
        }
        prop_assert_eq!(links.next(), None);
    }
}

#[test]
fn a_large_layer_takes_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    // Bytes with so many entries: 48 of each at first, and no more in the end.
    for (kept, count, most) in [(KEPT, 200_000, 9_600_000), (KEPT / 8, 400_000, 2_000_000)] {
        take_little_memory(Ledger::keeping(dir.path(), kept), count, most);
    }
}

fn take_little_memory(mut ledger: Ledger, count: u64, most: usize) {
    for number in 0..count {
        if number % 1000 == 0 {
            let path = format!("usr/share/{:03}", number / 1000);
            for path in ["usr", "usr/share", path.as_str()] {
                ledger
                    .push(&Entry::new(path, EntryKind::Directory, 0o755), None)
                    .unwrap();
            }
        }
        let path = format!("usr/share/{:03}/a-file-of-a-layer-{number}", number / 1000);
        ledger
            .push(&Entry::new(path, EntryKind::File, 0o644), Some(number))
            .unwrap();
    }
    let slots = ledger.records.size() + ledger.parents.size() + ledger.flags.size();
    let bytes = slots + ledger.names.size() + ledger.spool.size();
    assert!(bytes <= most, "{bytes} bytes for {count} entries");
}
