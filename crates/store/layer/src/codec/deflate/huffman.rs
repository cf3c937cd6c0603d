//! Codes of bounded length for symbols of known counts.

/// A prefix code for `N` symbols, its bits in the order in which deflate writes them.
pub(super) struct Code<const N: usize> {
    lengths: [u8; N],
    codes: [u16; N],
}

/// Longest code that deflate has.
const LONGEST: usize = 15;

/// Bits of a symbol; the others of a word are for its count, which is below 2^23 in any block.
const SYMBOL: u32 = 9;

impl<const N: usize> Code<N> {
    /// A code no longer than `limit` for the symbols that occur. At least two symbols get one: some readers refuse a code
    /// of one symbol, which would be of one bit and incomplete.
    pub(super) fn of(counts: &[u32; N], limit: usize) -> Self {
        // Count and symbol in one number, by which they are sorted.
        let key = |symbol: usize, count: u32| count << SYMBOL | u32::try_from(symbol).unwrap_or(0);
        let mut used: Vec<u32> = Vec::with_capacity(N);
        used.extend(
            counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(|(symbol, count)| key(symbol, *count)),
        );
        let mut spare = 0..2;
        while used.len() < 2
            && let Some(symbol) = spare.next()
        {
            if counts[symbol] == 0 {
                used.push(key(symbol, 1));
            }
        }
        used.sort_unstable();
        let per_length = bounded(&depths(&used), limit.min(LONGEST));
        let mut lengths = [0_u8; N];
        let mut symbols = used.iter().map(|key| (key & ((1 << SYMBOL) - 1)) as usize);
        // The rarest get the longest.
        for length in (1..=LONGEST).rev() {
            for symbol in symbols.by_ref().take(per_length[length] as usize) {
                lengths[symbol] = u8::try_from(length).unwrap_or(0);
            }
        }
        Self {
            codes: canonical(&lengths, &per_length),
            lengths,
        }
    }

    pub(super) fn lengths(&self) -> &[u8; N] {
        &self.lengths
    }

    /// Bits of a symbol's code, and how many they are.
    #[inline(always)]
    pub(super) fn of_symbol(&self, symbol: usize) -> (u16, u32) {
        (self.codes[symbol], u32::from(self.lengths[symbol]))
    }

    /// Bits that all the symbols take together.
    pub(super) fn bits(&self, counts: &[u32; N]) -> u64 {
        counts
            .iter()
            .zip(&self.lengths)
            .map(|(count, length)| u64::from(*count) * u64::from(*length))
            .sum()
    }
}

/// Lengths of an optimal code for symbols sorted by count, the rarest first (Moffat and Katajainen, "In-place calculation
/// of minimum-redundancy codes", 1995): the parent of each node takes the place of its weight, then its depth does.
fn depths(sorted: &[u32]) -> Vec<u32> {
    let mut tree: Vec<u32> = sorted.iter().map(|key| key >> SYMBOL).collect();
    let many = tree.len();
    let index = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let (mut leaf, mut node) = (0, 0);
    for next in 0..many - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf >= many || (node < next && tree[node] < tree[leaf]) {
                weight += tree[node];
                tree[node] = index(next);
                node += 1;
            } else {
                weight += tree[leaf];
                leaf += 1;
            }
        }
        tree[next] = weight;
    }
    let root = many - 2;
    tree[root] = 0;
    for at in (0..root).rev() {
        tree[at] = tree[tree[at] as usize] + 1;
    }
    // From depths of the inner nodes to depths of the leaves, from the root down.
    let (mut here, mut taken, mut depth) = (1, 0, 0);
    let mut inner = Some(root);
    let mut place = many;
    while here > 0 {
        while let Some(at) = inner
            && tree[at] == depth
        {
            taken += 1;
            inner = at.checked_sub(1);
        }
        while here > taken {
            place -= 1;
            tree[place] = depth;
            here -= 1;
        }
        here = 2 * taken;
        depth += 1;
        taken = 0;
    }
    tree
}

/// How many codes of each length there are when none may be longer than `limit`. Those that are too long are cut, and
/// shorter ones made longer until the code is one again.
fn bounded(depths: &[u32], limit: usize) -> [u32; LONGEST + 1] {
    let mut per_length = [0_u32; LONGEST + 1];
    for depth in depths {
        per_length[(*depth as usize).min(limit)] += 1;
    }
    // In units of the longest code: all codes together must fill the space.
    let mut space: u32 = (1..=limit)
        .map(|length| per_length[length] << (limit - length))
        .sum();
    while space > 1 << limit {
        per_length[limit] -= 1;
        if let Some(shorter) = (1..limit).rev().find(|length| per_length[*length] > 0) {
            per_length[shorter] -= 1;
            per_length[shorter + 1] += 2;
        }
        space -= 1;
    }
    per_length
}

/// The codes that follow from the lengths (RFC 1951, 3.2.2), the first bit lowest.
fn canonical<const N: usize>(lengths: &[u8; N], per_length: &[u32; LONGEST + 1]) -> [u16; N] {
    let mut next = [0_u16; LONGEST + 1];
    for length in 1..LONGEST {
        let many = u16::try_from(per_length[length]).unwrap_or(0);
        next[length + 1] = (next[length] + many) << 1;
    }
    let mut codes = [0; N];
    for (code, length) in codes.iter_mut().zip(lengths).filter(|(_, length)| **length > 0) {
        let place = &mut next[usize::from(*length)];
        *code = place.reverse_bits() >> (16 - u32::from(*length));
        *place += 1;
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each code of `lengths` takes its share of the space, and nothing is left.
    fn is_complete(lengths: &[u8]) -> bool {
        lengths
            .iter()
            .filter(|length| **length > 0)
            .map(|length| 1_u32 << (15 - length))
            .sum::<u32>()
            == 1 << 15
    }

    #[test]
    fn codes_are_complete_and_bounded_whatever_the_counts() {
        let mut fibonacci = [0_u32; 30];
        (fibonacci[0], fibonacci[1]) = (1, 1);
        (2..30).for_each(|at| fibonacci[at] = fibonacci[at - 1] + fibonacci[at - 2]);
        let mut one = [0_u32; 30];
        one[7] = 5;
        let mut first = [0_u32; 30];
        first[0] = 5;
        for counts in [
            fibonacci,
            one,
            first,
            [0; 30],
            [1; 30],
            std::array::from_fn(|at| u32::from(at % 3 == 0) << at),
        ] {
            for limit in [7, 15] {
                let code = Code::of(&counts, limit);
                assert!(is_complete(code.lengths()), "{counts:?} {limit}");
                assert!(code.lengths().iter().all(|length| usize::from(*length) <= limit));
                assert!(
                    counts
                        .iter()
                        .zip(code.lengths())
                        .all(|(count, length)| *count == 0 || *length > 0)
                );
            }
        }
    }

    #[test]
    fn a_code_without_need_of_a_bound_is_optimal() {
        // Sum of all inner nodes of the tree: 3 + 5 + 8 + 15 + 28.
        let counts = [1, 2, 2, 3, 7, 13];
        assert_eq!(Code::of(&counts, 15).bits(&counts), 59);
    }
}
