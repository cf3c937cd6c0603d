//! Arguments: options before and after the words, by long or short name, with their value attached or next.
//!
//! Written by hand because a start-up of microseconds is the point of this face, and because the manners of several
//! parsers have to be met: runc's (Go's, one dash or two), crun's and the suites', which put the id first or last.

use std::collections::HashMap;
use std::fmt;

/// An option of a verb.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) about: &'static str,
}

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing: it is on.
    Nothing,
    /// A value; of several the last counts.
    Value,
    /// A value each time it is given.
    Values,
}

/// Where the options of a verb end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Nowhere: they may stand anywhere.
    End,
    /// After this many words; what follows belongs to another program.
    Words(usize),
}

pub(crate) const fn on(long: &'static str, short: Option<char>, about: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::Nothing,
        about,
    }
}

pub(crate) const fn value(long: &'static str, short: Option<char>, about: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::Value,
        about,
    }
}

pub(crate) const fn values(long: &'static str, short: Option<char>, about: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::Values,
        about,
    }
}

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    options: HashMap<&'static str, Vec<String>>,
    /// The words that are no options, in order.
    pub(crate) words: Vec<String>,
}

/// Wrong usage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Given {
    pub(crate) fn is_on(&self, long: &str) -> bool {
        self.value(long) == Some("true")
    }

    pub(crate) fn value(&self, long: &str) -> Option<&str> {
        self.options.get(long)?.last().map(String::as_str)
    }

    /// A value that is not empty: for runc an empty one means none.
    pub(crate) fn text(&self, long: &str) -> Option<&str> {
        self.value(long).filter(|value| !value.is_empty())
    }

    pub(crate) fn values(&self, long: &str) -> &[String] {
        self.options.get(long).map_or(&[], Vec::as_slice)
    }

    /// A value that is a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>, Usage> {
        self.text(long)
            .map(|text| {
                text.parse()
                    .map_err(|_| Usage(format!("invalid value \"{text}\" for flag -{long}")))
            })
            .transpose()
    }
}

/// Reads the arguments of a verb.
pub(crate) fn parse(flags: &[Flag], until: Until, args: &[String]) -> Result<Given, Usage> {
    let mut given = Given::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let full = matches!(until, Until::Words(count) if given.words.len() >= count);
        let is_option = arg.len() > 1 && arg.starts_with('-') && !full;
        if full || arg == "--" {
            given.words.extend((arg != "--").then(|| arg.clone()));
            given.words.extend(args.cloned());
            break;
        }
        if !is_option {
            given.words.push(arg.clone());
            continue;
        }
        let name = arg.strip_prefix("--").or(arg.strip_prefix('-')).unwrap_or(arg);
        let (name, attached) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        match find(flags, name) {
            Some(flag) => take(&mut given, *flag, attached, &mut args)?,
            None => cluster(&mut given, flags, arg, &mut args)?,
        }
    }
    Ok(given)
}

fn find<'a>(flags: &'a [Flag], name: &str) -> Option<&'a Flag> {
    flags.iter().find(|flag| {
        let mut letters = name.chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        flag.long == name || (letter.is_some() && flag.short == letter)
    })
}

fn take<'a>(
    given: &mut Given,
    flag: Flag,
    attached: Option<String>,
    args: &mut impl Iterator<Item = &'a String>,
) -> Result<(), Usage> {
    let value = match (flag.takes, attached) {
        (Takes::Nothing, None) => "true".to_owned(),
        (Takes::Nothing, Some(value)) => match value.as_str() {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => "true".to_owned(),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => "false".to_owned(),
            _ => {
                let message = format!("invalid boolean value \"{value}\" for flag -{}", flag.long);
                return Err(Usage(message));
            }
        },
        (_, Some(value)) => value,
        (_, None) => match args.next() {
            Some(value) => value.clone(),
            None => return Err(Usage(format!("flag needs an argument: --{}", flag.long))),
        },
    };
    given.options.entry(flag.long).or_default().push(value);
    Ok(())
}

/// Several one-letter options after one dash (`-td`), the last of which may have its value attached (`-b/bundle`).
fn cluster<'a>(
    given: &mut Given,
    flags: &[Flag],
    arg: &str,
    args: &mut impl Iterator<Item = &'a String>,
) -> Result<(), Usage> {
    let unknown = || Usage(format!("flag provided but not defined: {arg}"));
    if arg.starts_with("--") {
        return Err(unknown());
    }
    let letters = arg.get(1..).unwrap_or_default();
    for (at, letter) in letters.char_indices() {
        let flag = flags
            .iter()
            .find(|flag| flag.short == Some(letter))
            .ok_or_else(unknown)?;
        let rest = letters.get(at + letter.len_utf8()..).unwrap_or_default();
        if flag.takes == Takes::Nothing {
            take(given, *flag, None, args)?;
            continue;
        }
        let attached = (!rest.is_empty()).then(|| rest.trim_start_matches('=').to_owned());
        return take(given, *flag, attached, args);
    }
    Ok(())
}

/// The help of a verb, or of the whole.
pub(crate) fn help(flags: &[Flag]) -> String {
    let mut text = String::new();
    for flag in flags {
        let short = flag.short.map_or(String::new(), |letter| format!(", -{letter}"));
        let takes = if flag.takes == Takes::Nothing {
            ""
        } else {
            " value"
        };
        let name = format!("--{}{short}{takes}", flag.long);
        text.push_str(&format!("   {name:<32} {}\n", flag.about));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLAGS: &[Flag] = &[
        value("bundle", Some('b'), ""),
        on("force", Some('f'), ""),
        on("tty", Some('t'), ""),
        values("env", Some('e'), ""),
    ];

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn given(line: &str) -> Given {
        parse(FLAGS, Until::End, &words(line)).unwrap()
    }

    #[test]
    fn options_stand_on_both_sides_of_the_words() {
        for line in [
            "id --bundle /b --force",
            "--bundle /b --force id",
            "-b /b id -f",
            "--bundle=/b -f=true id",
            "-bundle /b id --force",
            "-fb/b id",
            "-fb /b id",
        ] {
            let given = given(line);
            assert_eq!(given.words, ["id"], "{line}");
            assert_eq!(given.value("bundle"), Some("/b"), "{line}");
            assert!(given.is_on("force"), "{line}");
        }
        let many = given("-e A=b --env=C=d x");
        assert_eq!(many.values("env"), ["A=b", "C=d"]);
        assert!(!given("--force=false x").is_on("force"));
    }

    #[test]
    fn what_follows_the_words_belongs_to_another_program() {
        let all = words("-t id -e A=b sh -c x --force");
        let given = parse(FLAGS, Until::Words(2), &all).unwrap();
        assert_eq!(given.words, ["id", "sh", "-c", "x", "--force"]);
        assert!(!given.is_on("force") && given.is_on("tty"));
        assert_eq!(given.values("env"), ["A=b"]);
        let given = parse(FLAGS, Until::Words(2), &words("id -- -x --force")).unwrap();
        assert_eq!(given.words, ["id", "-x", "--force"]);
        let given = parse(FLAGS, Until::Words(1), &words("id -ef")).unwrap();
        assert_eq!(given.words, ["id", "-ef"]);
    }

    #[test]
    fn wrong_usage_names_the_option() {
        for (line, part) in [
            ("--nope id", "not defined: --nope"),
            ("-x id", "not defined: -x"),
            ("id --bundle", "needs an argument: --bundle"),
            ("--force=maybe", "-force"),
        ] {
            let error = parse(FLAGS, Until::End, &words(line)).unwrap_err();
            assert!(error.0.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_taken_or_refused(args in prop::collection::vec("[-=a-z]{0,6}|\\PC{0,8}", 0..8)) {
            drop(parse(FLAGS, Until::End, &args));
            drop(parse(FLAGS, Until::Words(1), &args));
        }
    }
}
