//! Logs that go on to a service: sent whole, kept here too, and blocking nobody.

use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use crate::world::{World, eventually};

fn received(server: &UdpSocket) -> String {
    let mut bytes = [0; 4096];
    let count = server.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn every_line_reaches_syslog_and_logs_shows_it_too() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = server.local_addr().unwrap();
    let flags = format!(
        "run --name app --network none --log-driver syslog --log-opt syslog-address=udp://{address} --log-opt syslog-format=rfc5424 \
         --log-opt tag={{{{.Name}}}} --log-opt syslog-facility=local0 busybox sh -c"
    );
    let mut args: Vec<&str> = flags.split_whitespace().collect();
    args.push("echo one; echo two >&2; printf three");
    world.dhow(&args).exits(0);
    let lines: Vec<String> = (0..3).map(|_| received(&server)).collect();
    let all = lines.join("");
    assert!(all.contains("<134>1 ") && all.contains(" app - one\n"), "{all}");
    assert!(all.contains("<131>1 ") && all.contains(" app - two\n"), "{all}");
    assert!(all.contains(" app - three\n"), "{all}");
    world.say("logs app").exits(0).prints("one\nthree");
    assert_eq!(world.inspect("app", "{{.HostConfig.LogConfig.Type}}"), "syslog");
    eventually("the process that sends the log ends", || {
        world.processes().is_empty()
    });
    world.clean();
}

#[test]
fn a_server_that_stops_reading_and_one_that_goes_away_block_nobody() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let begun = Instant::now();
    // More than any socket's buffers hold, to a server that takes the connection and reads nothing.
    world
        .sh(
            &format!(
                "--name loud --network none --log-driver syslog --log-opt syslog-address=tcp://{address} --log-opt max-size=100m"
            ),
            "seq 1 300000; echo done",
        )
        .exits(0);
    assert!(begun.elapsed() < Duration::from_secs(30));
    // It goes on where it stopped when the server reads again.
    let (mut stream, _) = server.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut tail = Vec::new();
    let mut bytes = vec![0; 1 << 20];
    while !tail.ends_with(b": done\n") {
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "the connection ended early");
        tail.extend_from_slice(&bytes[..count]);
        let cut = tail.len().saturating_sub(100);
        tail.drain(..cut);
    }
    world.clean();
}

#[test]
fn a_service_that_is_not_there_and_options_that_are_none_are_errors() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world
        .say(&format!(
            "run --network none --log-driver fluentd --log-opt fluentd-address={free} busybox true"
        ))
        .one_error(125)
        .says("failed to initialize logging driver");
    world
        .say(&format!(
            "run --network none --log-driver fluentd --log-opt fluentd-async=true --log-opt fluentd-address={free} busybox echo x"
        ))
        .exits(0)
        .prints("x");
    world
        .say("run --log-driver syslog --log-opt colour=red busybox true")
        .one_error(125)
        .says("unknown log opt 'colour' for syslog log driver");
    world
        .say("run --log-driver splunk busybox true")
        .one_error(125)
        .says("log driver \"splunk\" is not supported");
}
