//! Hashes of Berkeley DB 4 and 5, read from first to last (its `dbinc/db_page.h`). Nothing is looked up, so the function by which it
//! spreads its keys does not matter.

/// Bytes of every page's head.
const HEAD: usize = 26;
const META_MAGIC: u32 = 0x0006_1561;

/// Types of pages.
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH_META: u8 = 8;
const HASH: u8 = 13;

/// Types of what stands on a page of a hash.
const HERE: u8 = 1;
const ELSEWHERE: u8 = 3;

/// Largest value: rpm's own limit of a header.
const MOST_VALUE: usize = 256 << 20;

struct Pages<'a> {
    bytes: &'a [u8],
    size: usize,
    big: bool,
}

fn long(bytes: &[u8], at: usize, big: bool) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if big {
        u32::from_be_bytes(field)
    } else {
        u32::from_le_bytes(field)
    })
}

fn short(bytes: &[u8], at: usize, big: bool) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    let number = if big {
        u16::from_be_bytes(field)
    } else {
        u16::from_le_bytes(field)
    };
    Some(usize::from(number))
}

impl<'a> Pages<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let big = match (long(bytes, 12, false), long(bytes, 12, true)) {
            (Some(META_MAGIC), _) => false,
            (_, Some(META_MAGIC)) => true,
            _ => return Err("it is no hash of Berkeley DB".to_owned()),
        };
        let size = long(bytes, 20, big).map_or(0, |size| size as usize);
        if bytes.get(25) != Some(&HASH_META) || !(512..=65_536).contains(&size) || !size.is_power_of_two() {
            return Err("its first page is damaged".to_owned());
        }
        if bytes.get(24) != Some(&0) {
            return Err("it is encrypted".to_owned());
        }
        Ok(Self { bytes, size, big })
    }

    fn count(&self) -> usize {
        self.bytes.len() / self.size
    }

    fn page(&self, number: usize) -> Option<&'a [u8]> {
        let at = number.checked_mul(self.size)?;
        self.bytes.get(at..at.checked_add(self.size)?)
    }

    /// What an item is: its bytes on this page, or those of the pages that it points to.
    fn item(
        &self,
        page: &'a [u8],
        index: usize,
        budget: &mut usize,
    ) -> Result<std::borrow::Cow<'a, [u8]>, String> {
        let damaged = || "a page of it is damaged".to_owned();
        let place = |index: usize| short(page, HEAD + 2 * index, self.big).ok_or_else(damaged);
        let at = place(index)?;
        // Items grow from the end of the page.
        let end = if index == 0 { self.size } else { place(index - 1)? };
        let item = page
            .get(at..end)
            .filter(|item| !item.is_empty())
            .ok_or_else(damaged)?;
        match item[0] {
            HERE => Ok((&item[1..]).into()),
            ELSEWHERE => {
                let first = long(item, 4, self.big).ok_or_else(damaged)?;
                let length = long(item, 8, self.big).ok_or_else(damaged)? as usize;
                // Many items that all point to the same pages are more than the file has.
                if length > MOST_VALUE || length > *budget {
                    return Err("its values are larger than it is".to_owned());
                }
                *budget -= length;
                Ok(self.chain(first as usize, length)?.into())
            }
            _ => Err("it has values of a kind that rpm does not write".to_owned()),
        }
    }

    /// The pages of a value too large for one.
    fn chain(&self, first: usize, length: usize) -> Result<Vec<u8>, String> {
        let damaged = || "a chain of its pages is damaged".to_owned();
        let mut value = Vec::with_capacity(length.min(self.bytes.len()));
        let mut next = first;
        while value.len() < length {
            let page = self
                .page(next)
                .filter(|page| next != 0 && page[25] == OVERFLOW)
                .ok_or_else(damaged)?;
            let used = short(page, 22, self.big)
                .filter(|used| *used > 0)
                .ok_or_else(damaged)?;
            value.extend(page.get(HEAD..HEAD + used).ok_or_else(damaged)?);
            next = long(page, 16, self.big).ok_or_else(damaged)? as usize;
        }
        value.truncate(length);
        Ok(value)
    }
}

/// What is shown a key and its value.
pub(super) type See<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>;

/// Shows every pair of a hash.
pub(super) fn pairs(bytes: &[u8], see: See<'_>) -> Result<(), String> {
    let pages = Pages::open(bytes)?;
    let mut budget = bytes.len();
    for number in 1..pages.count() {
        let Some(page) = pages.page(number) else { break };
        if ![HASH, HASH_UNSORTED].contains(&page[25]) {
            continue;
        }
        let items = short(page, 20, pages.big)
            .unwrap_or(0)
            .min((pages.size - HEAD) / 2);
        for index in (0..items.saturating_sub(1)).step_by(2) {
            let key = pages.item(page, index, &mut budget)?;
            let value = pages.item(page, index + 1, &mut budget)?;
            see(&key, &value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{ELSEWHERE, HASH, HASH_META, HEAD, HERE, META_MAGIC, OVERFLOW, pairs};

    const SIZE: usize = 512;

    /// A hash of one page of items; values of more than a few bytes have pages of their own.
    pub(in crate::kind) fn hash_of(all: &[(Vec<u8>, Vec<u8>)], big: bool) -> Vec<u8> {
        let long = |number: usize| {
            let number = u32::try_from(number).unwrap();
            if big {
                number.to_be_bytes()
            } else {
                number.to_le_bytes()
            }
        };
        let short = |number: usize| {
            let number = u16::try_from(number).unwrap();
            if big {
                number.to_be_bytes()
            } else {
                number.to_le_bytes()
            }
        };
        let mut meta = vec![0; SIZE];
        meta[12..16].copy_from_slice(&long(META_MAGIC as usize));
        meta[20..24].copy_from_slice(&long(SIZE));
        meta[25] = HASH_META;
        let mut page = vec![0; SIZE];
        page[25] = HASH;
        page[20..22].copy_from_slice(&short(all.len() * 2));
        let mut more: Vec<Vec<u8>> = Vec::new();
        let mut end = SIZE;
        for (index, bytes) in all.iter().flat_map(|(key, value)| [key, value]).enumerate() {
            let item = if bytes.len() <= 8 {
                [&[HERE][..], bytes].concat()
            } else {
                let first = 2 + more.len();
                let parts: Vec<&[u8]> = bytes.chunks(SIZE - HEAD).collect();
                for (at, part) in parts.iter().enumerate() {
                    let mut page = vec![0; SIZE];
                    let next = if at + 1 < parts.len() { first + at + 1 } else { 0 };
                    page[16..20].copy_from_slice(&long(next));
                    page[22..24].copy_from_slice(&short(part.len()));
                    page[25] = OVERFLOW;
                    page[HEAD..HEAD + part.len()].copy_from_slice(part);
                    more.push(page);
                }
                [&[ELSEWHERE, 0, 0, 0][..], &long(first), &long(bytes.len())].concat()
            };
            end -= item.len();
            page[end..end + item.len()].copy_from_slice(&item);
            page[HEAD + 2 * index..HEAD + 2 * index + 2].copy_from_slice(&short(end));
        }
        let mut out = [meta, page].concat();
        out.extend(more.concat());
        out
    }

    type Records = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(bytes: &[u8]) -> Result<Records, String> {
        let mut found = Vec::new();
        pairs(bytes, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn values_on_a_page_and_on_pages_of_their_own_are_read() {
        let all = vec![
            (vec![1, 0, 0, 0], vec![7; 5]),
            (vec![2, 0, 0, 0], vec![8; 2000]),
            (vec![3, 0, 0, 0], vec![9; 486]),
        ];
        for big in [false, true] {
            assert_eq!(read(&hash_of(&all, big)).unwrap(), all);
        }
    }

    #[test]
    fn pages_that_lead_in_a_circle_end() {
        let mut bytes = hash_of(&[(vec![1, 0, 0, 0], vec![8; 2000])], false);
        // The second page of the value leads to the first.
        bytes[3 * SIZE + 16] = 2;
        let value = &read(&bytes).unwrap()[0].1;
        assert_eq!(value.len(), 2000);
        // A value that says that it is longer than the file.
        bytes[SIZE..2 * SIZE]
            .iter_mut()
            .rev()
            .take(4)
            .for_each(|byte| *byte = 0);
        let at = SIZE
            + usize::from(u16::from_le_bytes([
                bytes[SIZE + HEAD + 2],
                bytes[SIZE + HEAD + 3],
            ]));
        bytes[at + 8..at + 12].copy_from_slice(&100_000_u32.to_le_bytes());
        assert!(read(&bytes).unwrap_err().contains("larger than it is"));
    }

    proptest! {
        #[test]
        fn damaged_pages_stop_nobody(places in proptest::collection::vec((0_usize..4096, any::<u8>()), 0..40), cut in 0_usize..4096) {
            let mut bytes = hash_of(&[(vec![1, 0, 0, 0], vec![8; 2000]), (vec![2; 4], vec![1; 9])], false);
            for (at, byte) in places {
                let length = bytes.len();
                bytes[at % length] = byte;
            }
            drop(read(&bytes));
            bytes.truncate(cut);
            drop(read(&bytes));
        }
    }
}
