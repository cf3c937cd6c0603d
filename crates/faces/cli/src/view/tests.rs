//! Every layout against a file under `tests/golden`. To renew them: `DHOW_GOLDEN=write cargo test -p dhow-cli`.

use std::path::{Path, PathBuf};

use dhow_engine::container::{Config, Container, State};
use dhow_engine::{HistoryLine, Image, Info, NetworkView, Summary};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{container, container_json, image, network};
use crate::render::{Fields, Look, Row, inspected};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

fn golden(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("DHOW_GOLDEN").is_some() {
        std::fs::write(&path, shown).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, wanted, "differs from {}", path.display());
}

fn now() -> Timestamp {
    "2024-05-01T12:00:00Z".parse().unwrap()
}

fn show(fields: Fields, table: &[&'static str], rows: &[Row], format: Option<&str>) -> String {
    Look {
        fields,
        table,
        format,
        quiet: None,
        ..Look::default()
    }
    .show(rows)
    .unwrap()
}

fn config() -> Config {
    let mut request = serde_json::to_value(serde_json::Map::new()).unwrap();
    request["hostname"] = "0123456789ab".into();
    request["env"] = json!(["PATH=/bin", "A=b"]);
    request["limits"] = json!({"memory": 268_435_456, "nano_cpus": 500_000_000});
    serde_json::from_value(json!({
        "id": ID,
        "name": "shop",
        "created": "2024-05-01T11:55:00.123456789Z",
        "image_name": "shop:1",
        "image": format!("sha256:{OTHER}"),
        "layers": [format!("sha256:{ID}"), format!("sha256:{OTHER}")],
        "user": "www-data",
        "group_add": [],
        "request": request,
        "command": ["httpd", "-f", "-p", "80", "two words"],
        "mounts": [
            {"kind": "volume", "name": "data", "source": "/r/volumes/data/_data", "destination": "/var/lib/shop", "writable": true, "copy_up": true, "anonymous": false},
            {"kind": "bind", "name": null, "source": "/srv/a/very/long/path", "destination": "/srv", "writable": false, "copy_up": false, "anonymous": false},
            {"kind": "tmpfs", "name": null, "source": "", "destination": "/tmp", "writable": true, "copy_up": false, "anonymous": false},
        ],
        "network": "networks",
        "networks": [{"network": "bridge"}, {"network": "back", "aliases": ["db"]}],
        "ports": [{"host_port": 8080, "container_port": 80, "protocol": "tcp"}],
        "exposed": ["443/tcp", "80/tcp"],
        "dns": [], "dns_search": [], "dns_options": [], "extra_hosts": ["a:1.2.3.4"],
        "labels": {"team": "blue", "com.example.some-name": "x"},
        "restart": {"name": "on-failure", "maximum": 3},
        "stop_signal": "SIGTERM",
        "stop_timeout": 10,
        "health": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000},
        "open_stdin": false,
        "auto_remove": false,
        "log": {"driver": "local", "options": {}},
    }))
    .unwrap()
}

fn state(value: Value) -> State {
    serde_json::from_value(value).unwrap()
}

fn running() -> Container {
    let endpoint = json!({
        "format": 1, "network": "bridge", "network_id": OTHER, "device": "dhow0", "container": ID, "name": "shop",
        "aliases": [], "veth": "veth0", "interface": "eth0", "ip": "10.88.0.2", "prefix": 16, "gateway": "10.88.0.1",
        "mac": "02:d8:0a:58:00:02",
        "ports": [{"host_ip": "0.0.0.0", "host_port": 8080, "container_port": 80, "protocol": "tcp"}],
    });
    Container {
        config: config(),
        state: state(json!({
            "status": "running", "pid": 4711, "pid_start": 1, "started": "2024-05-01T11:58:00Z",
            "health": {"Status": "healthy", "FailingStreak": 0, "Log": []}, "endpoints": [endpoint],
        })),
    }
}

/// One container for each thing that a status can say.
fn all() -> Vec<Container> {
    let finished = "2024-05-01T11:59:57Z";
    let states = [
        json!({"status": "created"}),
        json!({"status": "running", "started": "2024-05-01T11:59:57Z", "health": {"Status": "starting", "FailingStreak": 0, "Log": []}}),
        json!({"status": "running", "started": "2024-05-01T10:00:00Z", "health": {"Status": "unhealthy", "FailingStreak": 3, "Log": []}}),
        json!({"status": "running", "started": "2024-05-01T11:59:00Z"}),
        json!({"status": "paused", "started": "2024-05-01T11:59:57Z"}),
        json!({"status": "restarting", "exit_code": 1, "finished": finished}),
        json!({"status": "exited", "exit_code": 0, "finished": finished}),
        json!({"status": "exited", "exit_code": 137, "finished": "2024-04-28T12:00:00Z"}),
        json!({"status": "dead"}),
    ];
    let mut containers = vec![running()];
    containers.extend(states.map(|value| Container {
        config: config(),
        state: state(value),
    }));
    containers
}

#[test]
fn ps_looks_as_dockers() {
    let rows: Vec<Row> = all()
        .iter()
        .map(|container| container::row(&container.into(), &container::own_fields(), now(), false, None))
        .collect();
    golden("ps.txt", &show(container::FIELDS, &container::TABLE, &rows, None));
    golden(
        "ps.json",
        &show(container::FIELDS, &container::TABLE, &rows[..2], Some("json")),
    );
    let mut table = container::TABLE.to_vec();
    table.push("Size");
    let whole = [container::row(
        &(&running()).into(),
        &container::own_fields(),
        now(),
        true,
        Some((2_500, 74_000_000)),
    )];
    golden(
        "ps-whole-size.txt",
        &show(container::FIELDS, &table, &whole, None),
    );
    let format = r#"table {{.Names}}\t{{.Networks}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Label "com.example.some-name"}}"#;
    golden(
        "ps-format.txt",
        &show(container::FIELDS, &container::TABLE, &rows[..1], Some(format)),
    );
}

#[test]
fn container_inspect_is_dockers_json() {
    let value = container_json::container(&running(), Path::new("/r"), None);
    golden("container-inspect.json", &inspected(&[value], None).unwrap());
    let stopped = Container {
        config: config(),
        state: state(json!({"status": "exited", "exit_code": 1})),
    };
    let value = container_json::container(&stopped, Path::new("/r"), Some((1, 2)));
    let text = inspected(&[value], Some("{{.State.Status}} {{.State.ExitCode}} {{.SizeRw}} {{.SizeRootFs}} {{json .NetworkSettings.Ports}} {{.State.StartedAt}}")).unwrap();
    assert_eq!(text, "exited 1 1 2 {} 0001-01-01T00:00:00Z\n");
}

fn summaries() -> Vec<Summary> {
    let record = json!({
        "id": format!("sha256:{ID}"), "manifest": null, "media_type": "", "created": 1_714_557_600,
        "layers": [], "size": 74_912_345, "platform": "linux/amd64", "parent": null,
    });
    let digest = format!("sha256:{OTHER}").parse().unwrap();
    let summary = |names: &[&str], digests: &[&str]| Summary {
        record: record_from(&record),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        digests: digests.iter().map(|repo| ((*repo).to_owned(), digest)).collect(),
        named_by: Vec::new(),
        dangling: names.is_empty(),
    };
    vec![
        summary(
            &["docker.io/library/debian:12", "127.0.0.1:5000/team/debian:12"],
            &["docker.io/library/debian"],
        ),
        summary(&[], &["docker.io/library/pinned"]),
        summary(&[], &[]),
    ]
}

fn record_from(value: &Value) -> dhow_engine::ImageRecord {
    dhow_engine::ImageRecord {
        id: value["id"].as_str().unwrap().parse().unwrap(),
        manifest: None,
        media_type: String::new(),
        created: value["created"].as_i64().unwrap(),
        layers: Vec::new(),
        size: value["size"].as_u64().unwrap(),
        platform: "linux/amd64".to_owned(),
        parent: None,
    }
}

#[test]
fn images_look_as_dockers() {
    let summaries = summaries();
    let rows: Vec<Row> = summaries
        .iter()
        .flat_map(image::lines)
        .map(|line| image::row(&line, now(), false))
        .collect();
    golden("images.txt", &show(image::FIELDS, &image::TABLE, &rows, None));
    golden(
        "images-digests.txt",
        &show(image::FIELDS, &image::TABLE_DIGESTS, &rows, None),
    );
    golden(
        "images.json",
        &show(image::FIELDS, &image::TABLE, &rows[..1], Some("json")),
    );
}

#[test]
fn history_looks_as_dockers() {
    let line = |id: bool, by: &str, size| HistoryLine {
        id: id.then(|| format!("sha256:{ID}").parse().unwrap()),
        created: Some("2024-05-01T10:00:00Z".to_owned()),
        created_by: by.to_owned(),
        size,
        comment: "buildkit.dockerfile.v0".to_owned(),
        names: Vec::new(),
    };
    let lines = [
        line(true, "CMD [\"httpd\"]", 0),
        line(
            false,
            "RUN /bin/sh -c apt-get update && apt-get install\t-y busybox # buildkit",
            12_345_678,
        ),
    ];
    let rows: Vec<Row> = lines
        .iter()
        .map(|line| image::history_row(line, now(), false, true))
        .collect();
    golden(
        "history.txt",
        &show(image::HISTORY, &image::HISTORY_TABLE, &rows, None),
    );
    let rows: Vec<Row> = lines
        .iter()
        .map(|line| image::history_row(line, now(), true, false))
        .collect();
    golden(
        "history-whole.txt",
        &show(image::HISTORY, &image::HISTORY_TABLE, &rows, None),
    );
}

#[test]
fn image_inspect_is_dockers_json() {
    let config = json!({
        "created": "2024-05-01T10:00:00Z", "architecture": "amd64", "os": "linux",
        "config": {
            "Env": ["PATH=/bin"], "Cmd": ["httpd"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"},
            "Healthcheck": {"Test": ["CMD", "true"]}, "WorkingDir": "/srv", "User": "33",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{ID}"), format!("sha256:{OTHER}")]},
        "history": [{"created_by": "x", "comment": "made"}],
    });
    let summary = summaries().remove(0);
    let image = Image {
        id: summary.record.id,
        record: summary.record,
        config: serde_json::from_value(config).unwrap(),
        names: summary.names,
        digests: summary.digests,
    };
    golden(
        "image-inspect.json",
        &inspected(&[image::inspect(&image, Path::new("/r"))], None).unwrap(),
    );
}

#[test]
fn networks_look_as_dockers() {
    let made: dhow_engine::Network = serde_json::from_value(json!({
        "format": 1, "id": OTHER, "name": "back", "driver": "bridge", "device": "dhow1", "created": 1_714_557_600,
        "subnets": [{"subnet": "10.77.0.0/24", "gateway": "10.77.0.1"}], "labels": {"a": "b"},
    }))
    .unwrap();
    let rows = [network::row(&made, false)];
    golden(
        "networks.txt",
        &show(network::FIELDS, &network::TABLE, &rows, None),
    );
    golden(
        "networks.json",
        &show(network::FIELDS, &network::TABLE, &rows, Some("json")),
    );
    let view = NetworkView {
        network: made,
        endpoints: running().state.endpoints,
    };
    golden(
        "network-inspect.json",
        &inspected(&[network::inspect(&view)], None).unwrap(),
    );
}

#[test]
fn info_looks_as_dockers() {
    let info = Info {
        containers: (1, 0, 2),
        images: 3,
        root: "/var/lib/dhow".to_owned(),
        kernel: "6.12.0".to_owned(),
        system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        architecture: "x86_64".to_owned(),
        cpus: 4,
        memory: 8 << 30,
        name: "host".to_owned(),
        cgroup_version: 2,
        storage: "overlay".to_owned(),
        security: vec!["seccomp".to_owned(), "apparmor".to_owned()],
        ..dhow_engine::Info::default()
    };
    golden("info.txt", &crate::cmd::info_text(&info));
}

#[test]
fn disk_use_looks_as_dockers() {
    let mut usage = dhow_engine::SystemUsage {
        containers: vec![(running(), 2_500), (all().remove(7), 1_000)],
        cache: (3, 4_096),
        ..dhow_engine::SystemUsage::default()
    };
    usage.images.layers_total = 74_000_000;
    usage.images.reclaimable = 37_000_000;
    golden("df.txt", &crate::cmd::df_text(&usage));
    golden("df-verbose.txt", &crate::cmd::df_verbose(&usage, now()));
}
