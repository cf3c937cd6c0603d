//! `.kube`: YAML that podman plays.

use super::{Conversion, SERVICE, bad};
use crate::Error;

impl Conversion<'_> {
    pub(super) fn kube(&mut self) -> Result<(), Error> {
        let files = self.file.names("Kube", "Yaml");
        if files.is_empty() {
            return Err(bad("no Yaml key specified"));
        }
        let files: Vec<String> = files.iter().map(|file| self.whole_path(file)).collect();
        self.kill_mode()?;
        self.tell_unit();
        if self.service_type()?.as_deref() != Some("oneshot") {
            self.service.set(SERVICE, "Type", "notify");
            self.service.set(SERVICE, "NotifyAccess", "all");
        }
        self.service.set_if_absent(SERVICE, "SyslogIdentifier", "%N");
        let mut play = self.command();
        play.add(["kube", "play", "--replace", "--service-container=true"]);
        if let Some(code) = self.value("ExitCodePropagation") {
            play.add([format!("--service-exit-code-propagation={code}")]);
        }
        self.log(&mut play);
        self.mappings(&mut play, false)?;
        self.networks(&mut play)?;
        for update in self.file.names("Kube", "AutoUpdate") {
            let annotation = "--annotation=io.containers.autoupdate";
            play.add([match update.split_once('/') {
                Some((container, kind)) => format!("{annotation}/{container}={kind}"),
                None => format!("{annotation}={update}"),
            }]);
        }
        for file in self.file.names("Kube", "ConfigMap") {
            play.add(["--configmap".to_owned(), self.whole_path(&file)]);
        }
        self.lists(&mut play, &[("PublishPort", "--publish")]);
        self.own_arguments(&mut play);
        play.add(files.clone());
        self.exec("ExecStart", &play);
        let mut down = self.command();
        down.add(["kube", "down"]);
        self.switches(&mut down, &[("KubeDownForce", "--force")]);
        down.add(files);
        self.exec("ExecStopPost", &down);
        self.working_directory().map(drop)
    }
}
