use dhow_dockerfile::{Expand, Quotes, Unset};

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "a" => "one",
        "path" => "/usr/lib/libx.so.1",
        "empty" => "",
        "dots" => "a.b.c",
        "kor" => "한국어",
        "sp" => "x y",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn every_modifier_gives_what_a_shell_gives() {
    let cases = [
        ("$a ${a} $a$a x$a", "one one oneone xone"),
        ("$unset|${unset}|$", "||$"),
        (r"\$a '$a' \'", "$a $a '"),
        ("\"$a\\\"'\"", "one\"'"),
        ("${unset:-w} ${empty:-w} ${empty-w} ${a:-w}", "w w  one"),
        ("${unset:+w}${empty:+w}|${empty+w}|${a:+w}", "|w|w"),
        ("${unset:-${a}$a}", "oneone"),
        ("${unset:-'}'}", "}"),
        ("${a:?no} ${a?no} ${empty?no}", "one one "),
        (
            "${path##*/} ${path#*/} ${path%/*} ${path%%.*}",
            "libx.so.1 usr/lib/libx.so.1 /usr/lib /usr/lib/libx",
        ),
        (
            "${dots#a?} ${dots%?c} ${dots#z} ${dots#\\*}",
            "b.c a.b a.b.c a.b.c",
        ),
        (
            "${dots/./-} ${dots//./-} ${dots//?/x} ${dots/*/y} ${dots/.*/}",
            "a-b.c a-b-c xxxxx y a",
        ),
        ("${path//\\//:} ${dots/b/$a}", ":usr:lib:libx.so.1 a.one.c"),
        ("${kor#?} ${kor%?}", "국어 한국"),
        ("$1a $10 ${1} $?", "a   "),
    ];
    for (word, wanted) in cases {
        let found = Expand::default()
            .word(word, &lookup)
            .map_err(|error| error.message);
        assert_eq!(found.as_deref(), Ok(wanted), "{word}");
    }
}

#[test]
fn bad_substitutions_are_errors() {
    for (word, message) in [
        ("${a", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:-a}", "syntax error: bad substitution"),
        ("${a:=b}", "unsupported modifier (:=) in substitution"),
        ("${a^}", "unsupported modifier (^) in substitution"),
        ("${a:#b}", "unsupported modifier (:#) in substitution"),
        ("${a:-b", "syntax error: missing '}'"),
        ("${a/b}", "syntax error: missing '/' in ${}"),
        (
            "${a#\\x}",
            "invalid pattern (\\x) in substitution: invalid escape '\\x'",
        ),
        (
            "'a",
            "unexpected end of statement while looking for matching single-quote",
        ),
        (
            "\"a",
            "unexpected end of statement while looking for matching double-quote",
        ),
        ("${unset?}", "unset: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${unset:?say it}", "unset: say it"),
    ] {
        let error = Expand::default().word(word, &lookup).expect_err(word);
        assert_eq!(error.message, message, "{word}");
    }
}

#[test]
fn words_split_at_spaces_of_values_but_not_of_quotes() {
    let words = |text: &str| Expand::default().words(text, &lookup).unwrap();
    assert_eq!(words("$sp \"$sp\" 'a b' c\\ d"), ["x", "y", "x y", "a b", "c d"]);
    assert_eq!(words("  "), Vec::<String>::new());
}

#[test]
fn names_of_steps_keep_quotes_and_unset_variables() {
    let settings = Expand {
        quotes: Quotes::Keep,
        unset: Unset::Keep,
        ..Expand::default()
    };
    let found = settings.word("echo \"$a\" $no ${no:-x} '$a'", &lookup).unwrap();
    assert_eq!(found, "echo \"one\" $no ${no:-x} '$a'");
    let settings = Expand {
        quotes: Quotes::Literal,
        ..Expand::default()
    };
    assert_eq!(
        settings.word("it's \"$a\" \\$a", &lookup).unwrap(),
        "it's \"one\" $a"
    );
}

#[test]
fn the_escape_character_is_the_one_of_the_file() {
    let settings = Expand {
        escape: '`',
        ..Expand::default()
    };
    assert_eq!(settings.word(r"c:\$a `$a", &lookup).unwrap(), r"c:\one $a");
}

#[test]
fn a_result_over_the_limit_is_an_error_and_not_memory() {
    let big = "x".repeat(1 << 19);
    let error = Expand::default()
        .word("$b$b$b", &|_| Some(big.clone()))
        .unwrap_err();
    assert!(error.message.contains("longer than"), "{error:?}");
}
