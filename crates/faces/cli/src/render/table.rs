//! Docker's tables: Go's `tabwriter` with cells at least ten wide and three spaces between them.

/// Least width of a cell, its padding included (docker/cli `formatter.go`: minwidth 10).
const LEAST: usize = 10;
/// Spaces after the longest cell of a column.
const PADDING: usize = 3;

/// The same with podman, whose cells may be of any width (containers/common `pkg/report`).
const PODMAN_PADDING: usize = 2;

/// Lays out lines whose cells are separated by tabs. A column is a run of lines that have a cell there which a tab
/// ends; the last cell of a line belongs to no column (Go `text/tabwriter`).
pub(crate) fn align(text: &str) -> String {
    if crate::dialect::spoken().is_podman() {
        return aligned(text, 0, PODMAN_PADDING);
    }
    aligned(text, LEAST, PADDING)
}

/// The same with cells of any width, and so many spaces between them.
pub(crate) fn columns(text: &str, padding: usize) -> String {
    aligned(text, 0, padding)
}

fn aligned(text: &str, least: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut first = 0;
        while first < lines.len() {
            if widths[first].len() <= column {
                first += 1;
                continue;
            }
            let end = (first..lines.len())
                .find(|&line| widths[line].len() <= column)
                .unwrap_or(lines.len());
            let longest = (first..end)
                .map(|line| width(lines[line][column]))
                .max()
                .unwrap_or(0);
            for line in &mut widths[first..end] {
                line[column] = (longest + padding).max(least);
            }
            first = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(wanted) = widths.get(index) {
                out.extend(std::iter::repeat_n(' ', wanted - width(cell)));
            }
        }
        out.push('\n');
    }
    out
}

/// Width of a cell in characters, as Go counts it.
fn width(cell: &str) -> usize {
    if cell.is_ascii() {
        cell.len()
    } else {
        cell.chars().count()
    }
}

/// Cuts a text to `limit` characters, the last of them an ellipsis (docker/cli `formatter.Ellipsis`).
pub(crate) fn ellipsis(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_at_least_and_three_apart() {
        let text = align("CONTAINER ID\tIMAGE\tNAMES\n0123456789ab\tbusybox:latest\tx\n");
        assert_eq!(
            text,
            "CONTAINER ID   IMAGE            NAMES\n0123456789ab   busybox:latest   x\n"
        );
        assert_eq!(align("A\tB\n1\t\n"), "A         B\n1         \n");
    }

    #[test]
    fn a_line_without_cells_ends_the_columns_above_it() {
        assert_eq!(
            align("a\tb\n\nlonger than ten\tb\n"),
            "a         b\n\nlonger than ten   b\n"
        );
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("0123456789", 10), "0123456789");
        assert_eq!(ellipsis("01234567890", 10), "012345678…");
        assert_eq!(ellipsis("äöüäöü", 3), "äö…");
    }
}
