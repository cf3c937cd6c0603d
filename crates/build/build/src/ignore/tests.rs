use super::*;
use proptest::prelude::*;

fn ignored(patterns: &[&str], path: &str) -> bool {
    Patterns::compile(patterns)
        .unwrap()
        .matches_with_parents(path.as_bytes())
        .0
}

#[test]
fn one_pattern_matches_as_in_patternmatcher() {
    let table: &[(&str, &str, bool)] = &[
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc", false),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("./bar.*", "bar.foo", true),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/x.whl", true),
        ("a/b", "a/b/c/d", true),
        ("*", "a/b", true),
        ("*/b", "a/b/c", true),
        ("*/b", "b", false),
        ("foo", "foobar", false),
        ("é?", "é한", true),
    ];
    for (pattern, path, wanted) in table {
        assert_eq!(ignored(&[pattern], path), *wanted, "{pattern} {path}");
    }
}

#[test]
fn the_last_match_decides_and_a_parent_counts() {
    let table: &[(&[&str], &str, bool)] = &[
        (&["*", "!a"], "a", false),
        (&["*", "!a"], "a/b/c", false),
        (&["*", "!a", "a/b"], "a/b/c", true),
        (&["!a", "a"], "a", true),
        (&["docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/x", true),
        (&["**", "!src/**/*.rs"], "src/a/b.rs", false),
        (&["**", "!src/**/*.rs"], "src/a/b.txt", true),
        (
            &["util/docker/web", "!util/docker/web/foo"],
            "util/docker/web/foo",
            false,
        ),
        (
            &["**", "!util/docker/web", "util/docker/web/foo"],
            "util/docker/web/foo",
            true,
        ),
        (
            &["**/node_modules", "!keep/node_modules"],
            "keep/node_modules/x",
            false,
        ),
    ];
    for (patterns, path, wanted) in table {
        assert_eq!(ignored(patterns, path), *wanted, "{patterns:?} {path}");
    }
}

#[test]
fn a_file_of_patterns_is_read_as_docker_reads_it() {
    let text = "\u{feff}# comment\n /a \n\n!  /b/../c/ \n#x\n #y\nd//e/\n";
    let patterns = Patterns::parse(text).unwrap();
    let found: Vec<(bool, String)> = patterns
        .patterns
        .iter()
        .map(|pattern| {
            (
                pattern.exception,
                String::from_utf8(pattern.text.clone()).unwrap(),
            )
        })
        .collect();
    let wanted = [(false, "a"), (true, "c"), (false, "#y"), (false, "d/e")];
    assert_eq!(found, wanted.map(|(e, t)| (e, t.to_owned())));
}

#[test]
fn malformed_patterns_are_errors() {
    for bad in ["!", "[", "[a", "a[]b", "[-a]", "[a-]", "a\\", "! "] {
        assert!(Patterns::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_directory_is_only_pruned_when_no_exception_can_be_below() {
    let table: &[(&[&str], &str, bool)] = &[
        (&["a"], "a", false),
        (&["a", "!a/b"], "a", true),
        (&["a", "!c/b"], "a", false),
        (&["a", "!**/b"], "a", true),
        (&["a", "!*/b"], "a", true),
        (&["a", "!a/b/c"], "a/b", true),
        (&["a", "!a/b/c"], "a/x", false),
        (&["a", "!ab"], "a", false),
        (&["a/b", "!a"], "a/b", true),
    ];
    for (patterns, path, wanted) in table {
        let patterns = Patterns::compile(*patterns).unwrap();
        assert_eq!(patterns.may_except_below(path.as_bytes()), *wanted, "{path}");
    }
}

#[test]
fn a_glob_of_go_has_no_double_star() {
    let glob = Glob::compile("a**b", Stars::Stay).unwrap();
    assert!(glob.matches(b"axxb") && !glob.matches(b"a/b"));
    assert!(Glob::compile("*", Stars::Stay).unwrap().matches(b"\xff\xfe"));
}

proptest! {
    #[test]
    fn any_pattern_and_path_give_an_answer_soon(pattern in "[a-c/*?\\[\\]\\\\!^-]{0,40}", path in "[a-c/]{0,60}") {
        if let Ok(patterns) = Patterns::compile([&pattern]) {
            patterns.matches_with_parents(path.as_bytes());
        }
    }

    #[test]
    fn what_is_pruned_holds_no_exception(
        excluded in "[ab*](/[ab*]){0,2}",
        kept in "[ab*](/[ab*?]){0,3}",
        dir in "[ab](/[ab]){0,2}",
        below in "[ab](/[ab]){0,2}",
    ) {
        let patterns = Patterns::compile([excluded, format!("!{kept}")]).unwrap();
        let (matched, _) = patterns.matches_with_parents(dir.as_bytes());
        if matched && !patterns.may_except_below(dir.as_bytes()) {
            let path = format!("{dir}/{below}");
            prop_assert!(patterns.matches_with_parents(path.as_bytes()).0);
        }
    }
}
