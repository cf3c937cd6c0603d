//! PEM (RFC 7468): labelled base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::ErrorKind;

use crate::Error;

/// Largest file that is looked at, and most blocks in it.
pub(crate) const MAX_FILE: usize = 1 << 20;
const MAX_BLOCKS: usize = 64;

/// The blocks of a text, each with its label. What stands between them is skipped, as it is by everyone.
pub(crate) fn blocks(text: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let bad = |why: &str| Error::new(ErrorKind::InvalidArgument, format!("the PEM is damaged: {why}"));
    if text.len() > MAX_FILE {
        let message = format!("it has {} bytes, the limit is {MAX_FILE}", text.len());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    let text = std::str::from_utf8(text).map_err(|_| bad("it is no text"))?;
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = line
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.strip_suffix("-----"))
        else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut body = String::new();
        loop {
            match lines.next() {
                None => return Err(bad("a block has no end")),
                Some(line) if line == end => break,
                Some(line) if line.starts_with("-----") => return Err(bad("a block ends with another name")),
                Some(line) => body.push_str(line.trim()),
            }
        }
        let bytes = STANDARD.decode(&body).map_err(|_| bad("a block is no base64"))?;
        blocks.push((label.to_owned(), bytes));
        if blocks.len() > MAX_BLOCKS {
            return Err(bad("it has too many blocks"));
        }
    }
    Ok(blocks)
}

/// The block of this label.
pub(crate) fn encode(label: &str, bytes: &[u8]) -> String {
    let base64 = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_any_text_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), noise in "(-----BEGIN A-----\n)?[ -~\n]{0,80}(\n-----END A-----)?") {
            let text = format!("what it is\n{}", encode("A KEY", &bytes));
            prop_assert_eq!(blocks(text.as_bytes()).unwrap(), [("A KEY".to_owned(), bytes)]);
            drop(blocks(noise.as_bytes()));
        }
    }

    #[test]
    fn a_block_without_its_end_is_refused() {
        for text in [
            "-----BEGIN A-----\nAAAA\n",
            "-----BEGIN A-----\nAAAA\n-----END B-----\n",
            "-----BEGIN A-----\n!\n-----END A-----\n",
        ] {
            assert!(blocks(text.as_bytes()).is_err(), "{text}");
        }
    }
}
