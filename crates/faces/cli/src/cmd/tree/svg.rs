//! The inheritance as a picture: one line for each image, what derives from it below and to the right of it.

use super::{DEEPEST, Drawn, label};
use crate::cmd::scan::html;

/// Height of a line, width of a step to the right, and of a letter at most, in pixels.
const LINE: usize = 28;
const STEP: usize = 26;
const LETTER: usize = 8;
const MARGIN: usize = 12;

/// An image in the picture.
struct Placed {
    node: usize,
    depth: usize,
    /// The line of what it derives from.
    parent: Option<usize>,
}

/// The picture.
pub(super) fn draw(drawn: &Drawn<'_>) -> String {
    let mut placed = Vec::new();
    for root in &drawn.roots {
        place(drawn, *root, None, 0, &mut placed);
    }
    let left = |one: &Placed| MARGIN + one.depth * STEP;
    let middle = |line: usize| MARGIN + line * LINE + LINE / 2;
    let (mut boxes, mut lines, mut width) = (String::new(), String::new(), 0);
    for (at, one) in placed.iter().enumerate() {
        let label = label(drawn, one.node);
        let wide = label.chars().count() * LETTER + LETTER;
        let (x, y) = (left(one), middle(at));
        width = width.max(x + wide + MARGIN);
        boxes.push_str(&format!(
            "  <rect x=\"{x}\" y=\"{}\" width=\"{wide}\" height=\"{}\" rx=\"4\"/>\n  <text x=\"{}\" y=\"{}\">{}</text>\n",
            y - LINE / 2 + 3,
            LINE - 6,
            x + LETTER / 2,
            y + 4,
            escaped(&label),
        ));
        if let Some(parent) = one.parent {
            let (from, start) = (left(&placed[parent]) + STEP / 2, middle(parent) + LINE / 2 - 3);
            lines.push_str(&format!("  <path d=\"M{from} {start} V{y} H{x}\"/>\n"));
        }
    }
    let line_of = |node: usize| placed.iter().position(|one| one.node == node);
    for (from, into) in drawn.copied {
        if let (Some(from), Some(into)) = (line_of(*from), line_of(*into)) {
            let (x, start) = (left(&placed[from]), middle(from));
            let (to, end) = (left(&placed[into]), middle(into));
            lines.push_str(&format!(
                "  <path class=\"copied\" d=\"M{x} {start} C0 {start} 0 {end} {to} {end}\"/>\n"
            ));
        }
    }
    let height = placed.len() * LINE + 2 * MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <title>Images and what they derive from</title>\n\
         <style>text {{ font: 13px monospace; fill: #1a1a1a }} rect {{ fill: #f4f6f8; stroke: #8494a4 }} \
         path {{ fill: none; stroke: #8494a4 }} .copied {{ stroke-dasharray: 4 3 }}</style>\n{lines}{boxes}</svg>\n"
    )
}

fn place(drawn: &Drawn<'_>, node: usize, parent: Option<usize>, depth: usize, placed: &mut Vec<Placed>) {
    let at = placed.len();
    placed.push(Placed { node, depth, parent });
    if depth < DEEPEST {
        for child in drawn.children(node) {
            place(drawn, child, Some(at), depth + 1, placed);
        }
    }
}

/// XML 1.0 has no control characters, also not escaped.
fn escaped(label: &str) -> String {
    let plain = |character: char| {
        if character.is_control() {
            '\u{fffd}'
        } else {
            character
        }
    };
    html::text(&label.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_label_is_text_and_nothing_else() {
        assert_eq!(super::escaped("a<b>&\u{1}é"), "a&lt;b&gt;&amp;\u{fffd}é");
    }
}
