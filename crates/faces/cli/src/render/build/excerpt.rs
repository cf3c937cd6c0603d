//! A failed build: the end of the step's output, the place in the Dockerfile, the sentence.

use dhow_engine::Failed;
use dhow_types::Span;

use super::harmless;

/// Everything about the failure, as BuildKit writes it, hints below.
pub(crate) fn failure(failed: &Failed, dockerfile: &str, tail: &[(f64, String)]) -> String {
    let mut out = String::new();
    if let Some(step) = &failed.step
        && !tail.is_empty()
    {
        out.push_str(&format!("------\n > {}:\n", harmless(step)));
        for (at, line) in tail {
            out.push_str(&format!("{at:.3} {}\n", harmless(line)));
        }
        out.push_str("------\n");
    }
    let file = failed
        .place
        .as_ref()
        .map_or("Dockerfile", |place| place.file.as_str());
    if let Some(place) = &failed.place {
        excerpt(&mut out, file, dockerfile, place.span);
    }
    for more in &failed.more {
        excerpt(&mut out, file, dockerfile, more.at);
        out.push_str(&format!(
            "{}:{}: {}\n",
            file,
            more.at.line_column(dockerfile).0,
            more.message
        ));
    }
    let what = harmless(&crate::error::chain(failed)).replace('\n', " ");
    out.push_str(&format!("ERROR: {what}\n"));
    if let Some(hint) = dhow_types::Failure::hint(failed) {
        out.push_str(&format!("hint: {hint}\n"));
    }
    out
}

/// The lines around the place, those of the place marked (moby/buildkit `solver/errdefs/source.go`).
pub(super) fn excerpt(out: &mut String, file: &str, text: &str, span: Span) {
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return;
    }
    let first = span.line_column(text).0.min(lines.len());
    // The end is one past the last byte: a newline there belongs to the last line.
    let last_byte = span.end.saturating_sub(1).max(span.start);
    let last = Span::new(last_byte, last_byte)
        .line_column(text)
        .0
        .clamp(first, lines.len());
    let padding = if first == last { 4 } else { 2 };
    let (mut start, mut end, mut added) = (first, last, 0);
    while added < padding {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end < lines.len() {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    out.push_str(&format!("{file}:{first}\n--------------------\n"));
    for number in start..=end {
        let mark = if (first..=last).contains(&number) {
            ">>>"
        } else {
            "   "
        };
        let line = format!(" {number:3} | {mark} {}", harmless(lines[number - 1]));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push_str("--------------------\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_place_are_marked_among_their_neighbours() {
        let text = "FROM a\n\nRUN one\nRUN two \\\n  three\nRUN four\nRUN five\nRUN six\n";
        let mut out = String::new();
        let start = text.find("RUN two").unwrap();
        excerpt(
            &mut out,
            "Dockerfile",
            text,
            Span::new(start, text.find("RUN four").unwrap()),
        );
        assert_eq!(
            out,
            "Dockerfile:4\n--------------------\n   3 |     RUN one\n   4 | >>> RUN two \\\n   5 | >>>   three\n   6 |     RUN four\n--------------------\n"
        );
    }

    #[test]
    fn a_place_past_the_end_is_the_last_line() {
        let mut out = String::new();
        excerpt(&mut out, "D", "FROM a\nRUN x", Span::new(500, 600));
        assert!(out.contains("   2 | >>> RUN x"), "{out}");
        let mut out = String::new();
        excerpt(&mut out, "D", "", Span::new(5, 6));
        assert!(out.is_empty());
    }
}
