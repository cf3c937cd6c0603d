//! `.volume` and `.network`.

use super::container::escaped_path;
use super::mappings::number;
use super::{Command, Conversion, UNIT, bad};
use crate::Error;

impl Conversion<'_> {
    /// The name of what is made: what the file says, or its own.
    fn resource(&self, key: &str) -> String {
        match self.value(key) {
            Some(name) => name.to_owned(),
            None => match self.file.stem().strip_suffix('@') {
                Some(base) => format!("systemd-{base}-%i"),
                None if self.file.name.contains('@') => {
                    let stem = self.file.stem();
                    let mut end = stem.chars();
                    end.next_back();
                    format!("systemd-{}-%i", end.as_str())
                }
                None => format!("systemd-{}", self.file.stem()),
            },
        }
    }

    pub(super) fn volume(&mut self) -> Result<(), Error> {
        let name = self.resource("VolumeName");
        let mut create = self.command();
        create.add(["volume", "create", "--ignore"]);
        for (key, flag) in [("UID", "--uid"), ("GID", "--gid"), ("Driver", "--driver")] {
            if let Some(value) = self.file.text("Volume", key) {
                create.add([flag, value]);
            }
        }
        let options = match self.file.text("Volume", "Driver") {
            Some("image") => self.image_of_volume()?,
            _ => self.options_of_volume(&mut create)?,
        };
        if let Some(options) = options {
            create.add(["--opt".to_owned(), options]);
        }
        self.pairs(&mut create, &[("Label", "--label")]);
        self.own_arguments(&mut create);
        create.add([name.as_str()]);
        self.exec("ExecStart", &create);
        self.once(true);
        self.makes(&name);
        Ok(())
    }

    fn image_of_volume(&mut self) -> Result<Option<String>, Error> {
        let Some(image) = self.file.text("Volume", "Image") else {
            return Err(bad("the key Image is mandatory when using the image driver"));
        };
        let image = self.image_source(image)?;
        Ok((!image.is_empty()).then(|| format!("image={image}")))
    }

    fn options_of_volume(&mut self, create: &mut Command) -> Result<Option<String>, Error> {
        let mut options = Vec::new();
        for (key, name) in [("User", "uid"), ("Group", "gid")] {
            if let Some(value) = self.file.text("Volume", key) {
                options.push(format!("{name}={}", number(value).unwrap_or(0)));
            }
        }
        if let Some(copy) = self.switch("Copy") {
            create.add(["--opt", if copy { "copy" } else { "nocopy" }]);
        }
        let device = self.value("Device");
        if let Some(device) = device {
            create.add(["--opt".to_owned(), format!("device={device}")]);
        }
        match (self.value("Type"), device) {
            (Some(_), None) => return Err(bad("key Type can't be used without Device")),
            (Some(kind), Some(device)) => {
                create.add(["--opt".to_owned(), format!("type={kind}")]);
                if kind == "bind" {
                    self.service.add(UNIT, "RequiresMountsFor", &escaped_path(device));
                }
            }
            (None, _) => {}
        }
        options.extend(self.value("Options").map(str::to_owned));
        Ok((!options.is_empty()).then(|| format!("o={}", options.join(","))))
    }

    pub(super) fn network(&mut self) -> Result<(), Error> {
        let name = self.resource("NetworkName");
        if self.switch("NetworkDeleteOnStop") == Some(true) {
            let mut remove = self.command();
            remove.add(["network", "rm", &name]);
            self.exec("ExecStopPost", &remove);
        }
        let mut create = self.command();
        create.add(["network", "create", "--ignore"]);
        let switches = [
            ("DisableDNS", "--disable-dns"),
            ("Internal", "--internal"),
            ("IPv6", "--ipv6"),
        ];
        self.switches(&mut create, &switches);
        let texts = [
            ("Driver", "--driver"),
            ("IPAMDriver", "--ipam-driver"),
            ("InterfaceName", "--interface-name"),
        ];
        self.texts(&mut create, &texts);
        self.lists(&mut create, &[("DNS", "--dns")]);
        self.subnets(&mut create)?;
        self.pairs(&mut create, &[("Options", "--opt"), ("Label", "--label")]);
        self.own_arguments(&mut create);
        create.add([name.as_str()]);
        self.exec("ExecStart", &create);
        self.once(true);
        self.makes(&name);
        Ok(())
    }

    fn subnets(&self, create: &mut Command) -> Result<(), Error> {
        let all = |key: &str| self.file.all("Network", key);
        let (subnets, gateways, ranges) = (all("Subnet"), all("Gateway"), all("IPRange"));
        if subnets.is_empty() && !(gateways.is_empty() && ranges.is_empty()) {
            return Err(bad("cannot set gateway or range without subnet"));
        }
        for (what, values) in [("gateways", &gateways), ("ranges", &ranges)] {
            if values.len() > subnets.len() {
                return Err(bad(format!("cannot set more {what} than subnets")));
            }
        }
        for (index, subnet) in subnets.iter().enumerate() {
            create.add(["--subnet", subnet]);
            for (flag, values) in [("--gateway", &gateways), ("--ip-range", &ranges)] {
                if let Some(value) = values.get(index) {
                    create.add([flag, value]);
                }
            }
        }
        Ok(())
    }
}
