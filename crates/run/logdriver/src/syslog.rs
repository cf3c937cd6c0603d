//! Syslog: RFC 5424, RFC 3164 and the local form, over datagrams, streams and TLS (moby `daemon/logger/syslog`).

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::connection::{Address, Connection, Tls};
use crate::options::{bad, known, switch, tag};
use crate::{Entry, Error, Facts, Options, Sink};

const OPTIONS: &[&str] = &[
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];
const SCHEMES: &[&str] = &["udp", "tcp", "tcp+tls", "unix", "unixgram"];
/// Where the host's own is, for those who name no address: the first that answers (Go `log/syslog`).
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const PORT: u16 = 514;

/// Facilities by their numbers (RFC 5424, 6.2.1); 12 to 15 have no names there.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const ERROR: u8 = 3;
const INFO: u8 = 6;

/// How a message looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Local,
    Rfc3164,
    Rfc5424 { micro: bool },
}

/// The options.
#[derive(Debug)]
pub(crate) struct Settings {
    address: Option<Address>,
    facility: u8,
    format: Format,
    tls: Tls,
    tag: String,
}

impl Settings {
    pub(crate) fn read(options: &Options, facts: &Facts) -> Result<Self, Error> {
        known("syslog", options, OPTIONS)?;
        let option = |name: &str| options.get(name).filter(|text| !text.is_empty());
        let address = option("syslog-address")
            .map(|text| Address::parse("syslog-address", text, SCHEMES, PORT))
            .transpose()?;
        let facility = match option("syslog-facility") {
            None => 3,
            Some(text) => facility(text).ok_or_else(|| {
                bad(
                    "syslog-facility",
                    text,
                    "it is a name as daemon, or a number up to 23",
                )
            })?,
        };
        let format = match option("syslog-format").map(String::as_str) {
            None => Format::Local,
            Some("rfc3164") => Format::Rfc3164,
            Some("rfc5424") => Format::Rfc5424 { micro: false },
            Some("rfc5424micro") => Format::Rfc5424 { micro: true },
            Some(other) => {
                return Err(bad(
                    "syslog-format",
                    other,
                    "it is rfc3164, rfc5424 or rfc5424micro",
                ));
            }
        };
        let path = |name: &str| option(name).map(Into::into);
        Ok(Self {
            address,
            facility,
            format,
            tls: Tls {
                authority: path("syslog-tls-ca-cert"),
                certificate: path("syslog-tls-cert"),
                key: path("syslog-tls-key"),
                skip_verify: switch(options, "syslog-tls-skip-verify")?,
            },
            tag: tag(options, facts, "{{.ID}}")?,
        })
    }

    fn connect(&self) -> Result<Connection, Error> {
        if let Some(address) = &self.address {
            return Connection::open(address, &self.tls);
        }
        let places = LOCAL.map(|path| Address::Datagram(path.into()));
        let found = places
            .iter()
            .find_map(|place| Connection::open(place, &self.tls).ok());
        found.map_or_else(
            || Connection::open(&Address::Unix(LOCAL[0].into()), &self.tls),
            Ok,
        )
    }
}

fn facility(text: &str) -> Option<u8> {
    let by_name = FACILITIES.iter().position(|name| *name == text);
    let number = by_name.or_else(|| text.parse().ok().filter(|number| *number < FACILITIES.len()))?;
    u8::try_from(number).ok()
}

/// A connection to a syslog server.
pub(crate) struct Syslog {
    settings: Settings,
    connection: Connection,
    hostname: String,
    pid: u32,
}

impl Syslog {
    pub(crate) fn open(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            connection: settings.connect()?,
            settings,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
        })
    }

    fn message(&self, entry: &Entry<'_>) -> Vec<u8> {
        let severity = if entry.stderr { ERROR } else { INFO };
        let priority = self.settings.facility * 8 + severity;
        let (tag, pid, host) = (&self.settings.tag, self.pid, &self.hostname);
        let mut text = match self.settings.format {
            Format::Local => format!("<{priority}>{} {tag}[{pid}]: ", stamp(entry.time)),
            Format::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", stamp(entry.time)),
            Format::Rfc5424 { micro } => {
                let time = Moment::of(entry.time).rfc3339(micro);
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
        }
        .into_bytes();
        text.extend_from_slice(entry.line);
        text.push(b'\n');
        let framed = matches!(self.settings.format, Format::Rfc5424 { .. })
            && matches!(self.settings.address, Some(Address::Tls(_)));
        if framed {
            // RFC 5425, 4.3.
            let mut whole = format!("{} ", text.len()).into_bytes();
            whole.append(&mut text);
            return whole;
        }
        text
    }
}

impl Sink for Syslog {
    fn send(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let message = self.message(entry);
        self.connection.send(&message)
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Jan  2 15:04:05`, in UTC.
fn stamp(time: SystemTime) -> String {
    let moment = Moment::of(time);
    let month = MONTHS[usize::from(moment.month - 1) % 12];
    let (hour, minute, second) = moment.clock();
    format!("{month} {:2} {hour:02}:{minute:02}:{second:02}", moment.day)
}

/// A time in UTC by the calendar.
pub(crate) struct Moment {
    year: u64,
    month: u8,
    day: u8,
    second_of_day: u64,
    micros: u32,
}

impl Moment {
    /// Days to a date by Howard Hinnant's `civil_from_days`.
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let shifted = since.as_secs() / 86_400 + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day_of_year - (153 * from_march + 2) / 5 + 1).unwrap_or(1),
            second_of_day: since.as_secs() % 86_400,
            micros: since.subsec_micros(),
        }
    }

    fn clock(&self) -> (u64, u64, u64) {
        let seconds = self.second_of_day;
        (seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    /// `2024-01-31T12:00:00Z`, with six digits of a second or none.
    pub(crate) fn rfc3339(&self, micro: bool) -> String {
        let (hour, minute, second) = self.clock();
        let fraction = if micro {
            format!(".{:06}", self.micros)
        } else {
            String::new()
        };
        format!(
            "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z",
            self.year, self.month, self.day
        )
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    fn sent(format: &[(&str, &str)], stderr: bool) -> String {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = format!("udp://{}", server.local_addr().unwrap());
        let mut options: Options = format
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        options.insert("syslog-address".to_owned(), address);
        let facts = Facts {
            id: "0123456789abcdef".to_owned(),
            ..Facts::default()
        };
        let mut sink = crate::open("syslog", &options, &facts).unwrap();
        let time = UNIX_EPOCH + Duration::new(1_706_702_405, 123_456_000);
        let entry = Entry {
            time,
            stderr,
            line: b"a line",
            partial: false,
        };
        sink.send(&entry).unwrap();
        let mut bytes = [0; 1024];
        let count = server.recv(&mut bytes).unwrap();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        String::from_utf8(bytes[..count].to_vec())
            .unwrap()
            .replace(&format!(" {host} "), " HOST ")
            .replace(&std::process::id().to_string(), "PID")
    }

    #[test]
    fn messages_have_the_forms_of_the_standards() {
        assert_eq!(
            sent(&[], false),
            "<30>Jan 31 12:00:05 0123456789ab[PID]: a line\n"
        );
        assert_eq!(
            sent(
                &[
                    ("syslog-format", "rfc3164"),
                    ("syslog-facility", "local7"),
                    ("tag", "t")
                ],
                true
            ),
            "<187>Jan 31 12:00:05 HOST t[PID]: a line\n"
        );
        assert_eq!(
            sent(
                &[
                    ("syslog-format", "rfc5424"),
                    ("syslog-facility", "1"),
                    ("tag", "t")
                ],
                false
            ),
            "<14>1 2024-01-31T12:00:05Z HOST t PID t - a line\n"
        );
        assert_eq!(
            sent(&[("syslog-format", "rfc5424micro"), ("tag", "t")], false),
            "<30>1 2024-01-31T12:00:05.123456Z HOST t PID t - a line\n"
        );
    }

    #[test]
    fn what_is_no_facility_or_format_is_an_error() {
        for (name, value) in [
            ("syslog-facility", "24"),
            ("syslog-facility", "none"),
            ("syslog-format", "x"),
        ] {
            let options = [(name.to_owned(), value.to_owned())].into();
            assert!(crate::check("syslog", &options).is_err(), "{name}={value}");
        }
    }
}
