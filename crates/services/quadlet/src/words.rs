//! Words of a line, as systemd splits and quotes them (systemd.syntax(7), systemd.service(5) "Command lines").

/// A line whose words cannot be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What white space is between words.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Words in quotes, with a backslash being one (lists of names).
pub(crate) fn plain(text: &str) -> Vec<String> {
    // Quotes that do not end lose the word, as in systemd's lists.
    split(text, false).unwrap_or_default()
}

/// Words in quotes, with the escapes of C.
pub(crate) fn escaped(text: &str) -> Result<Vec<String>, Malformed> {
    split(text, true)
}

fn split(text: &str, escapes: bool) -> Result<Vec<String>, Malformed> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| SPACE.contains(c)).is_some() {}
        if rest.peek().is_none() {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(&character) = rest.peek() {
            match (character, quote) {
                (c, None) if SPACE.contains(&c) => break,
                ('\'' | '"', None) => {
                    quote = Some(character);
                    rest.next();
                }
                (c, Some(open)) if c == open => {
                    quote = None;
                    rest.next();
                }
                ('\\', _) if escapes => {
                    rest.next();
                    unescape(&mut rest, &mut word)?;
                }
                (c, _) => {
                    word.push(c);
                    rest.next();
                }
            }
        }
        if quote.is_some() && !escapes {
            return Err(Malformed("unbalanced quotes"));
        }
        words.push(word);
    }
}

/// What comes after a backslash; at the end of a line it is nothing.
fn unescape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) -> Result<(), Malformed> {
    let Some(kind) = rest.next() else {
        return Ok(());
    };
    let mut digits = |count: usize, radix: u32, first: Option<char>| {
        let mut value = first.map_or(Some(0), |c| c.to_digit(radix));
        for _ in 0..count {
            let digit = rest.next().and_then(|c| c.to_digit(radix));
            value = value.zip(digit).map(|(value, digit)| value * radix + digit);
        }
        let character = value.filter(|value| *value != 0).and_then(char::from_u32);
        character.ok_or(Malformed("unsupported escape char"))
    };
    word.push(match kind {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        's' => ' ',
        '\\' | '"' | '\'' => kind,
        'x' => digits(2, 16, None)?,
        'u' => digits(4, 16, None)?,
        'U' => digits(8, 16, None)?,
        '0'..='7' => digits(2, 8, Some(kind))?,
        _ => return Err(Malformed("unsupported escape char")),
    });
    Ok(())
}

/// A line of words that systemd splits into the same words.
pub fn line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// A word as it is written: in quotes when it has what separates or quotes, or is empty.
pub(crate) fn quoted(word: &str) -> String {
    let needs = |c: char| SPACE.contains(&c) || c.is_control() || matches!(c, '"' | '\'' | '\\');
    if !word.is_empty() && !word.chars().any(needs) {
        return word.to_owned();
    }
    let mut out = String::from("\"");
    for character in word.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            // systemd's own way, which is also right where quotes are no quotes.
            ' ' => out.push_str("\\x20"),
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            control if control.is_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        escaped(text).unwrap()
    }

    #[test]
    fn words_are_split_quoted_and_unescaped_as_systemd_does() {
        assert_eq!(
            words(r#" a  "b c" 'd "e"' f\x20g "#),
            ["a", "b c", "d \"e\"", "f g"]
        );
        assert_eq!(words(r#"x="y z"w \101\u00e4\n"#), ["x=y zw", "A\u{e4}\n"]);
        assert_eq!(words("\"\" end\\"), ["", "end"]);
        assert_eq!(escaped(r"a\q"), Err(Malformed("unsupported escape char")));
        assert_eq!(escaped(r"\x00"), Err(Malformed("unsupported escape char")));
        assert_eq!(plain(r#"a\b "c d""#), [r"a\b", "c d"]);
    }
}
