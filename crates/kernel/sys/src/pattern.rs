//! POSIX extended regular expressions, by the C library.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;

/// A compiled expression (regex(7)).
#[derive(Debug)]
pub struct Pattern(Box<libc::regex_t>);

impl Pattern {
    /// Compiles an extended expression; no text is captured.
    ///
    /// # Errors
    /// `InvalidInput` with the C library's words.
    pub fn new(expression: &str) -> io::Result<Self> {
        let text = CString::new(expression)?;
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: the expression ends with a null byte, and the place is one for a `regex_t`, which does not move: what
        // the C library keeps in it may point into itself.
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), flags) };
        if code == 0 {
            // SAFETY: regcomp(3) has written it; the memory stays where it is.
            return Ok(Self(unsafe { Box::from_raw(Box::into_raw(compiled).cast()) }));
        }
        let mut words = [0_u8; 128];
        // SAFETY: the buffer has the length that is given; regerror(3) takes the place of a compilation that failed.
        unsafe { libc::regerror(code, compiled.as_ptr(), words.as_mut_ptr().cast(), words.len()) };
        let words = std::ffi::CStr::from_bytes_until_nul(&words).unwrap_or_default();
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            words.to_string_lossy().into_owned(),
        ))
    }

    /// Whether the expression is found in `text`; never in one with a null byte.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else {
            return false;
        };
        // SAFETY: the expression is compiled, the text ends with a null byte, and no matches are asked for.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp(3), and not used again.
        unsafe { libc::regfree(&raw mut *self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_found_in_a_text_or_refused_in_words() {
        let some = Pattern::new("^web-[0-9]+$|db").unwrap();
        for (text, found) in [
            ("web-12", true),
            ("web-", false),
            ("mydb1", true),
            ("", false),
            ("d\0b", false),
        ] {
            assert_eq!(some.matches(text), found, "{text:?}");
        }
        assert!(Pattern::new("").unwrap().matches("anything"));
        for wrong in ["(", "[a", "a{2,1}", "a\0"] {
            let error = Pattern::new(wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong:?}");
            assert!(!error.to_string().is_empty());
        }
    }
}
