//! What a filter does for one call: a verdict, or instructions that look at the arguments.

use super::{Checked, NO_RULE, OFFSET_ARGUMENTS, Ranges};
use crate::emit::{Emitter, Target, Test};
use crate::rules::{Condition, Operator, Rule};

/// Blocks of instructions that were written, with the rules that they stand for, so that calls with the same rules
/// share one.
#[derive(Default)]
pub(super) struct Blocks(Vec<(Key, Target)>);

/// Rules with conditions, and whether arguments have 32 bits.
#[derive(PartialEq, Eq)]
struct Key {
    conditional: Vec<usize>,
    narrow: bool,
}

impl Blocks {
    /// What happens to the call of this group.
    pub(super) fn target(
        &mut self,
        emitter: &mut Emitter,
        checked: &Checked,
        group: &[(u32, usize)],
        narrow: bool,
    ) -> Target {
        let rule = |index: usize| &checked.rules[index];
        let holds_always = |index: &&usize| rule(**index).conditions.iter().all(|one| one.always(narrow));
        let rules = || {
            group
                .iter()
                .map(|(_, index)| index)
                .filter(|index| **index != NO_RULE)
        };
        if let Some(plain) = rules().find(holds_always) {
            return Target::Return(rule(*plain).verdict);
        }
        let conditional: Vec<usize> = rules().copied().collect();
        if conditional.is_empty() {
            return Target::Return(checked.default);
        }
        let key = Key { conditional, narrow };
        if let Some((_, target)) = self.0.iter().find(|(other, _)| *other == key) {
            return *target;
        }
        let rules: Vec<Rule> = key
            .conditional
            .iter()
            .map(|index| {
                let mut rule = rule(*index).clone();
                if narrow {
                    rule.conditions
                        .iter_mut()
                        .for_each(|condition| *condition = condition.narrow());
                }
                rule
            })
            .collect();
        let target = write_block(emitter, &rules, checked.default, narrow);
        self.0.push((key, target));
        target
    }
}

fn write_block(emitter: &mut Emitter, rules: &[Rule], otherwise: u32, narrow: bool) -> Target {
    if let Some(index) = one_small_argument(rules) {
        return write_value_search(emitter, rules, index, otherwise, narrow);
    }
    let mut next = Target::Return(otherwise);
    for rule in rules.iter().rev() {
        let mut target = Target::Return(rule.verdict);
        for condition in rule.conditions.iter().rev() {
            target = write_condition(emitter, condition, target, next, narrow);
        }
        next = target;
    }
    next
}

/// The argument that all rules are about, when each compares just it with a number of 32 bits.
fn one_small_argument(rules: &[Rule]) -> Option<u32> {
    let index = rules.first()?.conditions.first()?.index;
    let fits = |rule: &Rule| match rule.conditions.as_slice() {
        [one] => {
            one.index == index && one.operator != Operator::MaskedEqual && u32::try_from(one.value).is_ok()
        }
        _ => false,
    };
    // More would not fit in a program either way; finding that out must not take quadratic time.
    ((2..=512).contains(&rules.len()) && rules.iter().all(fits)).then_some(index)
}

/// Many comparisons of one argument (docker's list of socket domains) become a binary search over its values.
fn write_value_search(
    emitter: &mut Emitter,
    rules: &[Rule],
    index: u32,
    otherwise: u32,
    narrow: bool,
) -> Target {
    let verdict = |value: u64| {
        let rule = rules
            .iter()
            .find(|rule| rule.conditions.iter().all(|condition| condition.holds(value)));
        Target::Return(rule.map_or(otherwise, |rule| rule.verdict))
    };
    let mut edges: Vec<u32> = vec![0];
    for value in rules
        .iter()
        .filter_map(|rule| u32::try_from(rule.conditions[0].value).ok())
    {
        edges.push(value);
        edges.extend(value.checked_add(1));
    }
    edges.sort_unstable();
    edges.dedup();
    let mut ranges = Ranges::default();
    for edge in edges {
        ranges.start(edge, verdict(edge.into()));
    }
    let tree = emitter.search(&ranges.list);
    let low = Target::At(emitter.load(argument(index, false), tree));
    if narrow {
        return low;
    }
    // Every value over 32 bits compares alike with numbers of 32 bits.
    let high = emitter.branch(Test::Equal, 0, low, verdict(u64::MAX));
    Target::At(emitter.load(argument(index, true), Target::At(high)))
}

/// Offset of a half of an argument; both architectures are little-endian.
const fn argument(index: u32, high: bool) -> u32 {
    OFFSET_ARGUMENTS + 8 * index + if high { 4 } else { 0 }
}

/// One condition on a 64-bit argument as tests of its halves.
fn write_condition(
    emitter: &mut Emitter,
    condition: &Condition,
    yes: Target,
    no: Target,
    narrow: bool,
) -> Target {
    let (low, high) = halves(condition.value);
    let (mask_low, mask_high) = halves(condition.mask);
    let (test, yes, no) = match condition.operator {
        Operator::Equal | Operator::MaskedEqual => (Test::Equal, yes, no),
        Operator::NotEqual => (Test::Equal, no, yes),
        Operator::Greater => (Test::Greater, yes, no),
        Operator::GreaterOrEqual => (Test::GreaterOrEqual, yes, no),
        Operator::Less => (Test::GreaterOrEqual, no, yes),
        Operator::LessOrEqual => (Test::Greater, no, yes),
    };
    let masked = condition.operator == Operator::MaskedEqual;
    let mut first = emitter.branch(test, low, yes, no);
    if masked && mask_low != u32::MAX {
        first = emitter.and(mask_low, Target::At(first));
    }
    first = emitter.load(argument(condition.index, false), Target::At(first));
    if narrow || (masked && mask_high == 0) {
        return Target::At(first);
    }
    // Where the upper halves differ, the larger one decides.
    let differ = match test {
        Test::Equal => no,
        Test::Greater | Test::GreaterOrEqual => Target::At(emitter.branch(Test::Greater, high, yes, no)),
    };
    let mut upper = emitter.branch(Test::Equal, high, Target::At(first), differ);
    if masked && mask_high != u32::MAX {
        upper = emitter.and(mask_high, Target::At(upper));
    }
    Target::At(emitter.load(argument(condition.index, true), Target::At(upper)))
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
