//! The flags of `build` that docker has not, and what a build says when the program is called `podman`.

use std::path::{Path, PathBuf};

use clap::Args;
use dhow_engine::{BuildFilter, BuildMount, BuildMountSource, BuildRequest, Built, Failed, Ignore};
use dhow_reference::Reference;
use dhow_types::Platform;

use super::BuildFlags;
use crate::interrupt::CODE;
use crate::render::build::{Stepwise, instruction};
use crate::render::note;
use crate::{CliError, Context, dialect};

/// Largest seccomp profile.
const MAX_PROFILE: u64 = 1 << 20;
/// Largest file of patterns.
const MAX_IGNORE: u64 = 1 << 20;

// No doc comment: clap would take it for that of the verb.
#[derive(Args, Debug)]
pub(super) struct PodmanFlags {
    /// The format of the image's manifest: oci, or docker
    #[arg(long, value_name = "FORMAT", value_parser = ["oci", "docker"])]
    format: Option<String>,
    /// Make one layer of what the build puts on its base
    #[arg(long)]
    squash: bool,
    /// Make one layer of the whole image, with what its base has
    #[arg(long)]
    squash_all: bool,
    /// Ask no registry: what is not here fails (as --pull=never)
    #[arg(long)]
    pub(super) pull_never: bool,
    /// Ask the registries for all images (as --pull=always)
    #[arg(long, conflicts_with = "pull_never")]
    pub(super) pull_always: bool,
    /// Write what the build says to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(super) logfile: Option<PathBuf>,
    /// Build so many stages and steps at once; 0 means as many as there are processors
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The file with the patterns of what is no part of the context, instead of .containerignore or .dockerignore
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// Name servers of the RUN instructions
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<std::net::IpAddr>,
    /// Search domains of the RUN instructions
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Options of the resolver in the RUN instructions
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Security options of the RUN instructions: seccomp=unconfined or seccomp=FILE
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Capabilities that the RUN instructions have besides the usual ones
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Usual capabilities that the RUN instructions do not have
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_drop: Vec<String>,
    /// Groups of the image that the commands of RUN instructions are in, besides those of their user
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Set a variable in the image, unless its instructions say otherwise; a name alone takes the value of this command's own
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Remove intermediate containers also after a failure, as is always done
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    force_rm: Option<bool>,
    /// Remove intermediate containers, as is always done
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    rm: Option<bool>,
    /// Read CDI specs for RUN --device from this folder instead of /etc/cdi and /var/run/cdi
    #[arg(long, value_name = "FOLDER")]
    cdi_spec_dir: Vec<PathBuf>,
    /// Give the RUN instructions a folder or file of this host (HOST:CONTAINER[:ro|rw])
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// The processor that the image is for (as --platform)
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// The system that the image is for (as --platform)
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// The variant of the processor that the image is for (as --platform)
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
}

impl PodmanFlags {
    /// Refuses what contradicts itself.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.squash && self.squash_all {
            return Err(CliError::plain("cannot specify --squash-all with --squash"));
        }
        for (name, value) in [("--rm", self.rm), ("--force-rm", self.force_rm)] {
            if value == Some(false) {
                return Err(CliError::plain(format!(
                    "{name}=false is not supported: a build keeps no intermediate containers"
                )));
            }
        }
        Ok(())
    }

    /// Whether layers are made one after the build.
    pub(super) fn squashes(&self) -> bool {
        self.squash || self.squash_all
    }

    /// The platform that these flags name together.
    pub(super) fn platform(&self) -> Option<Platform> {
        if self.arch.is_none() && self.os.is_none() && self.variant.is_none() {
            return None;
        }
        let mut platform = Platform::host();
        if let Some(os) = &self.os {
            platform.os.clone_from(os);
        }
        if let Some(arch) = &self.arch {
            platform.architecture.clone_from(arch);
            platform.variant = None;
        }
        if self.variant.is_some() {
            platform.variant.clone_from(&self.variant);
        }
        Some(platform.normalized())
    }

    /// Adds what they mean to a request.
    pub(super) fn add_to(&self, request: &mut BuildRequest) -> Result<(), CliError> {
        request.never_pull |= self.pull_never;
        request.pull |= self.pull_always;
        request.parallel = self.jobs.filter(|jobs| *jobs > 0);
        if let Some(path) = &self.ignorefile {
            request.ignore = Ignore::Text(text(path, MAX_IGNORE, "ignore file")?);
        } else if dialect::spoken().is_podman() && request.ignore == Ignore::InContext {
            request.ignore = Ignore::Containers;
        }
        for text in crate::flags::env_pairs(&self.env, &[])? {
            if let Some((name, value)) = text.split_once('=') {
                request.env.push((name.to_owned(), value.to_owned()));
            }
        }
        let sandbox = &mut request.sandbox;
        sandbox.dns.clone_from(&self.dns);
        sandbox.dns_search.clone_from(&self.dns_search);
        sandbox.dns_options.clone_from(&self.dns_option);
        sandbox.cap_add.clone_from(&self.cap_add);
        sandbox.cap_drop.clone_from(&self.cap_drop);
        sandbox.groups.clone_from(&self.group_add);
        for folder in &self.cdi_spec_dir {
            sandbox
                .device_folders
                .extend(crate::flags::absolute(Some(folder))?);
        }
        for text in &self.volume {
            sandbox.mounts.push(volume(text)?);
        }
        for option in &self.security_opt {
            sandbox.filter = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some(("seccomp", "unconfined")) => BuildFilter::Nothing,
                Some(("seccomp", file)) if !file.is_empty() => {
                    BuildFilter::Profile(text(Path::new(file), MAX_PROFILE, "seccomp profile")?)
                }
                _ => {
                    let message = format!("--security-opt {option}: a build has no such option");
                    return Err(CliError::plain(message).with_hint("use seccomp=unconfined or seccomp=FILE"));
                }
            };
        }
        Ok(())
    }

    /// What comes after a build, before anything is delivered.
    pub(super) fn after(
        &self,
        context: &Context,
        built: &mut Built,
        names: &[Reference],
    ) -> Result<(), CliError> {
        let engine = context.engine()?;
        if self.squashes() {
            engine.squash_built(built, self.squash_all, names)?;
        }
        if let Some(format) = &self.format {
            engine.set_image_family(&built.image.id, format == "docker")?;
        }
        Ok(())
    }

    /// Refuses what needs an image in the store where none is wanted.
    pub(super) fn check_recorded(&self, recorded: bool) -> Result<(), CliError> {
        let flag = match (&self.format, self.squashes()) {
            (Some(_), _) => "--format",
            (None, true) => "--squash",
            (None, false) => return Ok(()),
        };
        if recorded {
            return Ok(());
        }
        Err(CliError::plain(format!(
            "{flag} is about the image in the store, and there is to be none"
        ))
        .with_hint("add --load"))
    }
}

/// `HOST:CONTAINER[:ro|rw]`.
fn volume(text: &str) -> Result<BuildMount, CliError> {
    let bad = |why: &str| CliError::plain(format!("invalid --volume {text:?}: {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts.as_slice() {
        [source, target] | [source, target, "rw"] => (*source, *target, false),
        [source, target, "ro"] => (*source, *target, true),
        _ => return Err(bad("write HOST:CONTAINER, and :ro or :rw after it")),
    };
    if !target.starts_with('/') {
        return Err(bad("the path in the container must be absolute"));
    }
    let source = std::fs::canonicalize(source).map_err(|error| bad(&error.to_string()))?;
    Ok(BuildMount {
        target: target.into(),
        source: BuildMountSource::Bind(source),
        read_only,
    })
}

/// What every container of this host has mounted, and so every RUN instruction.
pub(super) fn usual_mounts(context: &Context) -> Result<Vec<BuildMount>, CliError> {
    let mounts = context.globals.mounts()?.into_iter();
    Ok(mounts
        .map(|(source, target)| BuildMount {
            target,
            source: BuildMountSource::Bind(source),
            read_only: true,
        })
        .collect())
}

fn text(path: &Path, most: u64, what: &str) -> Result<String, CliError> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_string(&mut text))
        .map_err(|error| CliError::plain(format!("read the {what} {}: {error}", path.display())))?;
    Ok(text)
}

/// The folder that is the context when nobody names one: that of the first Containerfile, else this one (podman
/// `cmd/podman/common/build.go`).
pub(super) fn usual_context(files: &[PathBuf]) -> String {
    let parent = files
        .iter()
        .find(|file| file.is_file())
        .and_then(|file| file.parent())
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or_else(|| ".".to_owned(), |parent| parent.display().to_string())
}

/// Whether layers are kept for later builds when no flag says: `BUILDAH_LAYERS`.
pub(super) fn usual_layers() -> bool {
    !dialect::spoken().is_podman()
        || !matches!(
            std::env::var("BUILDAH_LAYERS").as_deref(),
            Ok("0" | "f" | "F" | "false" | "False" | "FALSE")
        )
}

/// What says a build's steps in buildah's words: to a file, or where nobody looks.
pub(super) fn stepwise(flags: &BuildFlags) -> Result<Option<Stepwise>, CliError> {
    if let Some(file) = &flags.podman.logfile {
        return Stepwise::to_file(file).map(Some);
    }
    let says = dialect::spoken().is_podman() && flags.progress == "auto" && !crate::terminal::is_lively();
    Ok(says.then(Stepwise::new))
}

/// The last lines of a build: the image, its names, its ID.
pub(super) fn end(say: &Stepwise, built: &Built, names: &[Reference], given: &[String]) {
    let id = built.image.id.hex();
    let first = given.first().map_or(String::new(), |name| format!(" {name}"));
    let mut text = format!("COMMIT{first}\n--> {}\n", built.image.id.short());
    for name in names {
        text.push_str(&format!("Successfully tagged {}\n", name.canonical()));
    }
    text.push_str(&format!("{id}\n"));
    say.say(text.as_bytes());
}

/// A failure in podman's words, and its exit code: that of the command that failed, as podman has it.
pub(super) fn failed(failed: &Failed, dockerfile: &str) -> CliError {
    let chain = crate::error::chain(&failed.error);
    // What is wrong before a step began has a place in the file.
    let place = failed.place.as_ref().filter(|_| failed.more.is_empty());
    let line = place.and_then(|place| dockerfile.get(place.span.start..place.span.end));
    let step = failed.step.as_deref().map(instruction).or(line.map(str::trim));
    let code = chain
        .rsplit_once("did not complete successfully: exit code: ")
        .and_then(|(_, code)| code.parse::<u8>().ok());
    let message = match step {
        Some(step) if step.starts_with("FROM ") && chain.contains(": there is no such image here") => {
            let name = chain.split(": there is no such image here").next().unwrap_or("");
            format!("creating build container: {name}: image not known")
        }
        Some(step) if step.starts_with("FROM ") => format!("creating build container: {chain}"),
        Some(step) => format!("building at STEP \"{step}\": {chain}"),
        None => chain,
    };
    note(&dialect::spoken().failure(&message));
    if let Some(hint) = dhow_types::Failure::hint(failed) {
        note(&format!("hint: {hint}"));
    }
    let cancelled = dhow_types::Failure::kind(failed) == dhow_types::ErrorKind::Cancelled;
    CliError::exit(if cancelled { CODE } else { code.unwrap_or(125) })
}
