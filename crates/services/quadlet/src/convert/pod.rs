//! `.pod`.

use super::{Conversion, SERVICE, UNIT};
use crate::Error;
use crate::unit::UnitFile;

/// The name of the pod.
pub(super) fn name(file: &UnitFile) -> String {
    match file.some("Pod", "PodName") {
        Some(name) => name.to_owned(),
        None => format!("systemd-{}", file.stem()),
    }
}

impl Conversion<'_> {
    pub(super) fn pod(&mut self) -> Result<(), Error> {
        let name = name(self.file);
        let known = self.known.get(&self.file.name);
        let containers = known.map(|known| known.containers.clone()).unwrap_or_default();
        for service in containers {
            self.service.add(UNIT, "Wants", &service);
            self.service.add(UNIT, "Before", &service);
        }
        self.service.set_if_absent(SERVICE, "SyslogIdentifier", "%N");
        let mut start = self.command();
        start.add(["pod", "start", &name]);
        self.exec("ExecStart", &start);
        let mut stop = self.command();
        let timeout = self.file.text("Pod", "StopTimeout").unwrap_or("10");
        stop.add(["pod", "stop", "--ignore", &format!("--time={timeout}"), &name]);
        self.exec("ExecStop", &stop);
        let mut remove = self.command();
        remove.add(["pod", "rm", "--ignore", "--force", &name]);
        self.exec("ExecStopPost", &remove);
        self.create_pod(&name)?;
        self.tell_unit();
        self.service.set(SERVICE, "Type", "forking");
        self.service.set(SERVICE, "PIDFile", "%t/%N.pid");
        self.service.set_if_absent(SERVICE, "Restart", "on-failure");
        Ok(())
    }

    fn create_pod(&mut self, name: &str) -> Result<(), Error> {
        let mut create = self.command();
        create.add(["pod", "create", "--infra-conmon-pidfile=%t/%N.pid", "--replace"]);
        let policy = self.file.text("Pod", "ExitPolicy").unwrap_or("stop");
        create.add(["--exit-policy", policy]);
        self.mappings(&mut create, true)?;
        self.lists(&mut create, &[("PublishPort", "--publish")]);
        self.pairs(&mut create, &[("Label", "--label")]);
        self.networks(&mut create)?;
        let texts = [("IP", "--ip"), ("IP6", "--ip6"), ("ShmSize", "--shm-size")];
        self.texts(&mut create, &texts);
        let lists = [
            ("NetworkAlias", "--network-alias"),
            ("DNS", "--dns"),
            ("DNSOption", "--dns-option"),
            ("DNSSearch", "--dns-search"),
            ("AddHost", "--add-host"),
            ("HostName", "--hostname"),
        ];
        self.lists(&mut create, &lists);
        self.volumes(&mut create)?;
        create.add(["--infra-name", &format!("{name}-infra"), "--name", name]);
        self.own_arguments(&mut create);
        self.exec("ExecStartPre", &create);
        Ok(())
    }
}
