//! `--output`, `--load`, `--push`: where what was built goes.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use dhow_engine::{About, Annotations, ArchiveForm, Built, Compression, Engine, PushForm};
use dhow_oci::Descriptor;
use dhow_reference::Reference;
use serde_json::{Value, json};

use super::annotation;
use crate::cmd::save::archive;
use crate::render::{Progress, note};
use crate::{CliError, Context};

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Stdout,
    File(PathBuf),
}

/// One output.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Output {
    /// The store, and then perhaps the registries that the names say.
    Image { push: bool },
    /// An archive for `docker load`, or an OCI layout as a tar.
    Archive { docker: bool, place: Place },
    /// An OCI layout as a folder.
    Layout { docker: bool, folder: PathBuf },
    /// The root file system as a tar.
    Tar(Place),
    /// The root file system as files.
    Local(PathBuf),
    /// Nothing but what the cache keeps.
    Nothing,
}

/// All outputs of a build.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    all: Vec<(Output, Options)>,
    tags: Vec<Reference>,
}

/// What an output may say besides.
#[derive(Clone, Debug, Default)]
struct Options {
    names: Vec<Reference>,
    compression: Option<Compression>,
    /// Whether layers that the registry is known to have in another way are compressed again.
    force_compression: bool,
    annotations: Annotations,
    rewrite_timestamp: bool,
    /// Whether each platform has a folder of its own.
    split: Option<bool>,
}

impl Outputs {
    /// Reads the flags; without any the store gets the image.
    pub(crate) fn parse(
        outputs: &[String],
        load: bool,
        push: bool,
        tags: &[Reference],
    ) -> Result<Self, CliError> {
        let mut all = outputs
            .iter()
            .map(|text| one(text))
            .collect::<Result<Vec<_>, _>>()?;
        let is_image = |output: &Output| matches!(output, Output::Image { .. });
        if push {
            let images = all.iter_mut().map(|(output, _)| output);
            let mut images: Vec<&mut Output> = images.filter(|output| is_image(output)).collect();
            if images.is_empty() {
                all.push((Output::Image { push }, Options::default()));
            } else {
                images
                    .iter_mut()
                    .for_each(|output| **output = Output::Image { push });
            }
        }
        if (load || all.is_empty()) && !all.iter().any(|(output, _)| is_image(output)) {
            all.push((Output::Image { push: false }, Options::default()));
        }
        let outputs = Self {
            all,
            tags: tags.to_vec(),
        };
        outputs.check()?;
        Ok(outputs)
    }

    fn check(&self) -> Result<(), CliError> {
        let streams = self.all.iter().filter(|(output, _)| output.is_stdout()).count();
        if streams > 1 {
            return Err(CliError::plain("only one output can go to standard output"));
        }
        if streams == 1 && std::io::stdout().is_terminal() {
            return Err(CliError::plain(
                "dest file is required for this output: refusing to write to console",
            )
            .with_hint("add dest=FILE, or redirect"));
        }
        let pushed = self
            .all
            .iter()
            .find(|(output, _)| *output == Output::Image { push: true });
        if pushed.is_some_and(|(_, options)| self.names(options).is_empty()) {
            return Err(CliError::plain("tag is needed when pushing to registry")
                .with_hint("name the image with --tag or with name= of the output"));
        }
        Ok(())
    }

    /// `--tag`, or what the output itself says.
    fn names(&self, options: &Options) -> Vec<Reference> {
        if self.tags.is_empty() {
            options.names.clone()
        } else {
            self.tags.clone()
        }
    }

    fn image(&self) -> Option<&Options> {
        let image = self
            .all
            .iter()
            .find(|(output, _)| matches!(output, Output::Image { .. }));
        image.map(|(_, options)| options)
    }

    /// Whether the store is to have the image.
    pub(crate) fn recorded(&self) -> bool {
        self.image().is_some()
    }

    /// The names that the store is to give.
    pub(crate) fn recorded_names(&self) -> Vec<Reference> {
        self.image().map_or_else(Vec::new, |options| self.names(options))
    }

    /// What the manifest in the store is to say.
    pub(crate) fn annotations(&self) -> Annotations {
        self.image()
            .map_or_else(Annotations::default, |options| options.annotations.clone())
    }

    /// Refuses annotations, of all or of an output, that need an index, where there is one image.
    pub(crate) fn check_of_one(&self, annotations: &Annotations) -> Result<(), CliError> {
        let own = self.all.iter().map(|(_, options)| &options.annotations);
        own.chain([annotations]).try_for_each(annotation::check_of_one)
    }

    /// Whether an output wants the times of files to be those of `SOURCE_DATE_EPOCH` at most.
    pub(crate) fn rewrites_timestamps(&self) -> bool {
        self.all.iter().any(|(_, options)| options.rewrite_timestamp)
    }

    /// Whether files are written, of which something can be said beside them.
    pub(crate) fn has_files(&self) -> bool {
        self.all
            .iter()
            .any(|(output, _)| matches!(output, Output::Local(_)))
    }

    /// Whether standard output is taken.
    pub(crate) fn takes_stdout(&self) -> bool {
        self.all.iter().any(|(output, _)| output.is_stdout())
    }

    /// Pushes what is to be pushed, once more than [`Self::deliver`] does.
    pub(crate) fn push(&self, context: &Context, quiet: bool) -> Result<(), CliError> {
        let pushed = self
            .all
            .iter()
            .filter(|(output, _)| *output == Output::Image { push: true });
        for (_, options) in pushed {
            push(context, &self.names(options), options, quiet)?;
        }
        Ok(())
    }

    /// Brings what was built to all of them; what `--metadata-file` says.
    pub(crate) fn deliver(
        &self,
        context: &Context,
        built: &Built,
        annotations: &Annotations,
        about: &About<'_>,
        quiet: bool,
    ) -> Result<BTreeMap<String, Value>, CliError> {
        let id = built.image.id.to_string();
        let mut told = BTreeMap::from([("containerimage.config.digest".to_owned(), json!(id))]);
        for (output, options) in &self.all {
            if let Output::Local(folder) = output {
                let built = std::slice::from_ref(built);
                check_out(context.engine()?, built, folder, options.split, about)?;
                if !quiet {
                    note(&format!("wrote files to {}", folder.display()));
                }
                continue;
            }
            let names = self.names(options);
            let written = output.write(context, built, &names, options, annotations, quiet)?;
            let names: Vec<String> = names.iter().map(Reference::canonical).collect();
            if !names.is_empty() && output.has_names() {
                told.insert("image.name".to_owned(), json!(names.join(",")));
            }
            match written {
                Some(Written::Manifest(manifest)) => {
                    told.insert("containerimage.digest".to_owned(), json!(manifest.digest));
                    told.insert("containerimage.descriptor".to_owned(), json!(manifest));
                }
                Some(Written::Pushed(digest)) => {
                    told.insert("containerimage.digest".to_owned(), json!(digest));
                }
                // As with docker's own store: the image is known by the digest of its config.
                Some(Written::Stored) => {
                    told.entry("containerimage.digest".to_owned())
                        .or_insert(json!(id));
                }
                None => {}
            }
        }
        Ok(told)
    }
}

impl Outputs {
    /// Whether all outputs can take an index of several images.
    pub(crate) fn check_several(&self) -> Result<(), CliError> {
        for (output, _) in &self.all {
            let why = match output {
                Output::Image { push: false } => "the store has one image for a name",
                Output::Archive { docker: true, .. } | Output::Layout { docker: true, .. } => {
                    "docker's archives hold single images"
                }
                _ => continue,
            };
            return Err(
                CliError::plain(format!("several platforms have no place there: {why}"))
                    .with_hint("use --push, type=oci, type=local or type=tar"),
            );
        }
        Ok(())
    }

    /// As [`Self::deliver`], for images of several machines.
    pub(crate) fn deliver_all(
        &self,
        context: &Context,
        built: &[Built],
        annotations: &Annotations,
        about: &About<'_>,
        quiet: bool,
    ) -> Result<BTreeMap<String, Value>, CliError> {
        let engine = context.engine()?;
        let mut told = BTreeMap::new();
        let mut tell = |key: &str, value: Value| drop(told.insert(key.to_owned(), value));
        for (output, options) in &self.all {
            let names = self.names(options);
            let mut all = annotations.clone();
            all.extend(&options.annotations);
            let form = ArchiveForm {
                docker: false,
                layers: options.compression.unwrap_or(Compression::None),
                annotations: all.clone(),
            };
            let push = PushForm {
                annotations: all.clone(),
                ..options.push_form()
            };
            let mut index = None;
            match output {
                Output::Image { .. } => {
                    for name in &names {
                        let progress = Progress::new(quiet);
                        let pushed = engine.push_built_index(built, name, &push, about, &progress);
                        progress.finish();
                        tell("containerimage.digest", json!(pushed?.digest));
                    }
                }
                Output::Archive { place, .. } => drop(archive(place.file(), |output| {
                    index = Some(engine.write_built_index(built, &names, &form, about, output)?);
                    Ok(())
                })?),
                Output::Layout { folder, .. } => {
                    index = Some(engine.write_built_index_layout(built, &names, &form, about, folder)?);
                }
                Output::Local(folder) => {
                    check_out(engine, built, folder, options.split, about)?;
                }
                Output::Tar(place) => drop(archive(place.file(), |output| {
                    Ok(engine.write_built_trees(built, output)?)
                })?),
                Output::Nothing => {}
            }
            if let Some(index) = index {
                tell("containerimage.digest", json!(index.digest));
                tell("containerimage.descriptor", json!(index));
            }
            if output.has_names() && !names.is_empty() {
                let names: Vec<String> = names.iter().map(Reference::canonical).collect();
                tell("image.name", json!(names.join(",")));
            }
        }
        Ok(told)
    }
}

/// Writes the files of each into the folder, or into one of its own in it, and what is said of them.
fn check_out(
    engine: &Engine,
    built: &[Built],
    folder: &Path,
    split: Option<bool>,
    about: &About<'_>,
) -> Result<(), CliError> {
    let several = built.len() > 1;
    let split = split.unwrap_or(several);
    for (place, one) in built.iter().enumerate() {
        let own = split.then(|| folder.join(one.platform_folder()));
        let folder = own.as_deref().unwrap_or(folder);
        engine.check_out_built(one, folder)?;
        if !about.is_empty() {
            engine.check_out_about(place, one, about, folder, several && !split)?;
        }
    }
    Ok(())
}

/// Pushes these names; the digest of the last.
fn push(
    context: &Context,
    names: &[Reference],
    options: &Options,
    quiet: bool,
) -> Result<Option<String>, CliError> {
    let form = options.push_form();
    let mut digest = None;
    for name in names {
        if !quiet {
            note(&format!("pushing {}", name.canonical()));
        }
        let progress = Progress::new(quiet);
        let pushed = context.engine()?.push_as(&name.canonical(), &form, &progress);
        progress.finish();
        digest = Some(pushed?.digest.to_string());
    }
    Ok(digest)
}

/// What a delivery gave.
enum Written {
    Stored,
    Manifest(Box<Descriptor>),
    Pushed(String),
}

impl Output {
    fn is_stdout(&self) -> bool {
        let place = match self {
            Self::Archive { place, .. } | Self::Tar(place) => place,
            _ => return false,
        };
        *place == Place::Stdout
    }

    fn has_names(&self) -> bool {
        matches!(
            self,
            Self::Image { .. } | Self::Archive { .. } | Self::Layout { .. }
        )
    }

    fn write(
        &self,
        context: &Context,
        built: &Built,
        names: &[Reference],
        options: &Options,
        annotations: &Annotations,
        quiet: bool,
    ) -> Result<Option<Written>, CliError> {
        let engine = context.engine()?;
        let form = |docker: bool| {
            let mut all = annotations.clone();
            all.extend(&options.annotations);
            ArchiveForm {
                docker,
                layers: options.compression.unwrap_or(Compression::None),
                annotations: all,
            }
        };
        let say = |what: &str| {
            if !quiet {
                note(what);
            }
        };
        match self {
            Self::Image { push: false } => Ok(Some(Written::Stored)),
            Self::Image { push: true } => Ok(push(context, names, options, quiet)?.map(Written::Pushed)),
            Self::Archive { docker, place } => {
                let mut manifest = None;
                archive(place.file(), |output| {
                    manifest = Some(engine.write_built(built, names, &form(*docker), output)?);
                    Ok(())
                })?;
                Ok(manifest.map(|manifest| Written::Manifest(Box::new(manifest))))
            }
            Self::Layout { docker, folder } => {
                let manifest = engine.write_built_layout(built, names, &form(*docker), folder)?;
                say(&format!("wrote an OCI layout to {}", folder.display()));
                Ok(Some(Written::Manifest(Box::new(manifest))))
            }
            Self::Tar(place) => {
                archive(place.file(), |output| Ok(engine.write_built_tree(built, output)?))?;
                Ok(None)
            }
            Self::Local(_) | Self::Nothing => Ok(None),
        }
    }
}

impl Place {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path),
        }
    }
}

/// Reads one `--output`: a folder, `-`, or `type=...` with its options (buildx `util/buildflags/export.go`).
fn one(text: &str) -> Result<(Output, Options), CliError> {
    let bad = |why: &str| CliError::plain(format!("invalid --output {text:?}: {why}"));
    let fields = crate::flags::csv(text);
    if let [only] = fields.as_slice()
        && !only.starts_with("type=")
    {
        return Ok(match only.as_str() {
            "" => return Err(bad("it is empty")),
            "-" => (Output::Tar(Place::Stdout), Options::default()),
            folder => (Output::Local(PathBuf::from(folder)), Options::default()),
        });
    }
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| bad(&format!("{field:?} is not key=value")))?;
        known.insert(key.trim().to_ascii_lowercase(), value.to_owned());
    }
    let kind = known.remove("type").ok_or_else(|| bad("type is required"))?;
    let mut options = Options::default();
    options.read(&kind, &mut known).map_err(|why| bad(&why))?;
    let output = kind_of(&kind, &mut known).map_err(|why| bad(&why))?;
    match known.keys().next() {
        None => Ok((output, options)),
        Some(key) => Err(bad(&format!("type={kind} has no {key} here"))),
    }
}

fn kind_of(kind: &str, known: &mut BTreeMap<String, String>) -> Result<Output, String> {
    let dest = known.remove("dest");
    let place = |dest: Option<String>| match dest.as_deref() {
        None | Some("" | "-") => Place::Stdout,
        Some(path) => Place::File(PathBuf::from(path)),
    };
    Ok(match kind {
        "image" | "registry" => {
            let push = match known.remove("push") {
                Some(text) => switch("push", &text)?,
                None => kind == "registry",
            };
            for ignored in ["unpack", "store"] {
                // The store always has what is built, unpacked: layers are kept in no other way.
                if known
                    .remove(ignored)
                    .map(|text| switch(ignored, &text))
                    .transpose()?
                    == Some(false)
                    && ignored == "store"
                {
                    return Err("store=false: what is pushed is in the store here".to_owned());
                }
            }
            Output::Image { push }
        }
        "docker" if dest.is_none() => Output::Image { push: false },
        "oci" | "docker" => {
            let docker = kind == "docker";
            let tar = known.remove("tar").map(|text| switch("tar", &text)).transpose()?;
            if tar == Some(false) {
                let folder = dest.filter(|dest| !dest.is_empty() && dest != "-");
                let folder = folder.ok_or("tar=false needs dest=FOLDER")?;
                Output::Layout {
                    docker,
                    folder: PathBuf::from(folder),
                }
            } else {
                Output::Archive {
                    docker,
                    place: place(dest),
                }
            }
        }
        "tar" => Output::Tar(place(dest)),
        "local" => {
            let folder = dest.filter(|dest| !dest.is_empty());
            Output::Local(PathBuf::from(folder.ok_or("type=local needs dest=FOLDER")?))
        }
        "cacheonly" if dest.is_none() => Output::Nothing,
        "cacheonly" => return Err("type=cacheonly has no dest".to_owned()),
        other => {
            return Err(format!(
                "unknown type {other:?}: image, registry, docker, oci, tar, local, cacheonly"
            ));
        }
    })
}

impl Options {
    fn push_form(&self) -> PushForm {
        PushForm {
            compression: self.compression.unwrap_or(Compression::Gzip),
            force: self.force_compression,
            ..PushForm::default()
        }
    }

    fn read(&mut self, kind: &str, known: &mut BTreeMap<String, String>) -> Result<(), String> {
        if kind == "local"
            && let Some(text) = known.remove("platform-split")
        {
            self.split = Some(switch("platform-split", &text)?);
        }
        if !matches!(kind, "image" | "registry" | "docker" | "oci") {
            return Ok(());
        }
        if let Some(text) = known.remove("rewrite-timestamp") {
            self.rewrite_timestamp = switch("rewrite-timestamp", &text)?;
            if !self.rewrite_timestamp {
                let why = "with SOURCE_DATE_EPOCH the times of new files are always rewritten";
                return Err(format!("rewrite-timestamp=false: {why}"));
            }
        }
        if let Some(text) = known.remove("name") {
            for name in text.split(',').filter(|name| !name.is_empty()) {
                let name = Reference::parse(&crate::dialect::spoken().new_name(name));
                self.names
                    .push(name.map_err(|error| error.to_string())?.or_latest());
            }
        }
        if let Some(text) = known.remove("oci-mediatypes")
            && !switch("oci-mediatypes", &text)?
        {
            return Err("oci-mediatypes=false: what is built here has OCI's media types".to_owned());
        }
        if let Some(text) = known.remove("compression") {
            self.compression = Some(compression(&text)?);
        }
        if let Some(text) = known.remove("force-compression") {
            self.force_compression = switch("force-compression", &text)?;
        }
        let keys: Vec<String> = known
            .keys()
            .filter(|key| key.starts_with("annotation"))
            .cloned()
            .collect();
        for key in keys {
            let value = known.remove(&key).unwrap_or_default();
            let name = key.strip_prefix("annotation").unwrap_or_default();
            annotation::add_field(&mut self.annotations, name, &value)?;
        }
        Ok(())
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "uncompressed" => Ok(Compression::None),
        "zstd" => Ok(Compression::Zstd),
        other => Err(format!("compression={other:?}: write uncompressed, gzip or zstd")),
    }
}

fn switch(key: &str, text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("{key}={other:?}: write true or false")),
    }
}

/// Writes `--metadata-file`, whole or not at all.
pub(crate) fn write_metadata(path: &Path, told: &BTreeMap<String, Value>) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::plain(format!("write {}: {error}", path.display()));
    let text = serde_json::to_vec_pretty(told).map_err(|error| CliError::plain(error.to_string()))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use dhow_engine::AnnotationPlace;
    use dhow_types::Platform;

    use super::*;

    fn parsed(text: &str) -> Output {
        one(text).unwrap().0
    }

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        assert_eq!(parsed("out"), Output::Local("out".into()));
        assert_eq!(parsed("-"), Output::Tar(Place::Stdout));
        assert_eq!(parsed("type=local,dest=a=b"), Output::Local("a=b".into()));
        assert_eq!(
            parsed("type=tar,dest=x.tar"),
            Output::Tar(Place::File("x.tar".into()))
        );
        assert_eq!(parsed("type=docker"), Output::Image { push: false });
        assert_eq!(parsed("type=registry,name=a/b"), Output::Image { push: true });
        assert_eq!(
            parsed("type=image,name=a,push=true"),
            Output::Image { push: true }
        );
        assert_eq!(parsed("type=cacheonly"), Output::Nothing);
        let (oci, options) =
            one("type=oci,dest=d,tar=false,\"name=a,b:1\",compression=zstd,annotation.k=v").unwrap();
        let folder = PathBuf::from("d");
        assert_eq!(
            oci,
            Output::Layout {
                docker: false,
                folder
            }
        );
        let names: Vec<_> = options.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:latest", "b:1"]);
        let said = options
            .annotations
            .of(AnnotationPlace::Manifest, &Platform::host());
        assert_eq!(said["k"], "v");
        assert_eq!(options.compression, Some(Compression::Zstd));
    }

    #[test]
    fn what_an_output_does_not_have_is_named() {
        for (bad, word) in [
            ("", "empty"),
            ("type=nothing", "nothing"),
            ("dest=x,colour=red", "type"),
            ("type=local", "dest"),
            ("type=local,dest=x,name=y", "name"),
            ("type=cacheonly,dest=x", "dest"),
            ("type=image,push=maybe", "push"),
            ("type=image,name=UPPER", "UPPER"),
            ("type=oci,tar=false", "dest"),
            ("type=tar,dest=x,annotation.a=b", "annotation"),
            ("type=oci,dest=x,annotation-place.a=b", "annotation-place"),
        ] {
            let error = one(bad).unwrap_err();
            assert!(error.message().contains(word), "{bad}: {error:?}");
        }
    }
}
