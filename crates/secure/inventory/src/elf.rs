//! Sections and segments of an ELF file, read where they are needed (System V ABI, "Object Files").

use crate::ReadAt;

/// Most sections that are looked at; a program has some forty.
const MOST_SECTIONS: u64 = 4096;
/// Largest table of section names.
const MOST_NAMES: u64 = 1 << 20;

/// A program's layout.
pub(crate) struct Elf<'a> {
    file: &'a dyn ReadAt,
    wide: bool,
    big: bool,
    sections: Vec<(Vec<u8>, u64, u64)>,
    /// Address, place in the file, bytes.
    segments: Vec<(u64, u64, u64)>,
}

fn bytes_at(file: &dyn ReadAt, at: u64, most: u64, length: u64) -> Option<Vec<u8>> {
    if length > most {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_at(at, &mut bytes).ok()?;
    Some(bytes)
}

/// A number of `width` bytes.
fn number(bytes: &[u8], at: usize, width: usize, big: bool) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    let fold = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
    Some(if big {
        field.iter().fold(0, fold)
    } else {
        field.iter().rev().fold(0, fold)
    })
}

impl<'a> Elf<'a> {
    /// The layout of a file; none when it is no ELF file, or a damaged one.
    pub(crate) fn read(file: &'a dyn ReadAt) -> Option<Self> {
        let mut header = [0; 64];
        file.read_at(0, &mut header).ok()?;
        if !header.starts_with(b"\x7fELF") {
            return None;
        }
        let (wide, big) = (header[4] == 2, header[5] == 2);
        let word = if wide { 8 } else { 4 };
        let at = |narrow: usize, wide_at: usize| if wide { wide_at } else { narrow };
        let get = |narrow, wide_at, width| number(&header, at(narrow, wide_at), width, big);
        let (segments_at, sections_at) = (get(28, 32, word)?, get(32, 40, word)?);
        let (segment_size, segment_count) = (get(42, 54, 2)?, get(44, 56, 2)?);
        let (section_size, section_count) = (get(46, 58, 2)?, get(48, 60, 2)?);
        let names_index = get(50, 62, 2)?;
        let mut elf = Self {
            file,
            wide,
            big,
            sections: Vec::new(),
            segments: Vec::new(),
        };
        elf.read_segments(segments_at, segment_size, segment_count);
        if section_count > 0 && section_count <= MOST_SECTIONS {
            // Without names a file has no sections for us.
            elf.read_sections(sections_at, section_size, section_count, names_index)
                .unwrap_or_default();
        }
        Some(elf)
    }

    fn read_segments(&mut self, at: u64, size: u64, count: u64) {
        let Some(table) = bytes_at(self.file, at, MOST_NAMES, size.saturating_mul(count)) else {
            return;
        };
        let Ok(size) = usize::try_from(size) else { return };
        for row in table.chunks_exact(size.max(1)) {
            let fields = if self.wide { (8, 16, 32, 8) } else { (4, 8, 16, 4) };
            let field = |at, width| number(row, at, width, self.big);
            if field(0, 4) != Some(1) {
                continue;
            }
            if let (Some(offset), Some(address), Some(length)) = (
                field(fields.0, fields.3),
                field(fields.1, fields.3),
                field(fields.2, fields.3),
            ) {
                self.segments.push((address, offset, length));
            }
        }
    }

    fn read_sections(&mut self, at: u64, size: u64, count: u64, names_index: u64) -> Option<()> {
        let table = bytes_at(self.file, at, MOST_NAMES, size.checked_mul(count)?)?;
        let size = usize::try_from(size).ok().filter(|size| *size > 0)?;
        let rows: Vec<&[u8]> = table.chunks_exact(size).collect();
        let place = |row: &[u8]| {
            let (offset, length, width) = if self.wide { (24, 32, 8) } else { (16, 20, 4) };
            Some((
                number(row, offset, width, self.big)?,
                number(row, length, width, self.big)?,
            ))
        };
        let (names_at, names_size) = place(rows.get(usize::try_from(names_index).ok()?)?)?;
        let names = bytes_at(self.file, names_at, MOST_NAMES, names_size)?;
        for row in rows {
            let name_at = usize::try_from(number(row, 0, 4, self.big)?).ok()?;
            let name = names.get(name_at..).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let (offset, length) = place(row)?;
            self.sections.push((name.to_vec(), offset, length));
        }
        Some(())
    }

    /// Whether the file has a section of this name.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.sections.iter().any(|(found, ..)| found == name)
    }

    /// The bytes of a section, if it has at most `most`.
    pub(crate) fn section(&self, name: &[u8], most: u64) -> Option<Vec<u8>> {
        let (_, at, length) = self.sections.iter().find(|(found, ..)| found == name)?;
        bytes_at(self.file, *at, most, *length)
    }

    /// Bytes at an address of the program.
    pub(crate) fn memory(&self, address: u64, length: u64, most: u64) -> Option<Vec<u8>> {
        let (start, offset, _) = self.segments.iter().find(|(start, _, size)| {
            address
                .checked_sub(*start)
                .is_some_and(|inside| inside.checked_add(length).is_some_and(|end| end <= *size))
        })?;
        bytes_at(self.file, offset.checked_add(address - start)?, most, length)
    }

    /// A number at a place in bytes of this file, in its byte order.
    pub(crate) fn number(&self, bytes: &[u8], at: usize, width: usize) -> Option<u64> {
        number(bytes, at, width, self.big)
    }
}
