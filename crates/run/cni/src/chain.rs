//! Chains of plugins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_types::{ContainerId, ErrorKind, Failures};
use serde_json::{Map, Value};

use crate::invoke::{self, Call};
use crate::record::{self, Record};
use crate::result::Added;
use crate::{Context as _, Error, NetworkList, invalid, list};

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Plugins {
    /// Folders of lists.
    pub lists: Vec<PathBuf>,
    /// Folders of programs.
    pub programs: Vec<PathBuf>,
    /// Folder of what is remembered; made when something is.
    pub records: PathBuf,
    /// How long one plugin may take.
    pub patience: Duration,
}

/// What is to be connected.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The container.
    pub container: &'a ContainerId,
    /// A path by which its network namespace can be opened.
    pub netns: &'a Path,
    /// Name of the interface there.
    pub interface: &'a str,
    /// What plugins that take it are told: `portMappings`, `ips`, `mac`, `bandwidth`, ... (CNI `CONVENTIONS.md`).
    pub runtime: Map<String, Value>,
}

impl Plugins {
    /// Every network that a list describes; files that say nothing sound are left out.
    #[must_use]
    pub fn networks(&self) -> Vec<NetworkList> {
        list::all(&self.lists).into_iter().flatten().collect()
    }

    /// The network of this name; none without a list of it.
    ///
    /// # Errors
    /// When there is none and a file could not be read that may have been it.
    pub fn find(&self, name: &str) -> Result<Option<NetworkList>, Error> {
        let mut unreadable = None;
        for list in list::all(&self.lists) {
            match list {
                Ok(list) if list.name() == name => return Ok(Some(list)),
                Ok(_) => {}
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
        }
        unreadable.map_or(Ok(None), Err)
    }

    /// Connects an interface. What fails is taken apart again; a kill in between is undone by [`Plugins::delete`].
    ///
    /// # Errors
    /// `AlreadyExists` when the interface has a record; `InvalidArgument` for what no plugin of the list takes; what plugins say.
    pub fn add(&self, list: &NetworkList, place: &Place<'_>) -> Result<Added, Error> {
        check_interface(place.interface)?;
        if let Some(name) = place.runtime.keys().find(|name| !list.takes(name)) {
            return Err(invalid(format!(
                "no plugin of network {} takes {name} ({})",
                list.name(),
                list.path().display()
            )));
        }
        let path = record::path(&self.records, place.container.as_str(), place.interface);
        if path.exists() {
            let message = format!("interface {} is on a network already", place.interface);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let mut record = Record {
            network: list.name.clone(),
            version: list.version.clone(),
            disable_check: list.disable_check,
            plugins: list.plugins.clone(),
            runtime: place.runtime.clone(),
            result: None,
        };
        record.write(&path)?;
        let added = self.added(list, place).and_then(|result| {
            let added = Added::parse(&result, place.interface)?;
            record.result = Some(result);
            record.write(&path)?;
            Ok(added)
        });
        if added.is_err() {
            // The first failure is the one to report.
            drop(self.delete(place.container, place.interface, Some(place.netns)));
        }
        added.context(|| format!("join the network {} by its plugins", list.name()))
    }

    fn added(&self, list: &NetworkList, place: &Place<'_>) -> Result<Value, Error> {
        let mut result = None;
        for plugin in &list.plugins {
            let config = config(list, plugin, &place.runtime, result.as_ref());
            let said = self.run(
                "ADD",
                plugin,
                place.container,
                place.interface,
                place.netns,
                &config,
            )?;
            // Before the next one is given it.
            Added::parse(&said, place.interface)
                .context(|| format!("run CNI plugin {}", crate::shown(list::kind(plugin))))?;
            result = Some(said);
        }
        result.ok_or_else(|| invalid("the list has no plugins"))
    }

    /// Whether an interface is still as it was connected, as far as its plugins say.
    ///
    /// # Errors
    /// `NotFound` without a record of it; what plugins say.
    pub fn check(&self, container: &ContainerId, interface: &str, netns: &Path) -> Result<(), Error> {
        check_interface(interface)?;
        let path = record::path(&self.records, container.as_str(), interface);
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("interface {interface} is on no network"),
            )
        };
        let record = Record::read(&path)?.ok_or_else(missing)?;
        let list = record.list(&path);
        if record.disable_check || !list.speaks("0.4.0") {
            return Ok(());
        }
        for plugin in &list.plugins {
            let config = config(&list, plugin, &record.runtime, record.result.as_ref());
            self.run("CHECK", plugin, container, interface, netns, &config)?;
        }
        Ok(())
    }

    /// Disconnects an interface: every plugin is run, the last first, whatever the others say. Without a record there is
    /// nothing to do. The record goes when all of them are content.
    ///
    /// # Errors
    /// What plugins say, and the record stays.
    pub fn delete(
        &self,
        container: &ContainerId,
        interface: &str,
        netns: Option<&Path>,
    ) -> Result<(), Error> {
        check_interface(interface)?;
        let path = record::path(&self.records, container.as_str(), interface);
        let Some(record) = Record::read(&path)? else {
            return Record::remove(&path);
        };
        let list = record.list(&path);
        let netns = netns.unwrap_or(Path::new(""));
        let mut failures = Failures::new();
        for plugin in list.plugins.iter().rev() {
            let config = config(&list, plugin, &record.runtime, record.result.as_ref());
            let run = self.run("DEL", plugin, container, interface, netns, &config);
            // A plugin that is not there any more is no "already gone": what it made is still there.
            let run = run.map(drop).map_err(|error| match error.kind() {
                ErrorKind::NotFound => error.with_kind(ErrorKind::FailedPrecondition),
                _ => error,
            });
            failures.record("run a plugin", run);
        }
        failures
            .into_result()
            .context(|| format!("leave the network {} by its plugins", list.name()))?;
        Record::remove(&path)
    }

    /// The interfaces of a container that plugins connected, or were about to.
    #[must_use]
    pub fn interfaces(&self, container: &ContainerId) -> Vec<String> {
        record::interfaces(&self.records.join(container.as_str()))
    }

    fn run(
        &self,
        command: &'static str,
        plugin: &Map<String, Value>,
        container: &ContainerId,
        interface: &str,
        netns: &Path,
        config: &Value,
    ) -> Result<Value, Error> {
        let program = invoke::find(list::kind(plugin), &self.programs)?;
        let call = Call {
            command,
            container: container.as_str(),
            netns,
            interface,
            folders: &self.programs,
            patience: self.patience,
        };
        invoke::run(&program, &call, config)
    }
}

/// What a plugin is given (`SPEC.md`, "Deriving request configuration").
fn config(
    list: &NetworkList,
    plugin: &Map<String, Value>,
    runtime: &Map<String, Value>,
    previous: Option<&Value>,
) -> Value {
    let mut config = plugin.clone();
    config.insert("cniVersion".to_owned(), list.version.clone().into());
    config.insert("name".to_owned(), list.name.clone().into());
    let taken: Map<String, Value> = runtime
        .iter()
        .filter(|(name, _)| list::takes(plugin, name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    config.remove("capabilities");
    config.remove("runtimeConfig");
    config.remove("prevResult");
    if !taken.is_empty() {
        config.insert("runtimeConfig".to_owned(), taken.into());
    }
    if let Some(previous) = previous {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    config.into()
}

/// The kernel's rule for names of interfaces (`dev_valid_name`); it is also the name of a file.
fn check_interface(name: &str) -> Result<(), Error> {
    let good = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(['/', ':'])
        && !name.chars().any(|c| c.is_whitespace() || c.is_control());
    if good {
        Ok(())
    } else {
        Err(invalid(format!(
            "invalid interface name {:?}",
            crate::shown(name)
        )))
    }
}
