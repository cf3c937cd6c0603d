//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and `\` escapes, without bracket expressions.

/// Most steps that one substitution may take; text and pattern of normal use stay far below.
const MAX_STEPS: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Any,
    Char(char),
}

/// A pattern as the pieces between its stars.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pieces: Vec<Vec<Token>>,
}

/// How much a star takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greed {
    Longest,
    Shortest,
}

impl Pattern {
    /// Parses a pattern; a backslash escapes `*`, `?`, `\`, and `}` and `/`, which would end the pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = vec![Vec::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let token = match c {
                '*' => {
                    pieces.push(Vec::new());
                    continue;
                }
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Token::Char(escaped),
                    Some(other) => {
                        return Err(format!(
                            "invalid pattern ({text}) in substitution: invalid escape '\\{other}'"
                        ));
                    }
                    None => {
                        return Err(format!(
                            "invalid pattern ({text}) in substitution: trailing escape"
                        ));
                    }
                },
                other => Token::Char(other),
            };
            if let Some(piece) = pieces.last_mut() {
                piece.push(token);
            }
        }
        Ok(Self { pieces })
    }

    fn check_cost(&self, text: &[char]) -> Result<(), String> {
        let tokens: usize = self.pieces.iter().map(|piece| piece.len() + 1).sum();
        if tokens.saturating_mul(text.len() + 1) > MAX_STEPS {
            return Err("pattern and value of a substitution are too long".to_owned());
        }
        Ok(())
    }

    /// End of the match that starts at `start`, where the first piece must stand.
    fn end_of_match(&self, text: &[char], start: usize, greed: Greed) -> Option<usize> {
        let (first, rest) = self.pieces.split_first()?;
        let mut end = matches_at(first, text, start)?;
        let Some((last, middle)) = rest.split_last() else {
            return Some(end);
        };
        // Each piece at its earliest place leaves the most room for the last one.
        for piece in middle {
            end = find(piece, text, end)? + piece.len();
        }
        let place = match greed {
            Greed::Shortest => find(last, text, end)?,
            Greed::Longest => find_last(last, text, end)?,
        };
        Some(place + last.len())
    }

    /// `${v#p}`, `${v##p}`.
    pub(crate) fn trim_start(&self, value: &str, greed: Greed) -> Result<String, String> {
        let text: Vec<char> = value.chars().collect();
        self.check_cost(&text)?;
        let end = self.end_of_match(&text, 0, greed).unwrap_or(0);
        Ok(text[end..].iter().collect())
    }

    /// `${v%p}`, `${v%%p}`: the same on the mirror image.
    pub(crate) fn trim_end(&self, value: &str, greed: Greed) -> Result<String, String> {
        let text: Vec<char> = value.chars().rev().collect();
        self.check_cost(&text)?;
        let mirror = Self {
            pieces: self
                .pieces
                .iter()
                .rev()
                .map(|piece| piece.iter().rev().copied().collect())
                .collect(),
        };
        let end = mirror.end_of_match(&text, 0, greed).unwrap_or(0);
        Ok(text[end..].iter().rev().collect())
    }

    /// `${v/p/r}`, `${v//p/r}`; the result has at most `limit` bytes.
    pub(crate) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        limit: usize,
    ) -> Result<String, String> {
        let text: Vec<char> = value.chars().collect();
        self.check_cost(&text)?;
        let empty: &[Token] = &[];
        let first = self.pieces.first().map_or(empty, Vec::as_slice);
        let mut out = String::new();
        let mut at = 0;
        while at <= text.len() {
            // When the pieces after the first do not follow its first occurrence, they follow no later one.
            let found = find(first, &text, at).and_then(|start| {
                let end = self.end_of_match(&text, start, Greed::Longest)?;
                Some((start, end))
            });
            let Some((start, end)) = found else { break };
            out.extend(&text[at..start]);
            out.push_str(replacement);
            if out.len() > limit {
                return Err("the result of a substitution is too long".to_owned());
            }
            at = end;
            if end == start {
                let Some(c) = text.get(end) else { return Ok(out) };
                out.push(*c);
                at += 1;
            } else if at == text.len() {
                // An empty match right behind a match does not count.
                break;
            }
            if !all {
                break;
            }
        }
        out.extend(text.get(at..).unwrap_or_default());
        Ok(out)
    }
}

fn matches_at(piece: &[Token], text: &[char], at: usize) -> Option<usize> {
    let end = at.checked_add(piece.len())?;
    let window = text.get(at..end)?;
    let same = piece.iter().zip(window).all(|(token, c)| match token {
        Token::Any => true,
        Token::Char(wanted) => wanted == c,
    });
    same.then_some(end)
}

fn find(piece: &[Token], text: &[char], from: usize) -> Option<usize> {
    (from..=text.len()).find(|at| matches_at(piece, text, *at).is_some())
}

fn find_last(piece: &[Token], text: &[char], from: usize) -> Option<usize> {
    (from..=text.len())
        .rev()
        .find(|at| matches_at(piece, text, *at).is_some())
}
