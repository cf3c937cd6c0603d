//! Times as docker writes them.

use std::time::Duration;

use dhow_types::human_ago;
use jiff::Timestamp;

/// The time of a record, if it has a sound one.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// `2 minutes`, from then to now; a time in the future is no time ago.
pub(crate) fn since(then: Timestamp, now: Timestamp) -> String {
    human_ago(Duration::try_from(now.duration_since(then)).unwrap_or_default())
}

/// `2 minutes ago`, or nothing for a time that is none or before 1970.
pub(crate) fn ago(seconds: i64, now: Timestamp) -> String {
    match Timestamp::from_second(seconds) {
        Ok(then) if seconds > 0 => format!("{} ago", since(then, now)),
        _ => "N/A".to_owned(),
    }
}

/// `2024-01-31 12:00:00 +0000 UTC`.
pub(crate) fn long(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// A record's text in that form; itself when it is no time.
pub(crate) fn long_text(text: &str) -> String {
    parse(text).map_or_else(|| text.to_owned(), long)
}

/// What a person means by a moment: RFC 3339 with or without its end, seconds since 1970, or so long before now
/// (moby `api/types/time.GetTimestamp`).
pub(crate) fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(duration) = dhow_types::parse_duration(text) {
        return now
            .checked_sub(jiff::SignedDuration::try_from(duration).ok()?)
            .ok();
    }
    if let Some((seconds, fraction)) = text.split_once('.').or(Some((text, "0")))
        && !seconds.is_empty()
        && seconds.bytes().all(|b| b.is_ascii_digit())
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|b| b.is_ascii_digit())
    {
        let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
        return Timestamp::new(seconds.parse().ok()?, nanoseconds).ok();
    }
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    // Without a zone, and cut off at the hour, the minute or the second: UTC.
    let padded = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        13 => format!("{text}:00:00Z"),
        16 => format!("{text}:00Z"),
        _ => format!("{text}Z"),
    };
    padded.parse().ok()
}

/// In the form of the log's records, so that the two compare as texts.
pub(crate) fn log_form(time: Timestamp) -> String {
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_of_a_moment_is_understood() {
        let now = at("2024-05-01T12:00:00Z");
        for (text, expected) in [
            ("10m", "2024-05-01T11:50:00Z"),
            ("1h30m", "2024-05-01T10:30:00Z"),
            ("1714557600", "2024-05-01T10:00:00Z"),
            ("1714557600.5", "2024-05-01T10:00:00.5Z"),
            ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
            ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00Z"),
            ("2024-05-01T10:00:00", "2024-05-01T10:00:00Z"),
            ("2024-05-01T10:00", "2024-05-01T10:00:00Z"),
            ("2024-05-01", "2024-05-01T00:00:00Z"),
        ] {
            assert_eq!(moment(text, now), Some(at(expected)), "{text}");
        }
        for bad in [
            "",
            "yesterday",
            "10",
            "10x",
            "-5m",
            "1714557600.1234567890",
            "2024-13-01",
        ] {
            // A bare number is seconds since 1970.
            assert_eq!(moment(bad, now).is_none(), bad != "10", "{bad}");
        }
    }

    #[test]
    fn times_print_as_docker_prints_them() {
        assert_eq!(
            long(at("2024-05-01T10:00:00.5Z")),
            "2024-05-01 10:00:00 +0000 UTC"
        );
        assert_eq!(
            log_form(at("2024-05-01T10:00:00.5Z")),
            "2024-05-01T10:00:00.500000000Z"
        );
        assert_eq!(
            ago(at("2024-05-01T09:58:00Z").as_second(), at("2024-05-01T10:00:00Z")),
            "2 minutes ago"
        );
        assert_eq!(ago(0, at("2024-05-01T10:00:00Z")), "N/A");
    }
}
