/// The option nearest to what was written, when it is near enough to be meant: edit distance of at most a third of its
/// length, at least 1, or 2 when only its end is missing. Case does not count.
#[must_use]
pub fn suggest<'a>(written: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are no typing errors, and the distance is quadratic.
    if written.is_empty() || written.len() > 64 {
        return None;
    }
    let written = written.to_lowercase();
    options
        .into_iter()
        .map(|option| (distance(&written, &option.to_lowercase()), option))
        .filter(|(distance, option)| {
            let begun = written.len() > 2 && option.to_lowercase().starts_with(&written);
            *distance <= (option.chars().count() / 3).max(if begun { 2 } else { 1 })
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, option)| option)
}

/// Edit distance with transpositions of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = a[i - 1] == b[j - 1];
            row[j] = (last[j] + 1)
                .min(row[j - 1] + 1)
                .min(last[j - 1] + usize::from(!same));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The hint for a misspelt word, when one can be guessed.
pub(crate) fn did_you_mean<'a>(
    written: &str,
    options: impl IntoIterator<Item = &'a str>,
    prefix: &str,
) -> Option<String> {
    suggest(written, options).map(|option| format!("did you mean {prefix}{option}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggest_finds_swapped_and_missing_letters_but_not_another_word() {
        let words = ["FROM", "RUN", "ENTRYPOINT", "WORKDIR"];
        assert_eq!(suggest("FORM", words), Some("FROM"));
        assert_eq!(suggest("entrypont", words), Some("ENTRYPOINT"));
        assert_eq!(suggest("tmp", ["bind", "tmpfs"]), Some("tmpfs"));
        assert_eq!(suggest("apt-get", words), None);
        assert_eq!(suggest(&"x".repeat(1000), words), None);
    }
}
