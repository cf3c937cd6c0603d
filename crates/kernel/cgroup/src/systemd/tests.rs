use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::Duration;

use dhow_oci::runtime::{CpuLimit, DeviceRule, MemoryLimit, PidsLimit};
use proptest::prelude::*;

use super::property;
use super::wire::{self, Call, FIXED, Kind, Message, Writer};
use super::*;

/// A message of the fake bus: its kind, the call that it answers, and its body.
fn message(kind: u8, reply_to: u32, text_fields: &[(u8, &str)], signature: &str, body: &Writer) -> Vec<u8> {
    let mut out = Writer {
        bytes: vec![b'l', kind, 0, 1],
    };
    out.u32(u32::try_from(body.bytes.len()).unwrap());
    out.u32(1);
    out.array(8, |out| {
        if reply_to != 0 {
            out.align(8);
            out.bytes.push(5);
            out.signature("u");
            out.u32(reply_to);
        }
        for (code, text) in text_fields {
            out.align(8);
            out.bytes.push(*code);
            out.signature("s");
            out.text(text);
        }
        out.align(8);
        out.bytes.push(8);
        out.signature("g");
        out.signature(signature);
    });
    out.align(8);
    out.bytes.extend(&body.bytes);
    out.bytes
}

fn job_removed(job: &str, result: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(7);
    body.text(job);
    body.text("x.scope");
    body.text(result);
    message(4, 0, &[(3, "JobRemoved")], "uoss", &body)
}

fn answer(serial: u32, text: Option<&str>) -> Vec<u8> {
    let mut body = Writer::default();
    text.into_iter().for_each(|text| body.text(text));
    message(2, serial, &[], if text.is_some() { "s" } else { "" }, &body)
}

fn refusal(serial: u32, name: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.text("no");
    message(3, serial, &[(4, name)], "s", &body)
}

/// Reads one call: its serial, member and texts.
fn call(stream: &mut UnixStream) -> Option<(u32, String, Vec<Value>)> {
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).ok()?;
    let mut bytes = fixed.to_vec();
    bytes.resize(wire::length(&fixed).unwrap(), 0);
    stream.read_exact(&mut bytes[FIXED..]).ok()?;
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.kind, Kind::Other);
    let serial = u32::from_le_bytes(fixed[8..12].try_into().unwrap());
    let arguments = message.arguments().unwrap();
    Some((serial, message.member, arguments))
}

/// A bus whose answers `reply` makes; it ends with the members that were called.
fn fake(
    shared: bool,
    mut reply: impl FnMut(u32, &str) -> Vec<u8> + Send + 'static,
) -> (Bus, JoinHandle<Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let expect = |stream: &mut std::os::unix::net::UnixStream, hello: &str| {
            let mut said = vec![0; hello.len()];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(said, hello.as_bytes());
        };
        if crate::create::in_user_namespace() {
            expect(&mut stream, "\0AUTH EXTERNAL\r\n");
            stream.write_all(b"DATA\r\n").unwrap();
            expect(&mut stream, "DATA\r\n");
        } else {
            let uid = rustix::process::geteuid().as_raw().to_string();
            let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
            expect(&mut stream, &format!("\0AUTH EXTERNAL {hex}\r\n"));
        }
        stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
        let mut begin = [0; 7];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"BEGIN\r\n");
        let mut called = Vec::new();
        while let Some((serial, member, _)) = call(&mut stream) {
            let bytes = match member.as_str() {
                "Hello" => answer(serial, Some(":1.5")),
                "AddMatch" | "Subscribe" => answer(serial, None),
                other => reply(serial, other),
            };
            called.push(member);
            // The client may have gone after an answer that it did not like.
            if stream.write_all(&bytes).is_err() {
                break;
            }
        }
        called
    });
    let mut bus = Bus::at(&path, shared).unwrap();
    bus.set_patience(Duration::from_secs(5));
    (bus, server)
}

fn unit() -> Unit {
    Unit::parse(Some("a-b.slice:dhow:x"), "id", false).unwrap()
}

#[test]
fn a_unit_is_started_when_its_job_is_done_even_if_that_is_said_before_the_answer() {
    for early in [false, true] {
        let (mut bus, server) = fake(true, move |serial, member| {
            assert_eq!(member, "StartTransientUnit");
            let (answer, end) = (answer(serial, Some("/job/1")), job_removed("/job/1", "done"));
            let other = job_removed("/job/2", "failed");
            let order = if early {
                [other, end, answer]
            } else {
                [answer, other, end]
            };
            order.concat()
        });
        unit().launch(&mut bus, &unit().birth(1)).unwrap();
        drop(bus);
        let called = server.join().unwrap();
        assert_eq!(called, ["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]);
    }
}

#[test]
fn a_job_that_fails_is_an_error_and_the_unit_is_reset() {
    let (mut bus, server) = fake(false, |serial, member| match member {
        "StartTransientUnit" => [answer(serial, Some("/job/1")), job_removed("/job/1", "failed")].concat(),
        _ => answer(serial, None),
    });
    let error = unit().launch(&mut bus, &[]).unwrap_err();
    assert!(error.to_string().contains("got `failed`"), "{error}");
    drop(bus);
    let called = server.join().unwrap();
    // A private socket knows neither Hello nor AddMatch.
    assert_eq!(called, ["Subscribe", "StartTransientUnit", "ResetFailedUnit"]);
}

#[test]
fn the_rest_of_a_failed_unit_of_the_same_name_is_reset_once() {
    let mut tries = 0;
    let (mut bus, server) = fake(false, move |serial, member| match member {
        "StartTransientUnit" if tries == 0 => {
            tries += 1;
            refusal(serial, "org.freedesktop.systemd1.UnitExists")
        }
        "StartTransientUnit" => [answer(serial, Some("/job/1")), job_removed("/job/1", "done")].concat(),
        _ => answer(serial, None),
    });
    unit().launch(&mut bus, &[]).unwrap();
    drop(bus);
    assert_eq!(server.join().unwrap().len(), 4);
    let (mut bus, server) = fake(false, |serial, member| match member {
        "StartTransientUnit" => refusal(serial, "org.freedesktop.systemd1.UnitExists"),
        _ => refusal(serial, "org.freedesktop.systemd1.NoSuchUnit"),
    });
    assert_eq!(
        unit().launch(&mut bus, &[]).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let gone = bus.stop("x.scope").unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    drop(bus);
    server.join().unwrap();
}

#[test]
fn the_group_of_a_user_is_below_that_of_the_users_systemd() {
    let (mut bus, server) = fake(true, |serial, member| {
        assert_eq!(member, "Get");
        let mut body = Writer::default();
        body.signature("s");
        body.text("/user.slice/user-7.slice/user@7.service");
        message(2, serial, &[], "v", &body)
    });
    let unit = Unit::parse(None, "id", true).unwrap();
    let path = unit.path(&mut bus).unwrap();
    assert_eq!(
        path,
        Path::new("/user.slice/user-7.slice/user@7.service/user.slice/runc-id.scope")
    );
    drop(bus);
    server.join().unwrap();
}

#[test]
fn a_bus_that_goes_away_or_sends_what_is_no_message_is_an_error() {
    let (mut bus, server) = fake(false, |_, _| b"this is not a message at all".to_vec());
    assert_eq!(bus.reset_failed("x").unwrap_err().kind(), ErrorKind::DataLoss);
    drop(bus);
    server.join().unwrap();
    let (mut bus, server) = fake(false, |_, _| Vec::new());
    bus.set_patience(Duration::from_millis(50));
    assert_eq!(bus.reset_failed("x").unwrap_err().kind(), ErrorKind::Unavailable);
    drop(bus);
    server.join().unwrap();
    let missing = Bus::at(Path::new("/nonexistent/bus"), true).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::FailedPrecondition);
    for bad in ["tcp:host=x", "unix:", "unix:path=%zz", "", "unix:dir=/x"] {
        assert_eq!(
            Bus::user(bad).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
    }
}

#[test]
fn names_of_units_and_slices_are_checked() {
    let parse = |path: &str| Unit::parse(Some(path), "id", false);
    assert_eq!(unit().name(), "dhow-x.scope");
    assert_eq!(unit().slice, "a-b.slice");
    assert_eq!(expand("a-b.slice").unwrap(), "/a.slice/a-b.slice");
    assert_eq!(expand("-.slice").unwrap(), "/");
    assert_eq!(parse("::x.slice").unwrap().name(), "x.slice");
    assert_eq!(parse("").unwrap().name(), "runc-id.scope");
    assert!(
        parse("/a/b")
            .unwrap_err()
            .to_string()
            .contains("slice:prefix:name")
    );
    for bad in [
        "a:b",
        "a.slice:p:n/..",
        "a--b.slice:p:n",
        "../x.slice:p:n",
        ".slice:p:n",
        "x:p:n",
        "a.slice:p:n\n",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_version("v257.4-1.fc42"), Some(257));
    assert_eq!(parse_version("\"v245\""), Some(245));
    assert_eq!(parse_version("next"), None);
}

#[test]
fn limits_become_properties() {
    let resources = Resources {
        memory: Some(MemoryLimit {
            limit: Some(64 << 20),
            swap: Some(64 << 20),
            ..MemoryLimit::default()
        }),
        cpu: Some(CpuLimit {
            shares: Some(1024),
            quota: Some(12_345),
            period: Some(100_000),
            cpus: Some("0-1,9".to_owned()),
            ..CpuLimit::default()
        }),
        pids: Some(PidsLimit { limit: Some(0) }),
        devices: vec![
            DeviceRule::default(),
            DeviceRule {
                allow: true,
                kind: Some("c".to_owned()),
                major: Some(1),
                minor: Some(3),
                access: Some("rw".to_owned()),
            },
        ],
        unified: [("memory.high".to_owned(), "max".to_owned())].into(),
        ..Resources::default()
    };
    let found = property::limits(&resources, 252).unwrap();
    let get = |name: &str| {
        found
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(get("MemoryMax"), Some(Value::U64(64 << 20)));
    assert_eq!(get("MemorySwapMax"), Some(Value::U64(0)));
    assert_eq!(get("MemoryHigh"), Some(Value::U64(u64::MAX)));
    assert_eq!(get("CPUWeight"), Some(Value::U64(100)));
    // 12.345 % of a CPU, in whole percents.
    assert_eq!(get("CPUQuotaPerSecUSec"), Some(Value::U64(130_000)));
    assert_eq!(get("CPUQuotaPeriodUSec"), Some(Value::U64(100_000)));
    assert_eq!(get("AllowedCPUs"), Some(Value::Bytes(vec![3, 2])));
    assert_eq!(get("TasksMax"), Some(Value::U64(1)));
    assert_eq!(get("DevicePolicy"), Some(Value::Text("strict".to_owned())));
    let allowed = Value::Pairs(vec![("/dev/char/1:3".to_owned(), "rw".to_owned())]);
    assert_eq!(get("DeviceAllow"), Some(allowed));
    assert!(
        property::bits("5-1").is_err()
            && property::bits("0-99999999").is_err()
            && property::bits(",").is_err()
    );
}

#[test]
fn annotations_become_properties() {
    let one = |name: &str, text: &str| {
        let annotations = [(format!("org.systemd.property.{name}"), text.to_owned())].into();
        from_annotations(&annotations).map(|mut found| found.pop().unwrap())
    };
    let is = |name: &str, value| (name.to_owned(), value);
    assert_eq!(
        one("TimeoutStopUSec", "uint64 5").unwrap(),
        is("TimeoutStopUSec", Value::U64(5))
    );
    assert_eq!(
        one("TimeoutStopSec", "1.5").unwrap(),
        is("TimeoutStopUSec", Value::U64(1_500_000))
    );
    assert_eq!(
        one("CollectMode", "'inactive-or-failed'").unwrap(),
        is("CollectMode", Value::Text("inactive-or-failed".to_owned()))
    );
    assert_eq!(
        one("After", "['a.service', \"b\\\"\"]").unwrap(),
        is(
            "After",
            Value::Texts(vec!["a.service".to_owned(), "b\"".to_owned()])
        )
    );
    assert_eq!(
        one("SendSIGHUP", "true").unwrap(),
        is("SendSIGHUP", Value::Bool(true))
    );
    assert_eq!(
        one("Numbers", "@au [1, 0x10]").unwrap(),
        is("Numbers", Value::Numbers(vec![1, 16]))
    );
    for (name, text) in [
        ("ab", "true"),
        ("Bad-Name", "true"),
        ("Foo", "'open"),
        ("FooSec", "'x'"),
        ("Foo", "[1,"),
    ] {
        let error = one(name, text).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let other = [("org.example".to_owned(), "x".to_owned())].into();
    assert!(from_annotations(&other).unwrap().is_empty());
}

fn sample() -> Vec<u8> {
    let mut body = Writer::default();
    body.text("x.scope");
    body.properties(&unit().birth(5));
    let call = Call {
        path: "/a",
        interface: "b.c",
        member: "D",
        destination: Some("e.f"),
        signature: "sa(sv)",
        body,
    };
    call.encode(9).unwrap()
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(fixed) = <[u8; FIXED]>::try_from(bytes.get(..FIXED).unwrap_or_default()) {
            prop_assert!(wire::length(&fixed).map_or(true, |length| length <= wire::MOST_BYTES));
        }
        if let Ok(message) = Message::decode(&bytes) {
            drop(message.arguments());
        }
    }

    #[test]
    fn a_damaged_message_does_no_harm(at in 0_usize..200, with in any::<u8>(), cut in 0_usize..300) {
        let mut bytes = sample();
        let at = at % bytes.len();
        bytes[at] = with;
        bytes.truncate(bytes.len().saturating_sub(cut % 7));
        if let Ok(message) = Message::decode(&bytes) {
            drop(message.arguments());
        }
    }

    #[test]
    fn any_text_of_an_annotation_is_a_value_or_refused(text in "[ -~]{0,60}") {
        let annotations = [("org.systemd.property.Foo".to_owned(), text)].into();
        drop(from_annotations(&annotations));
    }
}

#[test]
fn what_is_written_can_be_read() {
    let bytes = sample();
    assert_eq!(
        wire::length(bytes[..FIXED].try_into().unwrap()).unwrap(),
        bytes.len()
    );
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.member, "D");
    assert_eq!(message.arguments().unwrap(), [Value::Text("x.scope".to_owned())]);
}

#[test]
fn a_quota_is_told_with_its_period_and_written_as_systemd_keeps_it() {
    let settled = |quota, period, now: &str| {
        let cpu = CpuLimit {
            quota,
            period,
            ..CpuLimit::default()
        };
        let resources = Resources {
            cpu: Some(cpu),
            ..Resources::default()
        };
        let cpu = property::settled(&resources, now).cpu.unwrap();
        (cpu.quota, cpu.period)
    };
    // The period alone, of a group with a quota: 555,556 µs of a second are 56 %.
    let after = settled(None, Some(900_000), "500000 1000000");
    assert_eq!(after, (Some(504_000), Some(900_000)));
    assert_eq!(
        settled(Some(600_000), None, "504000 900000"),
        (Some(603_000), Some(900_000))
    );
    assert_eq!(
        settled(Some(-1), None, "603000 900000"),
        (Some(-1), Some(900_000))
    );
    assert_eq!(
        settled(None, Some(50_000), "max 100000"),
        (Some(-1), Some(50_000))
    );
    assert_eq!(settled(Some(30_000), None, ""), (Some(30_000), Some(100_000)));
    assert_eq!(settled(None, None, "30000 100000"), (None, None));
    // What cannot be right is for the kernel to refuse.
    assert_eq!(
        settled(Some(i64::MAX), Some(1), "what?"),
        (Some(18_446_744_073_709), Some(1))
    );
}
