//! The messages of CRIU's service (`images/rpc.proto` of the CRIU project, protocol buffers version 2): those fields that a
//! runtime needs.

/// What is asked for, `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
}

impl Kind {
    /// The name that runc's clients see in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::FeatureCheck => "FEATURE_CHECK",
        }
    }

    const fn number(self) -> u64 {
        self as u64
    }
}

/// A message that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    pub(crate) fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// A switch that is on; one that is off is left out, as that is what it is by default.
    pub(crate) fn flag(&mut self, field: u32, on: bool) -> &mut Self {
        if on {
            self.number(field, 1);
        }
        self
    }

    pub(crate) fn text(&mut self, field: u32, text: impl AsRef<[u8]>) -> &mut Self {
        let bytes = text.as_ref();
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn message(&mut self, field: u32, message: &Self) -> &mut Self {
        self.text(field, &message.0)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A request with its options.
pub(crate) fn request(kind: Kind, options: Option<&Message>) -> Message {
    let mut request = Message::default();
    request.number(1, kind.number());
    if let Some(options) = options {
        request.message(2, options);
    }
    if kind == Kind::FeatureCheck {
        let mut features = Message::default();
        features.flag(1, true).flag(2, true);
        request.message(5, &features);
    }
    request
}

/// The answer to a notification.
pub(crate) fn heard() -> Message {
    let mut answer = Message::default();
    answer.number(1, Kind::Notify.number()).flag(3, true);
    answer
}

/// What CRIU said, `criu_resp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) kind: u64,
    pub(crate) success: bool,
    pub(crate) errno: i32,
    pub(crate) message: String,
    /// The name of a notification.
    pub(crate) script: String,
    /// The process that a notification is about.
    pub(crate) pid: i32,
    /// Whether memory that was written can be told from other.
    pub(crate) tracks_memory: bool,
    /// Whether memory can follow after the processes.
    pub(crate) lazy_pages: bool,
}

impl Response {
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.kind == kind.number()
    }

    /// Reads a message; none for what is not one. Fields that are not known are passed over.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut response = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(kind)) => response.kind = kind,
                (2, Value::Number(success)) => response.success = success != 0,
                (7, Value::Number(errno)) => response.errno = integer(errno),
                (9, Value::Bytes(text)) => response.message = String::from_utf8_lossy(text).into_owned(),
                (5, Value::Bytes(notify)) => {
                    for field in Fields(notify) {
                        match field? {
                            (1, Value::Bytes(name)) => {
                                response.script = String::from_utf8_lossy(name).into_owned();
                            }
                            (2, Value::Number(pid)) => response.pid = integer(pid),
                            _ => {}
                        }
                    }
                }
                (8, Value::Bytes(features)) => {
                    for field in Fields(features) {
                        match field? {
                            (1, Value::Number(on)) => response.tracks_memory = on != 0,
                            (2, Value::Number(on)) => response.lazy_pages = on != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Some(response)
    }
}

/// An `int32`, which travels as 64 bits with its sign.
fn integer(value: u64) -> i32 {
    i32::try_from(value.cast_signed()).unwrap_or(-1)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width: no field that is read here.
    Fixed,
}

/// The fields of a message; none in place of one that is cut off.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let count = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(count)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_has_the_bytes_of_the_protocol() {
        let mut options = Message::default();
        options
            .number(1, 300)
            .flag(3, true)
            .flag(4, false)
            .text(10, "a.log");
        let request = request(Kind::Dump, Some(&options));
        let inner = b"\x08\xac\x02\x18\x01\x52\x05a.log";
        let mut wanted = b"\x08\x01\x12\x0c".to_vec();
        wanted.extend_from_slice(inner);
        assert_eq!(request.bytes(), wanted);
        assert_eq!(heard().bytes(), b"\x08\x06\x18\x01");
        assert_eq!(
            super::request(Kind::FeatureCheck, None).bytes(),
            b"\x08\x09\x2a\x04\x08\x01\x10\x01"
        );
    }

    #[test]
    fn a_notification_and_a_failure_are_understood() {
        let notify = b"\x08\x06\x10\x01\x2a\x08\x0a\x03abc\x10\xac\x02";
        // The last byte of the length counts both fields: name (5) and process id (3).
        let response = Response::parse(notify).unwrap();
        assert!(response.is(Kind::Notify) && response.success);
        assert_eq!((response.script.as_str(), response.pid), ("abc", 300));
        let failed = b"\x08\x01\x10\x00\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x4a\x02no\x99\x01abcdefgh\x9d\x01abcd";
        let response = Response::parse(failed).unwrap();
        assert!(response.is(Kind::Dump) && !response.success);
        assert_eq!((response.errno, response.message.as_str()), (-1, "no"));
        for wrong in [
            &b"\x08"[..],
            b"\x0a\x05abc",
            b"\x0b",
            b"\x2a\x02\x0a\x09",
            &[0xff; 11],
        ] {
            assert_eq!(Response::parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Response::parse(&bytes));
        }

        #[test]
        fn what_is_written_is_read(script in "[a-z-]{0,20}", pid in 0_i32.., success: bool) {
            let mut notify = Message::default();
            notify.text(1, &script).number(2, u64::try_from(pid).unwrap());
            let mut message = Message::default();
            message.number(1, 6).flag(2, success).message(5, &notify);
            let response = Response::parse(message.bytes()).unwrap();
            prop_assert_eq!((response.script, response.pid, response.success), (script, pid, success));
        }
    }
}
