//! `build`.

mod annotation;
mod attest;
mod cache;
mod classic;
mod named;
mod output;
mod packages;
mod podman;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{
    AnnotationPlace, Annotations, BuildAround, BuildEvent, BuildFailure, BuildLimit, BuildNetwork,
    BuildObserver, BuildRequest, BuildSecret, Built, ContextFolder, Difference, Engine, Failed, Limits,
};
use dhow_reference::Reference;
use dhow_types::{ByteSize, ErrorKind, Observer, Platform, Silent};

use super::build_call::Call;
use crate::flags::{LimitFlags, key_value, labels};
use crate::interrupt::{CODE, Interrupt};
use crate::render::build::call::warnings;
use crate::render::build::{Classic, Live, Plain, RawJson, Stepwise, Why, Written, failure};
use crate::render::{Progress, note, say_line};
use crate::{CliError, Context, Verb};

pub(super) use self::annotation::{check_of_one, parse as annotations};
use self::attest::{Saying, Wanted};
use self::named::entitlement;
use self::output::Outputs;

pub(crate) const VERB: Verb = Verb {
    name: "build",
    about: "Build an image from a Dockerfile",
    flags: |command| {
        let command = crate::flags::registry::augment(BuildFlags::augment_args(command));
        // Podman's users may leave the context out.
        match crate::dialect::spoken().is_podman() {
            true => command,
            false => command.mut_arg("context", |context| {
                context.required_unless_present("from_packages")
            }),
        }
    },
    run,
};

#[derive(Args, Debug)]
struct BuildFlags {
    /// Name and optionally a tag (format: "name:tag")
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Name of the Dockerfile (default: "PATH/Dockerfile"); - reads it from standard input; of several one is made
    #[arg(short, long, value_name = "FILE|-")]
    file: Vec<PathBuf>,
    /// Set build-time variables
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Set the target build stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// With false: build everything again, as without a cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = ["true", "false", "1", "0"])]
    layers: Option<String>,
    /// Always attempt to pull all referenced images; or missing, never (podman's words) (default "missing")
    #[arg(long, default_value = "missing", hide_default_value = true, num_args = 0..=1, require_equals = true, default_missing_value = "always", value_parser = ["true", "always", "newer", "ifnewer", "false", "missing", "ifmissing", "never"])]
    pull: String,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long, default_value = "default", value_parser = ["default", "host", "none"])]
    network: String,
    /// Set metadata for an image
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Set target platform for build; several give an index of images
    #[arg(long, value_delimiter = ',')]
    platform: Vec<Platform>,
    /// BuildSecret to expose to the build (format: "id=mysecret[,src=/local/secret][,env=NAME]")
    #[arg(long)]
    secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh and git over ssh (format: "default" for $SSH_AUTH_SOCK, or "id=/path/of/socket")
    #[arg(long, value_name = "ID[=SOCKET]")]
    ssh: Vec<String>,
    /// What a name in the Dockerfile stands for: a folder, docker-image://, oci-layout:// or a git repository
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// Set type of progress output
    #[arg(long, default_value = "auto", value_parser = ["auto", "plain", "tty", "quiet", "rawjson"])]
    progress: String,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write build result metadata to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Where the result goes: FOLDER, - for a tar, or type=image|registry|docker|oci|tar|local|cacheonly,...
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Shorthand for "--output=type=docker": the store gets the image, as it does when nothing is said
    #[arg(long)]
    load: bool,
    /// Shorthand for "--output=type=registry": the image is pushed
    #[arg(long)]
    push: bool,
    /// Add annotation to the image
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Add a custom host-to-IP mapping (format: "host:ip")
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Shared memory size for build containers
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<ByteSize>,
    /// Check the Dockerfile for what is not wise, without a build (same as --call=check)
    #[arg(long)]
    check: bool,
    /// Answer a question instead of building: check, outline or targets (format: "METHOD[,format=json]")
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "build",
        conflicts_with = "check"
    )]
    call: String,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
    /// Set the parent cgroup for the RUN instructions during build
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Allow extra privileged entitlement
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', value_parser = entitlement)]
    allow: Vec<String>,
    /// Attestation parameters (format: "type=provenance,mode=max")
    #[arg(long, value_name = "TYPE")]
    attest: Vec<String>,
    /// Shorthand for "--attest=type=provenance"; kept beside the image, none by default
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "MODE")]
    provenance: Option<String>,
    /// Shorthand for "--attest=type=sbom": what is in the image, kept beside it; none by default
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "MODE")]
    sbom: Option<String>,
    /// External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Cache export destinations (e.g., "type=registry,ref=user/app:cache,mode=max", "type=local,dest=dir,mounts=true",
    /// "type=inline")
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Tell for each step whether it was in the cache, and if not, which input was the first to differ
    #[arg(long)]
    why: bool,
    /// Build twice, the second time without the cache, and fail with the first difference if there is one
    #[arg(long)]
    verify_reproducible: bool,
    /// Do not cache specified stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Without a Dockerfile: the distribution and packages that this file (or -) lists, a word a line, and what they need;
    /// -PACKAGE leaves one out
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["context", "file"])]
    from_packages: Option<PathBuf>,
    #[command(flatten)]
    podman: podman::PodmanFlags,
    /// The build context: a folder, the URL of a tar, or - for a tar or a Dockerfile alone on standard input
    #[arg(value_name = "PATH|URL|-", default_value = "", hide_default_value = true)]
    context: String,
}

/// Largest secret (buildkit: 500 KiB).
const MAX_SECRET: u64 = 500 << 10;

fn read(matches: &ArgMatches) -> Result<BuildFlags, CliError> {
    let mut flags: BuildFlags = crate::flags::read(matches)?;
    flags.podman.check()?;
    if flags.platform.is_empty() {
        flags.platform.extend(crate::flags::usual_platform()?);
    }
    if flags.context.is_empty() {
        flags.context = podman::usual_context(&flags.file);
    }
    Ok(flags)
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags = read(matches)?;
    if let Some(list) = &flags.from_packages {
        return packages::build(context, &flags, list);
    }
    let interrupt = Interrupt::watch()?;
    let outputs = Outputs::parse(&flags.output, flags.load, flags.push, &tags(&flags)?)?;
    let (mut request, _folder) = request(context, &flags)?;
    let call = if flags.check { "check" } else { flags.call.as_str() };
    if let Some(call) = Call::parse(call)? {
        return call.answer(context, &request);
    }
    let names = outputs.recorded_names();
    if !flags.podman.squashes() {
        request.tags.clone_from(&names);
    }
    request.record = outputs.recorded();
    flags.podman.check_recorded(request.record)?;
    let annotations = annotations(&flags.annotation)?;
    request.annotations = recorded(&flags, &outputs, &annotations, request.platform.as_ref())?;
    request.cancel = interrupt.flag();
    request.run_dir = context.environment.run().to_owned();
    let say = podman::stepwise(&flags)?;
    let classic = classic::begin(&flags, &mut request);
    let look = flags.look(say.as_ref(), classic.as_ref());
    let quiet = look.quiet;
    if outputs.rewrites_timestamps() && !has_epoch(&request) {
        return Err(CliError::plain("rewrite-timestamp=true needs a time")
            .with_hint("set SOURCE_DATE_EPOCH, in the environment or with --build-arg"));
    }
    let cache_to = cache::to(&flags.cache_to)?;
    request.tell_results = !cache_to.exports.is_empty();
    // BuildKit's argument for the same.
    let argument = request.build_args.get("BUILDKIT_INLINE_CACHE");
    request.inline_cache = cache_to.inline || argument.is_some_and(|value| value == "1");
    if platforms(&flags).len() > 1 {
        return build_all(
            context,
            &flags,
            request,
            &outputs,
            &annotations,
            &interrupt,
            &look,
        );
    }
    let wanted = Wanted::of(&flags)?;
    if !wanted.nothing() && names.is_empty() && !outputs.has_files() {
        return Err(
            CliError::plain("an attestation is kept beside an image with a name in the store")
                .with_hint("name it with --tag, and with other outputs add --load"),
        );
    }
    let saying = Saying::begin(context, wanted)?;
    let mut built = solve(context, &flags, &look, &request, &interrupt)?;
    flags.podman.after(context, &mut built, &names)?;
    let said = saying.end(std::slice::from_ref(&built), &names)?;
    let about = said.about(std::slice::from_ref(&request));
    if !about.is_empty() && !names.is_empty() {
        // It is about the manifest that the registry has, which is known when the layers are there.
        outputs.push(context, quiet)?;
        context.engine()?.attest_built(&mut built, &names, &about)?;
    }
    interrupt.end_when_it_comes(|| {});
    let told = outputs.deliver(context, &built, &annotations, &about, quiet)?;
    export_cache(context, &cache_to, std::slice::from_ref(&built), quiet)?;
    if let Some(path) = &flags.metadata_file {
        output::write_metadata(path, &told)?;
    }
    finish(&flags, &outputs, &look, &built)?;
    if !quiet && say.is_none() && classic.is_none() {
        warn(&request, &built);
    }
    warn_of_bases(context, &built)?;
    Ok(ExitCode::SUCCESS)
}

/// What docker's rules say of the Dockerfile.
fn warn(request: &BuildRequest, built: &Built) {
    let source = Written {
        name: &request.dockerfile_name,
        text: &request.dockerfile,
    };
    let said = warnings(&built.warnings, source);
    if !said.is_empty() {
        note(said.trim_end());
    }
}

/// What is said of the images that it was made of.
fn warn_of_bases(context: &Context, built: &Built) -> Result<(), CliError> {
    for (name, image) in &built.bases {
        super::lifecycle::warn(context.engine()?, &image.id, name);
    }
    Ok(())
}

fn has_epoch(request: &BuildRequest) -> bool {
    request.source_date_epoch.is_some() || request.build_args.contains_key("SOURCE_DATE_EPOCH")
}

fn export_cache(
    context: &Context,
    to: &cache::CacheTo,
    built: &[Built],
    quiet: bool,
) -> Result<(), CliError> {
    for (export, failure_ignored) in &to.exports {
        if !quiet {
            note(&format!("exporting cache to {}", export.to));
        }
        match context.engine()?.export_cache(built, export) {
            Err(error) if *failure_ignored => {
                note(&crate::dialect::warning(&crate::error::chain(&error)));
            }
            exported => drop(exported?),
        }
    }
    Ok(())
}

/// What the manifest in the store says; annotations that have no place are refused.
fn recorded(
    flags: &BuildFlags,
    outputs: &Outputs,
    annotations: &Annotations,
    platform: Option<&Platform>,
) -> Result<BTreeMap<String, String>, CliError> {
    let mut all = annotations.clone();
    all.extend(&outputs.annotations());
    if platforms(flags).len() < 2 {
        outputs.check_of_one(annotations)?;
    }
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    Ok(all.of(AnnotationPlace::Manifest, &platform))
}

/// Builds an image for each of several machines, and brings the index of them to the outputs.
fn build_all(
    context: &Context,
    flags: &BuildFlags,
    mut request: BuildRequest,
    outputs: &Outputs,
    annotations: &Annotations,
    interrupt: &Interrupt,
    look: &Look<'_>,
) -> Result<ExitCode, CliError> {
    let quiet = look.quiet;
    outputs.check_several()?;
    flags.podman.check_recorded(false)?;
    if flags.verify_reproducible {
        let message = "--verify-reproducible: not with several platforms, only with one";
        return Err(CliError::plain(message));
    }
    let saying = Saying::begin(context, Wanted::of(flags)?)?;
    // The store knows one image by a name: that for this machine, and there may be none.
    request.record = false;
    request.tags = Vec::new();
    let one = |platform: &Platform| BuildRequest {
        platform: Some(platform.clone()),
        ..request.clone()
    };
    let requests: Vec<BuildRequest> = platforms(flags).iter().map(one).collect();
    let caches = cache::from(&flags.cache_from)?;
    let limits = flags.limits.limits().map_err(CliError::plain)?;
    let built: Vec<Built> = show(context, look, &requests, interrupt, |engine, show, pulls| {
        let around = BuildAround {
            caches: &caches,
            limits: &limits,
        };
        engine.build_each(&requests, around, show, pulls)
    })?;
    interrupt.end_when_it_comes(|| {});
    let said = saying.end(&built, &tags(flags)?)?;
    let about = said.about(&requests);
    let told = outputs.deliver_all(context, &built, annotations, &about, quiet)?;
    export_cache(context, &cache::to(&flags.cache_to)?, &built, quiet)?;
    if let Some(path) = &flags.metadata_file {
        output::write_metadata(path, &told)?;
    }
    if let Some(path) = &flags.iidfile {
        let digest = told
            .get("containerimage.digest")
            .and_then(|digest| digest.as_str());
        let digest = digest.ok_or_else(|| {
            CliError::plain(
                "--iidfile: several platforms have an ID together only where their index is written",
            )
            .with_hint("add --push or --output type=oci")
        })?;
        write_id(path, digest)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `--platform`, each once.
fn platforms(flags: &BuildFlags) -> Vec<Platform> {
    let mut found: Vec<Platform> = Vec::new();
    for platform in flags.platform.iter().cloned().map(Platform::normalized) {
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    found
}

fn write_id(path: &std::path::Path, id: &str) -> Result<(), CliError> {
    let written = fs::write(path, id);
    written.map_err(|error| CliError::plain(format!("write the image ID to {}: {error}", path.display())))
}

/// Builds, and shows how it goes.
fn solve(
    context: &Context,
    flags: &BuildFlags,
    look: &Look<'_>,
    request: &BuildRequest,
    interrupt: &Interrupt,
) -> Result<Built, CliError> {
    let around = BuildAround {
        caches: &cache::from(&flags.cache_from)?,
        limits: &flags.limits.limits().map_err(CliError::plain)?,
    };
    let (built, difference) = show(
        context,
        look,
        std::slice::from_ref(request),
        interrupt,
        |engine, show, pulls| {
            if flags.verify_reproducible {
                return engine.build_twice(request, around, show, pulls);
            }
            Ok((engine.build(request, around, show, pulls)?, None))
        },
    )?;
    if flags.verify_reproducible {
        same(difference)?;
    }
    Ok(built)
}

/// How a build is shown.
struct Look<'a> {
    progress: &'a str,
    quiet: bool,
    why: bool,
    /// Buildah's words.
    stepwise: Option<&'a Stepwise>,
    /// Those of docker's classic builder.
    classic: Option<&'a Classic>,
}

impl BuildFlags {
    fn look<'a>(&'a self, stepwise: Option<&'a Stepwise>, classic: Option<&'a Classic>) -> Look<'a> {
        Look {
            progress: &self.progress,
            quiet: self.quiet || self.progress == "quiet",
            why: self.why,
            stepwise,
            classic,
        }
    }
}

/// Builds what another verb asks for, one after the other.
pub(super) fn steps(context: &Context, mut requests: Vec<BuildRequest>) -> Result<Vec<Built>, CliError> {
    let interrupt = Interrupt::watch()?;
    for (number, request) in requests.iter_mut().enumerate() {
        request.cancel = interrupt.flag();
        request.run_dir = context.environment.run().to_owned();
        request.dockerfile_name = format!("step {}", number + 1);
    }
    let look = Look {
        progress: "auto",
        quiet: false,
        why: false,
        stepwise: None,
        classic: None,
    };
    show(context, &look, &requests, &interrupt, |engine, show, pulls| {
        let around = BuildAround {
            caches: &[],
            limits: &Limits::default(),
        };
        engine.build_each(&requests, around, show, pulls)
    })
}

/// Shows how a build goes, and why it failed.
fn show<T>(
    context: &Context,
    look: &Look<'_>,
    requests: &[BuildRequest],
    interrupt: &Interrupt,
    build: impl FnOnce(&Engine, &dyn BuildObserver, &dyn Observer) -> Result<T, BuildFailure>,
) -> Result<T, CliError> {
    let lively = match look.progress {
        "tty" => true,
        "auto" => crate::terminal::is_lively(),
        _ => false,
    };
    let why = Why::default();
    let watching = |show: &dyn BuildObserver, pulls: &dyn Observer| -> Result<T, BuildFailure> {
        let show = Watching {
            show,
            interrupt,
            why: look.why.then_some(&why),
        };
        build(context.opened()?, &show, pulls)
    };
    let plain = Plain::default();
    let live = Live::default();
    let raw = RawJson::default();
    let built = if let Some(stepwise) = look.stepwise.filter(|_| !look.quiet) {
        // Lines of a pull are not among those that the image's ID ends.
        let pulls = Progress::new(false);
        watching(stepwise, &pulls)
    } else if let Some(classic) = look.classic {
        watching(classic, &Progress::new(false))
    } else if look.quiet {
        // Kept, in case it fails.
        watching(&Muted(&live), &Silent)
    } else if lively {
        let built = watching(&live, &live);
        live.finish();
        built
    } else if look.progress == "rawjson" {
        watching(&raw, &Silent)
    } else {
        let pulls = Progress::new(false);
        watching(&plain, &pulls)
    };
    why.tell();
    match built {
        Ok(built) => Ok(built),
        Err(_) if interrupt.came() => Err(CliError::plain("the build was cancelled").with_code(CODE)),
        Err(BuildFailure::Around(error)) => Err(error.into()),
        Err(BuildFailure::Build(failed)) => {
            let step = failed.step.as_deref().unwrap_or("");
            let tail = if let Some(stepwise) = look.stepwise.filter(|_| !look.quiet) {
                stepwise.tail(step)
            } else if let Some(classic) = look.classic {
                classic.tail(step)
            } else if look.quiet || lively {
                live.tail(step)
            } else if look.progress == "rawjson" {
                raw.tail(step)
            } else {
                plain.tail(step)
            };
            let file = failed.place.as_ref().map(|place| place.file.as_str());
            let wrong = requests
                .iter()
                .find(|request| Some(request.dockerfile_name.as_str()) == file);
            let text = wrong.map_or("", |request| request.dockerfile.as_str());
            if look.stepwise.is_some() {
                return Err(podman::failed(&failed, text));
            }
            Err(told(&failed, text, &tail))
        }
    }
}

/// Fails unless two builds gave the same.
fn same(difference: Option<Difference>) -> Result<(), CliError> {
    match difference {
        None => {
            note("the second build gave the same image");
            Ok(())
        }
        Some(Difference::Times) if std::env::var_os("SOURCE_DATE_EPOCH").is_none() => {
            note("the second build gave the same image but for times: SOURCE_DATE_EPOCH is not set");
            Ok(())
        }
        Some(difference) => Err(CliError::plain(format!(
            "the build is not reproducible: the first difference is {difference}"
        ))),
    }
}

/// The names that `--tag` gives.
fn tags(flags: &BuildFlags) -> Result<Vec<Reference>, CliError> {
    let tags = flags.tag.iter();
    tags.map(|tag| Ok(Reference::parse(&crate::dialect::spoken().new_name(tag))?.or_latest()))
        .collect()
}

fn told(failed: &Failed, dockerfile: &str, tail: &[(f64, String)]) -> CliError {
    note(failure(failed, dockerfile, tail).trim_end());
    CliError::exit(if dhow_types::Failure::kind(failed) == ErrorKind::Cancelled {
        CODE
    } else {
        1
    })
}

fn finish(flags: &BuildFlags, outputs: &Outputs, look: &Look<'_>, built: &Built) -> Result<(), CliError> {
    let id = built.image.id.to_string();
    if let Some(path) = &flags.iidfile {
        write_id(path, &id)?;
    }
    if look.quiet {
        if !outputs.takes_stdout() {
            say_line(&crate::dialect::spoken().image_id(&built.image.id))?;
        }
    } else if let Some(say) = look.stepwise {
        if !outputs.takes_stdout() || flags.podman.logfile.is_some() {
            podman::end(say, built, &outputs.recorded_names(), &flags.tag);
        }
    } else if let Some(classic) = look.classic {
        classic.end(built, &outputs.recorded_names());
    } else if outputs.recorded() {
        note(&format!("writing image {id}"));
        for name in outputs.recorded_names() {
            note(&format!("naming to {}", name.canonical()));
        }
    }
    Ok(())
}

/// Passes events on, and takes Ctrl-C once the builder has forked what it needs to.
struct Watching<'a> {
    show: &'a dyn BuildObserver,
    interrupt: &'a Interrupt,
    why: Option<&'a Why>,
}

impl BuildObserver for Watching<'_> {
    fn observe(&self, event: BuildEvent<'_>) {
        self.interrupt.set_flag_when_it_comes();
        if let Some(why) = self.why {
            why.observe(event);
        }
        self.show.observe(event);
    }
}

/// Keeps what is shown of a failure, and draws nothing.
struct Muted<'a>(&'a Live);

impl BuildObserver for Muted<'_> {
    fn observe(&self, event: BuildEvent<'_>) {
        self.0.keep(event);
    }
}

/// What to build, and what must stay until it is built.
fn request(context: &Context, flags: &BuildFlags) -> Result<(BuildRequest, Option<ContextFolder>), CliError> {
    let source = source::of(context, flags)?;
    let mut request = BuildRequest::new(source.dockerfile);
    request.context = source.context;
    request.dockerfile_name = source.name;
    request.ignore = source.ignore;
    request.context_time = source.time;
    request.context_source = source.material;
    request.target.clone_from(&flags.target);
    for argument in &flags.build_arg {
        match argument.split_once('=') {
            Some((name, value)) => drop(request.build_args.insert(name.to_owned(), value.to_owned())),
            // A name alone takes the value of this command's own environment, if it has one.
            None => {
                if let Ok(value) = std::env::var(argument) {
                    request.build_args.insert(argument.clone(), value);
                }
            }
        }
    }
    named::add_proxies(context, &mut request);
    request.labels = labels(&flags.label, &[])?;
    let layers = flags.layers.as_deref().map(|word| matches!(word, "true" | "1"));
    request.no_cache = flags.no_cache || !layers.unwrap_or_else(podman::usual_layers);
    request.pull = matches!(flags.pull.as_str(), "true" | "always" | "newer" | "ifnewer");
    request.never_pull = flags.pull == "never";
    request.network = match flags.network.as_str() {
        "host" => BuildNetwork::Host,
        "none" => BuildNetwork::None,
        _ => BuildNetwork::Default,
    };
    request.platform = platforms(flags)
        .into_iter()
        .next()
        .or_else(|| flags.podman.platform());
    request.source_date_epoch = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok());
    for text in &flags.secret {
        let (id, secret) = secret(text)?;
        request.secrets.insert(id, secret);
    }
    for text in &flags.ssh {
        let (id, socket) = named::agent(text)?;
        request.ssh.insert(id, socket);
    }
    for text in &flags.build_context {
        let (name, context) = named::context(text)?;
        request.contexts.insert(name, context);
    }
    for text in &flags.add_host {
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) =
            pair.ok_or_else(|| CliError::plain(format!("invalid --add-host {text:?}: write host:ip")))?;
        request.extra_hosts.push((name.to_owned(), address.to_owned()));
    }
    request.shm_size = flags.shm_size.map(|size| size.0);
    for text in &flags.ulimit {
        let limit = crate::flags::ulimit(text).map_err(CliError::plain)?;
        request.ulimits.push(BuildLimit {
            name: limit.name,
            soft: limit.soft,
            hard: limit.hard,
        });
    }
    request.cache_budget = cache_budget()?;
    request.cgroup_parent.clone_from(&flags.cgroup_parent);
    request.allow = named::entitlements(&flags.allow);
    let stages = flags.no_cache_filter.iter().map(|stage| stage.to_lowercase());
    request.uncached_stages = stages.collect();
    flags.podman.add_to(&mut request)?;
    request.sandbox.mounts.extend(podman::usual_mounts(context)?);
    Ok((request, source.folder))
}

/// `DHOW_BUILD_CACHE`: bytes that the build cache may have, or `unlimited`.
fn cache_budget() -> Result<Option<u64>, CliError> {
    match std::env::var("DHOW_BUILD_CACHE").ok().as_deref() {
        None | Some("") => Ok(None),
        Some("unlimited") => Ok(Some(u64::MAX)),
        Some(text) => match text.parse::<ByteSize>() {
            Ok(size) => Ok(Some(size.0)),
            Err(error) => Err(CliError::plain(format!("DHOW_BUILD_CACHE={text}: {error}"))),
        },
    }
}

/// `id=x,src=path`, `id=x,env=NAME`; with the id alone, the variable or the file of that name.
fn secret(text: &str) -> Result<(String, BuildSecret), CliError> {
    let bad = |why: &str| CliError::plain(format!("invalid --secret {text:?}: {why}"));
    let (mut id, mut file, mut variable) = (None, None, None);
    for field in text.split(',') {
        let (key, value) = key_value(field);
        match key.as_str() {
            "id" => id = Some(value),
            "src" | "source" => file = Some(value),
            "env" => variable = Some(value),
            "type" if value == "file" || value == "env" => {}
            _ => return Err(bad(&format!("unexpected field {field:?}"))),
        }
    }
    let id = id
        .filter(|id| !id.is_empty())
        .ok_or_else(|| bad("it needs an id"))?;
    let variable =
        variable.or_else(|| (file.is_none() && std::env::var_os(&id).is_some()).then(|| id.clone()));
    let bytes = match (variable, file) {
        (Some(name), None) => {
            let value =
                std::env::var_os(&name).ok_or_else(|| bad(&format!("there is no variable {name}")))?;
            std::os::unix::ffi::OsStringExt::into_vec(value)
        }
        (None, file) => {
            let path = file.unwrap_or_else(|| id.clone());
            let mut bytes = Vec::new();
            fs::File::open(&path)
                .and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut bytes))
                .map_err(|error| bad(&format!("{path}: {error}")))?;
            bytes
        }
        (Some(_), Some(_)) => return Err(bad("src and env exclude each other")),
    };
    if bytes.len() as u64 > MAX_SECRET {
        return Err(bad("it is larger than 500 KiB"));
    }
    Ok((id, BuildSecret(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_unknown_fields_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "hush").unwrap();
        let (id, value) = secret(&format!("id=token,src={}", path.display())).unwrap();
        assert_eq!((id.as_str(), value), ("token", BuildSecret(b"hush".to_vec())));
        for bad in [
            "",
            "src=x",
            "id=",
            "id=a,colour=red",
            "id=a,src=/nonexistent",
            "id=a,env=NO_SUCH_VARIABLE_",
            "id=a,src=b,env=c",
        ] {
            assert!(secret(bad).is_err(), "{bad:?}");
        }
    }
}
