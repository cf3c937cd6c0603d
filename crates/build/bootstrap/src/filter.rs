//! Which paths a variant leaves out, in the words of dpkg's `path-exclude` and `path-include` (dpkg(1)).

/// Patterns over absolute paths; `*` stands for anything, slashes too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    pub(crate) excluded: &'static [&'static str],
    pub(crate) included: &'static [&'static str],
}

impl Filter {
    /// Leaves nothing out.
    pub(crate) const NOTHING: Self = Self {
        excluded: &[],
        included: &[],
    };

    /// What the slim variants of Debian's published images lack: documentation but for licences, manual pages,
    /// translations.
    pub(crate) const SLIM: Self = Self {
        excluded: &[
            "/usr/share/doc/*",
            "/usr/share/groff/*",
            "/usr/share/info/*",
            "/usr/share/linda/*",
            "/usr/share/lintian/overrides/*",
            "/usr/share/locale/*",
            "/usr/share/man/*",
        ],
        included: &["/usr/share/doc/*/copyright"],
    };

    /// Whether the file at `path` (without a leading slash) is left out. As in dpkg, a directory or link above an
    /// included path stays, since the path could not be reached without it.
    pub(crate) fn skips(&self, path: &[u8], is_passage: bool) -> bool {
        let hit = |pattern: &&&str| {
            pattern
                .strip_prefix('/')
                .is_some_and(|rest| matches(rest.as_bytes(), path))
        };
        if !self.excluded.iter().any(|pattern| hit(&pattern))
            || self.included.iter().any(|pattern| hit(&pattern))
        {
            return false;
        }
        !is_passage || !self.included.iter().any(|pattern| leads_to(path, pattern))
    }

    /// The lines for a file in `/etc/dpkg/dpkg.cfg.d`.
    pub(crate) fn dpkg_lines(&self) -> String {
        let excluded = self
            .excluded
            .iter()
            .map(|pattern| format!("path-exclude {pattern}\n"));
        let included = self
            .included
            .iter()
            .map(|pattern| format!("path-include {pattern}\n"));
        excluded.chain(included).collect()
    }
}

/// Whether a directory `path` is below the fixed part of a pattern.
fn leads_to(path: &[u8], pattern: &str) -> bool {
    let fixed = pattern
        .split('*')
        .next()
        .unwrap_or_default()
        .trim_matches('/')
        .as_bytes();
    path.strip_prefix(fixed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether a text matches a pattern in which `*` stands for any bytes. Linear in practice: it never goes back further
/// than the last star.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slim_leaves_out_documentation_but_not_licences() {
        let skips = |path: &str| Filter::SLIM.skips(path.as_bytes(), false);
        assert!(skips("usr/share/doc/bash/README.gz"));
        assert!(!skips("usr/share/doc/bash/copyright"));
        assert!(skips("usr/share/man/de/man1/ls.1.gz"));
        assert!(skips("usr/share/locale/de/LC_MESSAGES/dpkg.mo"));
        assert!(!skips("usr/share/doc"));
        assert!(!skips("usr/share/docs/x"));
        assert!(!skips("usr/bin/man"));
        assert!(!Filter::NOTHING.skips(b"usr/share/man/man1/ls.1.gz", false));
    }

    #[test]
    fn directories_above_licences_stay_and_others_go() {
        assert!(!Filter::SLIM.skips(b"usr/share/doc/bash", true));
        assert!(Filter::SLIM.skips(b"usr/share/man/man1", true));
    }

    proptest! {
        #[test]
        fn stars_match_what_a_plain_search_matches(text in "[ab/]{0,12}", pattern in "[ab/*]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| slow(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
                }
            }
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
