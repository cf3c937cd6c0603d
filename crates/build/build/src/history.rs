//! The texts of an image's history, as docker writes them.

use std::fmt::Write as _;
use std::time::Duration;

use dhow_dockerfile::Pair;
use dhow_oci::Healthcheck;

/// `ENV a=b c=d`.
pub(crate) fn pairs(keyword: &str, pairs: &[Pair]) -> String {
    let mut text = keyword.to_owned();
    for pair in pairs {
        text.push(' ');
        text.push_str(&pair.key);
        text.push('=');
        text.push_str(&pair.value);
    }
    text
}

/// Go's `%v` of a list: `EXPOSE [80/tcp 443/tcp]`.
pub(crate) fn list<S: AsRef<str>>(keyword: &str, words: &[S]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    format!("{keyword} [{}]", words.join(" "))
}

/// Go's `%q` of a list: `CMD ["/bin/sh" "-c" "x"]`.
pub(crate) fn quoted(keyword: &str, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("{keyword} [{}]", words.join(" "))
}

fn quote(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 2);
    out.push('"');
    for c in word.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\x7f' => {
                // Writing to a string cannot fail.
                write!(out, "\\x{:02x}", u32::from(c)).unwrap_or_default();
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `RUN |2 a=b c= /bin/sh -c make # buildkit`.
pub(crate) fn run(args: &[(String, Option<String>)], command: &[String]) -> String {
    let mut words = Vec::new();
    if !args.is_empty() {
        words.push(format!("|{}", args.len()));
        words.extend(
            args.iter()
                .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or_default())),
        );
    }
    words.extend_from_slice(command);
    format!("RUN {} # buildkit", words.join(" "))
}

/// Go's `%+v` of the struct.
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    let time = |nanoseconds: u64| go_duration(Duration::from_nanos(nanoseconds));
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        check.retries
    )
}

/// `time.Duration.String`: `1m30s`, `1.5s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let decimal = |unit: u128, name: &str| {
        let (whole, rest) = (nanoseconds / unit, nanoseconds % unit);
        if rest == 0 {
            return format!("{whole}{name}");
        }
        let digits = unit.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        format!("{whole}.{}{name}", fraction.trim_end_matches('0'))
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let (minutes, hours) = (duration.as_secs() / 60 % 60, duration.as_secs() / 3600);
            let rest = Duration::new(duration.as_secs() % 60, duration.subsec_nanos());
            let seconds = match rest.subsec_nanos() {
                0 => rest.as_secs().to_string(),
                part => {
                    let fraction = format!("{part:09}");
                    format!("{}.{}", rest.as_secs(), fraction.trim_end_matches('0'))
                }
            };
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_docker() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            quoted("CMD", &words(&["/bin/sh", "-c", "echo \"a\"\n"])),
            r#"CMD ["/bin/sh" "-c" "echo \"a\"\n"]"#
        );
        assert_eq!(quoted("ENTRYPOINT", &[]), "ENTRYPOINT []");
        assert_eq!(list("VOLUME", &["/a", "/b"]), "VOLUME [/a /b]");
        let args = [("A".to_owned(), Some("b".to_owned())), ("C".to_owned(), None)];
        assert_eq!(
            run(&args, &words(&["/bin/sh", "-c", "x"])),
            "RUN |2 A=b C= /bin/sh -c x # buildkit"
        );
        assert_eq!(run(&[], &words(&["x"])), "RUN x # buildkit");
        let check = Healthcheck {
            test: words(&["CMD-SHELL", "curl x"]),
            interval: 90_000_000_000,
            timeout: 1_500_000_000,
            start_period: 500_000_000,
            start_interval: 0,
            retries: 3,
        };
        assert_eq!(
            healthcheck(&check),
            "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:1m30s Timeout:1.5s StartPeriod:500ms StartInterval:0s Retries:3}"
        );
    }
}
