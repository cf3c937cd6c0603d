//! Device rules in v1's `devices.allow` and `devices.deny`, with as few writes as can be, and without a moment in which
//! a running container loses a device that it keeps.
//!
//! The kernel holds a default and a list of exceptions (kernel `cgroup-v1/devices.rst`). The rules of the spec are
//! folded into such a list first; what is in force is read from `devices.list`; the difference is written.

use std::collections::BTreeMap;
use std::io;

use dhow_types::ErrorKind;

use crate::create::{only_allows_everything, rootless};
use crate::dir::{self, Dir};
use crate::setting::{Access, DeviceKind};
use crate::{Context as _, Error};

const READ: u8 = 1;
const WRITE: u8 = 2;
const MKNOD: u8 = 4;

/// A device: block or not, major and minor number.
type Device = (bool, Option<u32>, Option<u32>);

/// A default, and the accesses that are otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct List {
    allow: bool,
    exceptions: BTreeMap<Device, u8>,
    /// The exceptions as the rules name them: entries are applied in the listed order (runtime-spec, "Allowed Device list").
    order: Vec<Device>,
}

impl List {
    fn new(rules: &[Access]) -> Result<Self, Error> {
        let mut list = Self::default();
        for rule in rules {
            list.add(rule)?;
        }
        Ok(list)
    }

    fn add(&mut self, rule: &Access) -> Result<(), Error> {
        if rule.is_everything() {
            self.allow = rule.allow;
            self.exceptions.clear();
            self.order.clear();
            return Ok(());
        }
        // A line of type `a` means everything whatever else it says, so "all devices, some access" is two lines.
        let kinds: &[bool] = match rule.kind {
            None => &[true, false],
            Some(DeviceKind::Block) => &[true],
            Some(DeviceKind::Char) => &[false],
        };
        let access = u8::from(rule.read) * READ + u8::from(rule.write) * WRITE + u8::from(rule.mknod) * MKNOD;
        for block in kinds {
            let device = (*block, rule.major, rule.minor);
            if rule.allow != self.allow {
                self.except(device, access);
            } else {
                self.take(device, access, rule)?;
            }
        }
        Ok(())
    }

    fn except(&mut self, device: Device, access: u8) {
        let bits = self.exceptions.entry(device).or_insert_with(|| {
            self.order.push(device);
            0
        });
        *bits |= access;
    }

    /// Takes accesses out of an exception. The kernel can do so for the same device only, not for a part of a range.
    fn take(&mut self, device: Device, access: u8, rule: &Access) -> Result<(), Error> {
        let within =
            |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || narrow.is_none() || wide == narrow;
        let partly = self.exceptions.iter().any(|(other, bits)| {
            *other != device
                && other.0 == device.0
                && within(other.1, device.1)
                && within(other.2, device.2)
                && bits & access != 0
        });
        if partly {
            let message = format!(
                "device rule {}: cgroup v1 cannot take a part out of an earlier rule",
                line(device, access)
            );
            return Err(Error::new(ErrorKind::Unsupported, message).with_hint(format!(
                "{} the devices one by one",
                if rule.allow { "deny" } else { "allow" }
            )));
        }
        if let Some(bits) = self.exceptions.get_mut(&device) {
            *bits &= !access;
            if *bits == 0 {
                self.exceptions.remove(&device);
                self.order.retain(|other| *other != device);
            }
        }
        Ok(())
    }

    /// What `devices.list` says. The kernel shows the exceptions of a list that denies; of one that allows it shows
    /// none, so that those cannot be known.
    fn parse(text: &str) -> Option<Self> {
        let mut list = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
            if kind == "a" {
                list.allow = true;
                continue;
            }
            let (major, minor) = numbers.split_once(':')?;
            let number = |text: &str| match text {
                "*" => Some(None),
                text => text.parse().ok().map(Some),
            };
            let bits = access.bytes().try_fold(0, |bits, letter| match letter {
                b'r' => Some(bits | READ),
                b'w' => Some(bits | WRITE),
                b'm' => Some(bits | MKNOD),
                _ => None,
            })?;
            let block = match kind {
                "b" => true,
                "c" => false,
                _ => return None,
            };
            list.except((block, number(major)?, number(minor)?), bits);
        }
        Some(list)
    }

    fn in_order(&self) -> impl Iterator<Item = (Device, u8)> {
        let bits = |device: &Device| self.exceptions.get(device).map(|bits| (*device, *bits));
        self.order.iter().filter_map(bits)
    }

    /// Lines for `devices.allow` (true) and `devices.deny` (false) that lead from `self` to `target`.
    fn steps(&self, target: &Self) -> Vec<(bool, String)> {
        let mut out = Vec::new();
        let mut from = self;
        let start = Self {
            allow: target.allow,
            ..Self::default()
        };
        if self.allow != target.allow || target.allow {
            // The default changes, or there may be exceptions that cannot be seen.
            if *self != start || !target.exceptions.is_empty() || !self.exceptions.is_empty() {
                out.push((target.allow, "a".to_owned()));
            }
            from = &start;
        }
        // What comes first, so that nothing that stays is missing meanwhile.
        for (device, bits) in target.in_order() {
            let new = bits & !from.exceptions.get(&device).copied().unwrap_or(0);
            if new != 0 {
                out.push((!target.allow, line(device, new)));
            }
        }
        for (device, bits) in from.in_order() {
            let gone = bits & !target.exceptions.get(&device).copied().unwrap_or(0);
            if gone != 0 {
                out.push((target.allow, line(device, gone)));
            }
        }
        out
    }
}

fn line((block, major, minor): Device, access: u8) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let mut out = format!(
        "{} {}:{} ",
        if block { 'b' } else { 'c' },
        number(major),
        number(minor)
    );
    for (letter, bit) in [('r', READ), ('w', WRITE), ('m', MKNOD)] {
        if access & bit != 0 {
            out.push(letter);
        }
    }
    out
}

/// Brings the rules into force. A directory that was just made has what its parent has, usually everything.
pub(crate) fn apply(dir: &Dir, rules: &[Access]) -> Result<(), Error> {
    if dir.fresh && only_allows_everything(rules) {
        return Ok(());
    }
    let target = List::new(rules)?;
    let steps = if dir.fresh {
        // Its list need not be read: the first line makes a list of a known state, whatever it was.
        let mut steps = vec![(target.allow, "a".to_owned())];
        let known = List {
            allow: target.allow,
            ..List::default()
        };
        steps.extend(known.steps(&target).into_iter().filter(|(_, line)| line != "a"));
        steps
    } else {
        let text = dir
            .read("devices.list")
            .context(|| format!("read {}", dir.at.join("devices.list").display()))?;
        let unknown = List {
            allow: !target.allow,
            ..List::default()
        };
        List::parse(&text).unwrap_or(unknown).steps(&target)
    };
    write(dir, &steps)
}

fn write(dir: &Dir, steps: &[(bool, String)]) -> Result<(), Error> {
    if steps.is_empty() {
        return Ok(());
    }
    let files = [dir.open_write("devices.deny"), dir.open_write("devices.allow")];
    for (allow, line) in steps {
        let file = if *allow { "devices.allow" } else { "devices.deny" };
        let outcome = match &files[usize::from(*allow)] {
            Ok(fd) => dir::write_fd(fd, line),
            Err(error) => Err(error.kind().into()),
        };
        match outcome {
            // A user may not change the list, and need not: mknod is refused to their containers.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && rootless() => {
                return Ok(());
            }
            outcome => outcome
                .context(|| format!("write {line:?} to {}", dir.at.join(file).display()))
                .map_err(|error| error.with_hint("the parent group may not have the device itself"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dhow_oci::runtime::{DeviceRule, Resources};
    use proptest::prelude::*;

    use super::*;
    use crate::setting::device_rules;

    fn rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: Some(kind.to_owned()),
            major,
            minor,
            access: Some(access.to_owned()),
        }
    }

    fn list(rules: Vec<DeviceRule>) -> Result<List, Error> {
        let resources = Resources {
            devices: rules,
            ..Resources::default()
        };
        List::new(&device_rules(&resources)?)
    }

    fn shown(steps: &[(bool, String)]) -> Vec<(bool, &str)> {
        steps
            .iter()
            .map(|(allow, line)| (*allow, line.as_str()))
            .collect()
    }

    #[test]
    fn rules_become_lines_and_half_a_wildcard_becomes_two() {
        let target = list(vec![
            rule(false, "a", None, None, "rwm"),
            rule(true, "c", Some(1), Some(3), "rwm"),
            rule(true, "b", Some(8), None, "r"),
            rule(true, "a", None, None, "m"),
        ])
        .unwrap();
        let everything = List::parse("a *:* rwm\n").unwrap();
        let steps = everything.steps(&target);
        let expected = [
            (false, "a"),
            (true, "c 1:3 rwm"),
            (true, "b 8:* r"),
            (true, "b *:* m"),
            (true, "c *:* m"),
        ];
        assert_eq!(shown(&steps), expected);
        for bad in [
            rule(true, "x", None, None, "r"),
            rule(true, "c", Some(-2), None, "r"),
            rule(true, "c", None, None, "z"),
        ] {
            assert!(list(vec![bad]).is_err());
        }
    }

    #[test]
    fn an_update_writes_the_difference_and_allows_before_it_denies() {
        let now = List::parse("c 1:3 rwm\nc 1:5 rwm\nc *:* m\n").unwrap();
        let target = list(vec![
            rule(false, "a", None, None, "rwm"),
            rule(true, "c", None, None, "m"),
            rule(true, "c", Some(1), Some(3), "rw"),
            rule(true, "c", Some(5), Some(0), "rwm"),
        ])
        .unwrap();
        let expected = [(true, "c 5:0 rwm"), (false, "c 1:3 m"), (false, "c 1:5 rwm")];
        assert_eq!(shown(&now.steps(&target)), expected);
        assert!(target.steps(&target).is_empty());
    }

    #[test]
    fn a_part_of_a_range_cannot_be_taken_out() {
        let error = list(vec![
            rule(true, "c", Some(1), None, "rw"),
            rule(false, "c", Some(1), Some(3), "r"),
        ]);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
        let same = list(vec![
            rule(true, "c", Some(1), Some(3), "rw"),
            rule(false, "c", Some(1), Some(3), "r"),
        ]);
        assert_eq!(same.unwrap().exceptions[&(false, Some(1), Some(3))], WRITE);
        let all = list(vec![rule(true, "a", None, None, "rwm")]).unwrap();
        assert_eq!(
            all,
            List {
                allow: true,
                ..List::default()
            }
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_none(text in ".{0,80}") {
            drop(List::parse(&text));
        }

        #[test]
        fn a_list_that_is_written_reads_back(devices in prop::collection::btree_map(
            (any::<bool>(), prop::option::of(0_u32..300), prop::option::of(0_u32..300)), 1_u8..8, 0..8,
        )) {
            let list = List { allow: false, order: devices.keys().copied().collect(), exceptions: devices };
            let text: String = list.steps_text();
            prop_assert_eq!(List::parse(&text).unwrap(), list);
        }
    }

    impl List {
        fn steps_text(&self) -> String {
            self.exceptions
                .iter()
                .map(|(device, bits)| line(*device, *bits) + "\n")
                .collect()
        }
    }
}
