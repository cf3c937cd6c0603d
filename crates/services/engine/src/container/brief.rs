//! What lists show of a container: its record without how its program runs, which is most of it.

use dhow_monitor::RestartPolicy;
use dhow_network::PortMapping;
use dhow_oci::Labels;
use dhow_types::{ContainerId, DiffId, ImageId, Platform};
use serde::{Deserialize, Serialize};

use super::folder::Container;
use super::record::{Attachment, Config, MountRecord, NetworkMode};

/// A container as lists have it.
pub type Listed = Container<Brief>;

/// A part of [`Config`], whose fields are explained there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the field of the same name of Config")]
pub struct Brief {
    pub id: ContainerId,
    pub name: String,
    pub created: String,
    pub image_name: String,
    pub image: ImageId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    pub layers: Vec<DiffId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountRecord>,
    pub network: NetworkMode,
    pub networks: Vec<Attachment>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    pub restart: RestartPolicy,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_remove: bool,
    #[serde(default, skip_serializing_if = "BriefExtras::is_usual")]
    pub extras: BriefExtras,
}

/// A part of [`super::Extras`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each is the field of the same name of Extras")]
pub struct BriefExtras {
    pub pod: Option<String>,
    pub infra: bool,
}

impl BriefExtras {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&Container> for Listed {
    fn from(container: &Container) -> Self {
        let config = container.config.clone();
        let extras = BriefExtras {
            pod: config.extras.pod,
            infra: config.extras.infra,
        };
        Self {
            config: Brief {
                id: config.id,
                name: config.name,
                created: config.created,
                image_name: config.image_name,
                image: config.image,
                platform: config.platform,
                layers: config.layers,
                entrypoint: config.entrypoint,
                command: config.command,
                mounts: config.mounts,
                network: config.network,
                networks: config.networks,
                ports: config.ports,
                exposed: config.exposed,
                labels: config.labels,
                restart: config.restart,
                auto_remove: config.auto_remove,
                extras,
            },
            state: container.state.clone(),
        }
    }
}

/// A container's record, or what is read of it.
pub(super) trait Record {
    /// When the container was created: RFC 3339, so that texts sort as times.
    fn created(&self) -> &str;
}

impl Record for Config {
    fn created(&self) -> &str {
        &self.created
    }
}

impl Record for Brief {
    fn created(&self) -> &str {
        &self.created
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::folder::Containers;
    use super::super::record::{State, Status};
    use super::*;

    pub(in super::super) fn config(number: usize) -> Config {
        let hex = "0123456789abcdef".repeat(4);
        serde_json::from_value(json!({
            "id": format!("{number:064x}"),
            "name": format!("c{number}"),
            "created": format!("2024-05-01T11:55:00.{number:09}Z"),
            "image_name": "shop:1",
            "image": format!("sha256:{hex}"),
            "layers": [format!("sha256:{hex}")],
            "user": "", "group_add": [], "request": {"env": ["A=b"]},
            "command": ["httpd", "-f"],
            "mounts": [{"kind": "tmpfs", "name": null, "source": "", "destination": "/tmp", "writable": true,
                        "copy_up": false, "anonymous": false}],
            "network": "networks", "networks": [{"network": "bridge"}],
            "ports": [{"host_port": 8080, "container_port": 80, "protocol": "tcp"}], "exposed": ["80/tcp"],
            "dns": [], "dns_search": [], "dns_options": [], "extra_hosts": [],
            "labels": {"team": "blue"}, "restart": {"name": "always"},
            "stop_signal": "SIGTERM", "stop_timeout": 10, "health": null, "open_stdin": false, "auto_remove": true,
            "log": {"driver": "local", "options": {}},
            "extras": {"pod": "p", "infra": true, "command_line": ["x".repeat(if number == 3 { 20_000 } else { 1 })]},
        }))
        .unwrap()
    }

    pub(in super::super) fn containers(root: &Path, count: usize) -> Containers {
        let containers = Containers::new(root, &root.join("run"));
        for number in 0..count {
            containers.create(&config(number), &|_| Ok(())).unwrap();
        }
        containers
    }

    #[test]
    fn a_list_is_the_whole_records_without_what_is_not_shown() {
        let root = tempfile::tempdir().unwrap();
        // Several threads read so many, and one record is longer than what is read at once.
        let containers = containers(root.path(), 300);
        let (whole, brief) = (containers.list().unwrap(), containers.brief().unwrap());
        let expected: Vec<Listed> = whole.iter().map(Listed::from).collect();
        assert_eq!(brief, expected);
        let names: Vec<_> = brief.iter().map(|one| one.config.name.as_str()).collect();
        let newest: Vec<_> = (0..300).rev().map(|number| format!("c{number}")).collect();
        assert_eq!(names, newest);
    }

    #[test]
    fn what_goes_while_it_is_listed_is_left_out_and_a_lost_state_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let containers = containers(root.path(), 5);
        let file = |number: usize, name: &str| root.path().join(format!("containers/{number:064x}/{name}"));
        std::fs::remove_file(file(0, "config.json")).unwrap();
        std::fs::write(file(1, "config.json"), "").unwrap();
        std::fs::remove_file(file(2, "state.json")).unwrap();
        std::fs::write(file(3, "state.json"), "").unwrap();
        let state = |status, pid| State {
            status,
            pid,
            pid_start: 1,
            ..State::default()
        };
        containers
            .write_state(&config(4).id, &state(Status::Running, i32::MAX))
            .unwrap();
        let found: Vec<_> = containers
            .brief()
            .unwrap()
            .into_iter()
            .map(|one| (one.config.name, one.state.status, one.state.exit_code))
            .collect();
        let ended = |name: &str| (name.to_owned(), Status::Exited, 255);
        assert_eq!(found, [ended("c4"), ended("c3")]);
    }
}
