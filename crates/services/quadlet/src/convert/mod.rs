//! Files to services: what all kinds have in common; each kind has a module.

mod artifacts;
mod build;
mod container;
mod kube;
mod mappings;
mod pod;
mod resources;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::unit::UnitFile;
use crate::words;
use crate::{Error, Kind, Service, Target, keys};

/// Groups that every file may have.
const UNIT: &str = "Unit";
const SERVICE: &str = "Service";
const INSTALL: &str = "Install";
const QUADLET: &str = "Quadlet";

/// What came of all files.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The services that were made.
    pub services: Vec<Service>,
    /// What works but is not wise, a sentence each.
    pub warnings: Vec<String>,
    /// The files that are no services, each with why.
    pub failures: Vec<String>,
}

/// What others need to know of a file.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The name of its service, without `.service`.
    service: String,
    /// The name of what the service makes; empty until that is known.
    resource: String,
    /// Of a pod: the services of containers that start with it.
    containers: Vec<String>,
}

impl Known {
    fn service_file(&self) -> String {
        format!("{}.service", self.service)
    }
}

/// All files by their names.
type Map = BTreeMap<String, Known>;

/// A file on its way to be a service.
struct Conversion<'a> {
    kind: Kind,
    file: &'a UnitFile,
    service: UnitFile,
    known: &'a mut Map,
    target: Target<'a>,
    warnings: &'a mut Vec<String>,
}

/// Makes services of files. Files that are of no kind are passed over.
pub fn convert(files: &[UnitFile], target: Target<'_>) -> Outcome {
    let mut files: Vec<(Kind, &UnitFile)> = files
        .iter()
        .filter_map(|file| Some((Kind::of(&file.name)?, file)))
        .collect();
    files.sort_by_key(|(kind, _)| *kind);
    let mut known: Map = files
        .iter()
        .map(|(kind, file)| (file.name.clone(), first_knowledge(*kind, file)))
        .collect();
    let mut outcome = Outcome::default();
    for (kind, file) in files {
        warn(kind, file, &mut outcome.warnings);
        match one(kind, file, &mut known, target, &mut outcome.warnings) {
            Ok(service) => outcome.services.push(service),
            Err(error) => outcome
                .failures
                .push(format!("converting {:?}: {error}", file.name)),
        }
    }
    outcome
}

fn one(
    kind: Kind,
    file: &UnitFile,
    known: &mut Map,
    target: Target<'_>,
    warnings: &mut Vec<String>,
) -> Result<Service, Error> {
    let mut conversion = Conversion::begin(kind, file, known, target, warnings)?;
    match kind {
        Kind::Container => conversion.container()?,
        Kind::Pod => conversion.pod()?,
        Kind::Volume => conversion.volume()?,
        Kind::Network => conversion.network()?,
        Kind::Image => conversion.image()?,
        Kind::Artifact => conversion.artifact()?,
        Kind::Build => conversion.build()?,
        Kind::Kube => conversion.kube()?,
    }
    Ok(conversion.finish())
}

/// What is known of a file before it is converted, since others name it.
fn first_knowledge(kind: Kind, file: &UnitFile) -> Known {
    let group = kind.group();
    let service = match file.text(group, "ServiceName") {
        Some(name) => name.to_owned(),
        None => match file.stem().strip_suffix('@') {
            Some(base) => format!("{base}{}@", kind.suffix()),
            None => format!("{}{}", file.stem(), kind.suffix()),
        },
    };
    let resource = match kind {
        // Other specifiers are systemd's to resolve.
        Kind::Container => {
            let name = container::name(file).replace("%N", &service);
            if name.contains('%') { String::new() } else { name }
        }
        Kind::Build => {
            let first = file.all(group, "ImageTag").first().copied();
            first.unwrap_or_default().to_owned()
        }
        Kind::Pod => pod::name(file),
        _ => String::new(),
    };
    Known {
        service,
        resource,
        containers: Vec::new(),
    }
}

fn warn(kind: Kind, file: &UnitFile, warnings: &mut Vec<String>) {
    for key in keys::UNSUPPORTED {
        if file.has(SERVICE, key) {
            warnings.push(format!(
                "Warning: using key {key} in the Service group is not supported - use at your own risk"
            ));
        }
    }
    let names = matches!(kind, Kind::Container | Kind::Volume | Kind::Image);
    if let Some(image) = file.text(kind.group(), "Image").filter(|_| names)
        && !image.ends_with(".build")
        && !image.ends_with(".image")
        && !is_whole_name(image)
    {
        warnings.push(format!(
            "Warning: {} specifies the image {image:?} which not a fully qualified image name. This is not ideal for \
             performance and security reasons. See the podman-pull manpage discussion of short-name-aliases.conf for details.",
            file.name
        ));
    }
    if matches!(kind, Kind::Kube | Kind::Artifact) {
        warnings.push(format!(
            "Warning: {}: this program has no {}; the service needs podman itself (set PODMAN)",
            file.name,
            if kind == Kind::Kube {
                "kube play"
            } else {
                "artifact pull"
            }
        ));
    }
}

/// Whether a name says its registry, or is an ID.
fn is_whole_name(image: &str) -> bool {
    let is_id = image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    let host = image.split_once('/').map(|(host, _)| host);
    let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
    is_id || image.starts_with("sha256:") || host.is_some_and(is_host)
}

impl<'a> Conversion<'a> {
    fn begin(
        kind: Kind,
        file: &'a UnitFile,
        known: &'a mut Map,
        target: Target<'a>,
        warnings: &'a mut Vec<String>,
    ) -> Result<Self, Error> {
        let group = kind.group();
        check_keys(file, group, |key| keys::has(kind, key))?;
        check_keys(file, QUADLET, |key| key == keys::QUADLET)?;
        let mut service = file.clone();
        service.name = known.get(&file.name).map(Known::service_file).unwrap_or_default();
        translate(&mut service, known)?;
        if service.switch(QUADLET, keys::QUADLET).unwrap_or(true) {
            // A user's systemd knows nothing of the network of the machine.
            let online = match target.user {
                true => "podman-user-wait-network-online.service",
                false => "network-online.target",
            };
            service.add_first(UNIT, "After", online);
            service.add_first(UNIT, "Wants", online);
        }
        if !file.path.is_empty() {
            service.add(UNIT, "SourcePath", &file.path);
        }
        service.add(UNIT, "RequiresMountsFor", "%t/containers");
        service.rename_group(group, &format!("X-{group}"));
        service.rename_group(QUADLET, "X-Quadlet");
        Ok(Self {
            kind,
            file,
            service,
            known,
            target,
            warnings,
        })
    }

    fn finish(self) -> Service {
        let mut unit = self.service;
        let links = links(&unit);
        unit.begin_with(&["", "Automatically generated by dhow quadlet", ""]);
        Service {
            text: unit.text_of_all(),
            name: unit.name,
            links,
        }
    }

    /// The file's own group.
    const fn group(&self) -> &'static str {
        self.kind.group()
    }

    /// The last value of a key in the file's own group, when it says something.
    fn value(&self, key: &str) -> Option<&'a str> {
        self.file.some(self.group(), key)
    }

    fn switch(&self, key: &str) -> Option<bool> {
        self.file.switch(self.group(), key)
    }

    /// A command that begins with the program and what every command of the file has.
    fn command(&self) -> Command {
        let mut command = Command(vec![self.target.program.to_owned()]);
        for module in self.file.all(self.group(), "ContainersConfModule") {
            command.add([format!("--module={module}")]);
        }
        command.0.extend(self.file.arguments(self.group(), "GlobalArgs"));
        command
    }

    /// `flag value` for each of these keys that is there.
    fn texts(&self, command: &mut Command, keys: &[(&str, &str)]) {
        for (key, flag) in keys {
            if let Some(value) = self.value(key) {
                command.add([*flag, value]);
            }
        }
    }

    /// `flag value` for every value of these keys.
    fn lists(&self, command: &mut Command, keys: &[(&str, &str)]) {
        for (key, flag) in keys {
            for value in self.file.all(self.group(), key) {
                command.add([*flag, value]);
            }
        }
    }

    /// `flag word` for every word of these keys.
    fn words(&self, command: &mut Command, keys: &[(&str, &str)]) {
        for (key, flag) in keys {
            for word in self.file.names(self.group(), key) {
                command.add([(*flag).to_owned(), word]);
            }
        }
    }

    /// The same, where words may have escapes.
    fn arguments(&self, command: &mut Command, key: &str, flag: &str) {
        for word in self.file.arguments(self.group(), key) {
            command.add([flag.to_owned(), word]);
        }
    }

    fn switches(&self, command: &mut Command, keys: &[(&str, &str)]) {
        for (key, flag) in keys {
            if let Some(on) = self.switch(key) {
                command.switch(flag, on);
            }
        }
    }

    /// `flag NAME=VALUE` for everything that these keys set, sorted by name; of one name the last counts.
    fn pairs(&mut self, command: &mut Command, keys: &[(&str, &str)]) {
        for (key, flag) in keys {
            let mut all = BTreeMap::new();
            for value in self.file.all(self.kind.group(), key) {
                match words::escaped(value) {
                    Ok(words) => all.extend(words.into_iter().map(|word| match word.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (word, None),
                    })),
                    Err(error) => self.warn(error.0),
                }
            }
            for (name, value) in all {
                let word = value.map_or(name.clone(), |value| format!("{name}={value}"));
                command.add([(*flag).to_owned(), word]);
            }
        }
    }

    /// What the person wants to have said besides.
    fn own_arguments(&self, command: &mut Command) {
        command.0.extend(self.file.arguments(self.group(), "PodmanArgs"));
    }

    fn warn(&mut self, what: &str) {
        self.warnings.push(format!("{}: {what}", self.file.name));
    }

    /// Adds a command to the service.
    fn exec(&mut self, key: &str, command: &Command) {
        self.service.add(SERVICE, key, &words::line(&command.0));
    }

    /// Writes down what the service makes.
    fn makes(&mut self, resource: &str) {
        if let Some(known) = self.known.get_mut(&self.file.name) {
            resource.clone_into(&mut known.resource);
        }
    }

    /// Lets the service come after that of another file; its resource.
    fn needs(&mut self, name: &str) -> Option<String> {
        let known = self.known.get(name)?;
        let (service, resource) = (known.service_file(), known.resource.clone());
        self.service.add(UNIT, "Requires", &service);
        self.service.add(UNIT, "After", &service);
        Some(resource)
    }

    /// The image that is meant: a name, or what another file pulls or builds.
    fn image_source(&mut self, image: &str) -> Result<String, Error> {
        if !image.ends_with(".build") && !image.ends_with(".image") {
            return Ok(image.to_owned());
        }
        self.needs(image)
            .ok_or_else(|| bad(format!("requested Quadlet image {image} was not found")))
    }

    /// A path that begins at the file's own folder, unless it is whole or systemd's to resolve.
    fn whole_path(&self, path: &str) -> String {
        if path.starts_with('/') || is_specifier(path) {
            return path.to_owned();
        }
        let folder = Path::new(&self.file.path).parent().unwrap_or(Path::new("/"));
        clean(&folder.join(path)).display().to_string()
    }

    /// `Type` of a service that runs containers.
    fn service_type(&self) -> Result<Option<String>, Error> {
        let kind = self.service.text(SERVICE, "Type").map(str::to_owned);
        match kind.as_deref() {
            None | Some("notify" | "oneshot") => Ok(kind),
            Some(other) => Err(bad(format!("invalid service Type '{other}'"))),
        }
    }

    /// `KillMode`: only two go well with what is run.
    fn kill_mode(&mut self) -> Result<(), Error> {
        match self.service.text(SERVICE, "KillMode") {
            Some("mixed" | "control-group") => {}
            Some(other) => return Err(bad(format!("invalid KillMode '{other}'"))),
            None => self.service.set(SERVICE, "KillMode", "mixed"),
        }
        Ok(())
    }

    /// Who updates the container knows by this which service to start again.
    fn tell_unit(&mut self) {
        self.service.add(SERVICE, "Environment", "PODMAN_SYSTEMD_UNIT=%n");
    }

    /// A service that makes something and is done.
    fn once(&mut self, stays: bool) {
        self.service.set_if_absent(SERVICE, "SyslogIdentifier", "%N");
        self.service.set_if_absent(SERVICE, "Type", "oneshot");
        if stays {
            self.service.set_if_absent(SERVICE, "RemainAfterExit", "yes");
        }
    }
}

/// Words of a command.
struct Command(Vec<String>);

impl Command {
    fn add<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) {
        self.0.extend(words.into_iter().map(Into::into));
    }

    fn switch(&mut self, flag: &str, on: bool) {
        self.add([if on {
            flag.to_owned()
        } else {
            format!("{flag}=false")
        }]);
    }
}

fn check_keys(file: &UnitFile, group: &str, known: impl Fn(&str) -> bool) -> Result<(), Error> {
    match file.keys(group).into_iter().find(|key| !known(key)) {
        Some(key) => Err(bad(format!(
            "unsupported key '{key}' in group '{group}' in {}",
            file.path
        ))),
        None => Ok(()),
    }
}

/// Files that are named as units become their services.
fn translate(service: &mut UnitFile, known: &Map) -> Result<(), Error> {
    for key in keys::DEPENDENCIES {
        let names = service.names(UNIT, key);
        if !names.iter().any(|name| Kind::of(name).is_some()) {
            continue;
        }
        let translated = names.iter().map(|name| match (Kind::of(name), known.get(name)) {
            (None, _) => Ok(name.clone()),
            (Some(_), Some(known)) => Ok(known.service_file()),
            (Some(_), None) => Err(bad(format!("unable to translate dependency for {name}"))),
        });
        let line = translated.collect::<Result<Vec<_>, _>>()?.join(" ");
        service.unset(UNIT, key);
        service.add(UNIT, key, &line);
    }
    Ok(())
}

/// The links that `[Install]` asks for: for what is made here, `systemctl enable` does nothing.
fn links(service: &UnitFile) -> Vec<(PathBuf, PathBuf)> {
    let mut places: Vec<PathBuf> = service
        .names(INSTALL, "Alias")
        .iter()
        .map(|alias| clean(Path::new(alias)))
        .collect();
    let instance = match service.template() {
        // A template is started as one of its instances only.
        Some((base, "")) => {
            let instance = service.text(INSTALL, "DefaultInstance");
            instance.map(|instance| format!("{base}@{instance}.service"))
        }
        _ => Some(service.name.clone()),
    };
    for (key, folder) in [
        ("WantedBy", "wants"),
        ("RequiredBy", "requires"),
        ("UpheldBy", "upholds"),
    ] {
        let units = service.names(INSTALL, key).into_iter();
        let units = units.filter(|unit| !unit.contains('/'));
        places.extend(units.filter_map(|unit| {
            let name = instance.as_ref()?;
            Some(PathBuf::from(format!("{unit}.{folder}/{name}")))
        }));
    }
    let inside = |place: &PathBuf| {
        place
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    places.retain(inside);
    places
        .into_iter()
        .map(|place| {
            let depth = place.components().count().saturating_sub(1);
            let up: PathBuf = std::iter::repeat_n("..", depth).collect();
            (place, up.join(&service.name))
        })
        .collect()
}

/// Whether a word begins with what systemd puts something else for (systemd.unit(5), "Specifiers").
fn is_specifier(word: &str) -> bool {
    word.starts_with('%') && !word.starts_with("%%")
}

/// A path without `.` and `..`, by its text alone.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, why)
}
