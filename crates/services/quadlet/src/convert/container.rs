//! `.container`.

use std::path::Path;

use super::{Command, Conversion, SERVICE, UNIT, bad};
use crate::Error;
use crate::unit::UnitFile;
use crate::words;

/// The label that says how a container is updated (podman-auto-update(1)).
const AUTO_UPDATE: &str = "io.containers.autoupdate";

/// Keys about health, with the end of their flags.
const HEALTH: [(&str, &str); 14] = [
    ("HealthCmd", "--health-cmd"),
    ("HealthInterval", "--health-interval"),
    ("HealthOnFailure", "--health-on-failure"),
    ("HealthLogDestination", "--health-log-destination"),
    ("HealthMaxLogCount", "--health-max-log-count"),
    ("HealthMaxLogSize", "--health-max-log-size"),
    ("HealthRetries", "--health-retries"),
    ("HealthStartPeriod", "--health-start-period"),
    ("HealthTimeout", "--health-timeout"),
    ("HealthStartupCmd", "--health-startup-cmd"),
    ("HealthStartupInterval", "--health-startup-interval"),
    ("HealthStartupRetries", "--health-startup-retries"),
    ("HealthStartupSuccess", "--health-startup-success"),
    ("HealthStartupTimeout", "--health-startup-timeout"),
];

/// The name of the container, in which systemd may have something to resolve.
pub(super) fn name(file: &UnitFile) -> String {
    match file.some("Container", "ContainerName") {
        Some(name) => name.to_owned(),
        None if file.name.contains('@') => "systemd-%p_%i".to_owned(),
        None => "systemd-%N".to_owned(),
    }
}

impl Conversion<'_> {
    pub(super) fn container(&mut self) -> Result<(), Error> {
        let image = match (self.value("Image"), self.value("Rootfs")) {
            (None, None) => return Err(bad("no Image or Rootfs key specified")),
            (Some(_), Some(_)) => {
                return Err(bad(
                    "the Image And Rootfs keys conflict can not be specified together",
                ));
            }
            (Some(image), None) => Some(self.image_source(image)?),
            (None, Some(_)) => None,
        };
        let name = name(self.file);
        self.tell_unit();
        self.kill_mode()?;
        self.stop(&name);
        self.reload(&name)?;
        let mut run = self.command();
        run.add(["run", "--name", &name, "--replace", "--rm"]);
        self.settings(&mut run)?;
        self.notify(&mut run)?;
        self.rights(&mut run);
        self.files(&mut run)?;
        self.join_pod(&mut run)?;
        self.own_arguments(&mut run);
        match (image, self.value("Rootfs")) {
            (Some(image), _) => run.add([image]),
            (None, root) => run.add(["--rootfs", root.unwrap_or_default()]),
        }
        match self.file.last_arguments("Container", "Exec") {
            Ok(words) => run.add(words.unwrap_or_default()),
            Err(error) => self.warn(error.0),
        }
        self.exec("ExecStart", &run);
        Ok(())
    }

    /// The container goes with its service, also when its monitor was killed and the first command is not run.
    fn stop(&mut self, name: &str) {
        let mut stop = self.command();
        stop.add(["rm", "-v", "-f", "-i", name]);
        self.exec("ExecStop", &stop);
        if let Some(program) = stop.0.first_mut() {
            program.insert(0, '-');
        }
        self.exec("ExecStopPost", &stop);
    }

    fn reload(&mut self, name: &str) -> Result<(), Error> {
        let command = match self.file.last_arguments("Container", "ReloadCmd") {
            Ok(words) => words.filter(|words| !words.is_empty()),
            Err(error) => {
                self.warn(error.0);
                None
            }
        };
        let mut reload = self.command();
        match (command, self.value("ReloadSignal")) {
            (None, None) => return Ok(()),
            (Some(_), Some(_)) => {
                return Err(bad(
                    "ReloadCmd and ReloadSignal are mutually exclusive but both are set",
                ));
            }
            (Some(words), None) => {
                reload.add(["exec", name]);
                reload.add(words);
            }
            (None, Some(signal)) => reload.add(["kill", "--signal", signal, name]),
        }
        self.exec("ExecReload", &reload);
        Ok(())
    }

    fn settings(&mut self, run: &mut Command) -> Result<(), Error> {
        self.log(run);
        self.service.add(SERVICE, "Delegate", "yes");
        match self.value("CgroupsMode") {
            Some(mode) => run.add(["--cgroups", mode]),
            None => run.add(["--cgroups=split"]),
        }
        // An empty one means something: the image's is taken away.
        if let Some(entrypoint) = self.file.text("Container", "Entrypoint") {
            run.add([format!("--entrypoint={entrypoint}")]);
        }
        let texts = [
            ("Timezone", "--tz"),
            ("PidsLimit", "--pids-limit"),
            ("ShmSize", "--shm-size"),
            ("WorkingDir", "--workdir"),
            ("IP", "--ip"),
            ("IP6", "--ip6"),
            ("HostName", "--hostname"),
            ("StopSignal", "--stop-signal"),
            ("StopTimeout", "--stop-timeout"),
            ("Pull", "--pull"),
            ("Memory", "--memory"),
            ("Retry", "--retry"),
            ("RetryDelay", "--retry-delay"),
        ];
        self.texts(run, &texts);
        let lists = [
            ("NetworkAlias", "--network-alias"),
            ("Ulimit", "--ulimit"),
            ("DNS", "--dns"),
            ("DNSOption", "--dns-option"),
            ("DNSSearch", "--dns-search"),
            ("GroupAdd", "--group-add"),
            ("AddHost", "--add-host"),
            ("Tmpfs", "--tmpfs"),
        ];
        self.lists(run, &lists);
        let switches = [
            ("RunInit", "--init"),
            ("EnvironmentHost", "--env-host"),
            ("HttpProxy", "--http-proxy"),
            ("ReadOnlyTmpfs", "--read-only-tmpfs"),
        ];
        self.switches(run, &switches);
        self.networks(run)
    }

    /// How systemd hears that the service is there.
    fn notify(&mut self, run: &mut Command) -> Result<(), Error> {
        if self.service_type()?.as_deref() != Some("oneshot") {
            let notify = self.file.text("Container", "Notify").unwrap_or_default();
            run.add([match self.switch("Notify") {
                _ if notify.eq_ignore_ascii_case("healthy") => "--sdnotify=healthy",
                Some(true) => "--sdnotify=container",
                _ => "--sdnotify=conmon",
            }]);
            self.service.set(SERVICE, "Type", "notify");
            self.service.set(SERVICE, "NotifyAccess", "all");
            // Nobody waits for the command that starts it.
            run.add(["-d"]);
        }
        self.service.set_if_absent(SERVICE, "SyslogIdentifier", "%N");
        Ok(())
    }

    fn rights(&mut self, run: &mut Command) {
        let on = |key: &str| self.switch(key) == Some(true);
        if on("NoNewPrivileges") {
            run.add(["--security-opt=no-new-privileges"]);
        }
        for (key, option) in [
            ("SecurityLabelDisable", "label=disable"),
            ("SecurityLabelNested", "label=nested"),
        ] {
            if on(key) {
                run.add(["--security-opt", option]);
            }
        }
        for (key, option) in [
            ("SecurityLabelType", "label=type:"),
            ("SecurityLabelFileType", "label=filetype:"),
            ("SecurityLabelLevel", "label=level:"),
            ("AppArmor", "apparmor="),
        ] {
            if let Some(value) = self.value(key) {
                run.add(["--security-opt".to_owned(), format!("{option}{value}")]);
            }
        }
        for device in self.file.names("Container", "AddDevice") {
            // With a dash before it, it is given if it is there.
            let (device, wanted) = match device.strip_prefix('-') {
                Some(rest) => {
                    let path = rest.split(':').next().unwrap_or(rest);
                    (rest.to_owned(), (self.target.exists)(Path::new(path)))
                }
                None => (device, true),
            };
            if wanted {
                run.add(["--device".to_owned(), device]);
            }
        }
        if let Some(profile) = self.file.text("Container", "SeccompProfile") {
            run.add(["--security-opt".to_owned(), format!("seccomp={profile}")]);
        }
        for (key, flag) in [("DropCapability", "--cap-drop"), ("AddCapability", "--cap-add")] {
            for name in self.file.names("Container", key) {
                run.add([flag.to_owned(), name.to_lowercase()]);
            }
        }
        self.words(run, &[("Sysctl", "--sysctl")]);
        let read_only = self.switch("ReadOnly");
        if let Some(on) = read_only {
            run.switch("--read-only", on);
        }
        if self.switch("VolatileTmp") == Some(true) && read_only != Some(true) {
            run.add(["--tmpfs", "/tmp:rw,size=512M,mode=1777"]);
        }
    }

    fn files(&mut self, run: &mut Command) -> Result<(), Error> {
        self.user(run)?;
        self.mappings(run, true)?;
        self.volumes(run)?;
        if let Some(update) = self.value("AutoUpdate") {
            run.add(["--label".to_owned(), format!("{AUTO_UPDATE}={update}")]);
        }
        for port in self.file.all("Container", "ExposeHostPort") {
            let port = port.trim();
            if !is_port_range(port) {
                return Err(bad(format!("invalid port format '{port}'")));
            }
            run.add(["--expose", port]);
        }
        self.lists(run, &[("PublishPort", "--publish")]);
        let pairs = [
            ("Environment", "--env"),
            ("Label", "--label"),
            ("Annotation", "--annotation"),
        ];
        self.pairs(run, &pairs);
        for (key, option) in [("Mask", "mask"), ("Unmask", "unmask")] {
            for word in self.file.arguments("Container", key) {
                run.add(["--security-opt".to_owned(), format!("{option}={word}")]);
            }
        }
        for path in self.file.arguments("Container", "EnvironmentFile") {
            run.add(["--env-file".to_owned(), self.whole_path(&path)]);
        }
        self.arguments(run, "Secret", "--secret");
        for mount in self.file.arguments("Container", "Mount") {
            let mount = self.mount(&mount)?;
            run.add(["--mount".to_owned(), mount]);
        }
        self.texts(run, &HEALTH);
        Ok(())
    }

    /// `User`, and `Group` with it.
    fn user(&self, run: &mut Command) -> Result<(), Error> {
        match (self.value("User"), self.value("Group")) {
            (None, None) => {}
            (None, Some(_)) => return Err(bad("invalid Group set without User")),
            (Some(user), None) => run.add(["--user", user]),
            (Some(user), Some(group)) => run.add(["--user".to_owned(), format!("{user}:{group}")]),
        }
        Ok(())
    }

    /// `Pod`: the container comes and goes with it.
    fn join_pod(&mut self, run: &mut Command) -> Result<(), Error> {
        let Some(pod) = self.value("Pod") else {
            return Ok(());
        };
        if !pod.ends_with(".pod") {
            return Err(bad(format!("pod {pod} is not Quadlet based")));
        }
        let is_template = self.file.stem().ends_with('@');
        let starts = !is_template && self.switch("StartWithPod").unwrap_or(true);
        let service = self.service.name.clone();
        let Some(known) = self.known.get_mut(pod) else {
            return Err(bad(format!("quadlet pod unit {pod} does not exist")));
        };
        if starts {
            known.containers.push(service);
        }
        let (file, resource) = (known.service_file(), known.resource.clone());
        run.add(["--pod".to_owned(), resource]);
        self.service.add(UNIT, "BindsTo", &file);
        self.service.add(UNIT, "After", &file);
        Ok(())
    }

    /// `LogDriver` and `LogOpt`.
    pub(super) fn log(&self, command: &mut Command) {
        if let Some(driver) = self.file.text(self.group(), "LogDriver") {
            command.add(["--log-driver", driver]);
        }
        self.words(command, &[("LogOpt", "--log-opt")]);
    }
}

/// A port, or two with a dash between them, perhaps with a protocol.
fn is_port_range(text: &str) -> bool {
    let text = text
        .strip_suffix("/udp")
        .or(text.strip_suffix("/tcp"))
        .unwrap_or(text);
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    number(first) && number(last)
}

/// The words of a CSV line are one line again.
pub(super) fn csv(fields: &[String]) -> String {
    let quoted = fields.iter().map(|field| {
        if field.contains([',', '"', '\n', '\r']) || field.starts_with(' ') {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(",")
}

/// A path as a line of words has it.
pub(super) fn escaped_path(path: &str) -> String {
    words::quoted(path)
}
