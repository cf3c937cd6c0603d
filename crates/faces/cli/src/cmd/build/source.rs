//! Where a build gets its files from: a folder, a tar, a URL, a git repository.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use dhow_engine::{ContextAbout, ContextFolder, GitContext, Ignore, Material, is_context};

use super::BuildFlags;
use crate::{CliError, Context, dialect};

/// Largest Dockerfile.
const MAX_DOCKERFILE: u64 = 8 << 20;

/// Where a build gets its files from.
pub(super) struct Source {
    pub(super) context: Option<PathBuf>,
    /// The Dockerfile's text, and its name for messages.
    pub(super) dockerfile: String,
    pub(super) name: String,
    pub(super) ignore: Ignore,
    /// When the context was made, seconds since 1970, where that can be known.
    pub(super) time: Option<i64>,
    /// What it is, of what comes from elsewhere.
    pub(super) material: Option<Material>,
    /// The context, when it was unpacked for this build.
    pub(super) folder: Option<ContextFolder>,
}

/// The file in a context that says how to build: podman's name for it comes first with podman, last with docker. Docker
/// takes one in lower case, too (moby/moby#10858).
fn recipe(context: &Path) -> PathBuf {
    let names = if crate::dialect::spoken().is_podman() {
        ["Containerfile", "Dockerfile", "dockerfile"]
    } else {
        ["Dockerfile", "dockerfile", "Containerfile"]
    };
    let found = names
        .iter()
        .map(|name| context.join(name))
        .find(|path| path.exists());
    found.unwrap_or_else(|| context.join(names[0]))
}

impl Source {
    /// A Dockerfile that came without a file of its own.
    fn bare(context: Option<PathBuf>, dockerfile: String) -> Self {
        Self {
            context,
            dockerfile,
            name: "Dockerfile".to_owned(),
            ignore: Ignore::InContext,
            time: None,
            material: None,
            folder: None,
        }
    }

    /// A context that was unpacked, with the Dockerfile in it.
    fn unpacked(folder: ContextFolder, file: Option<&Path>, about: ContextAbout) -> Result<Self, CliError> {
        let file = file.unwrap_or(Path::new("Dockerfile"));
        Ok(Self {
            context: Some(folder.path()),
            dockerfile: folder.text(file, MAX_DOCKERFILE)?,
            name: file.display().to_string(),
            ignore: Ignore::InContext,
            time: about.time,
            material: about.source,
            folder: Some(folder),
        })
    }
}

/// Gets the files of a build.
pub(super) fn of(engine: &Context, flags: &BuildFlags) -> Result<Source, CliError> {
    let from_stdin = file(flags) == Some(Path::new("-"));
    if flags.context == "-" {
        return on_stdin(engine, flags, from_stdin);
    }
    if is_git(&flags.context) {
        return git(engine, flags);
    }
    if flags.context.starts_with("http://") || flags.context.starts_with("https://") {
        let engine = engine.engine()?;
        let folder = engine.context_folder()?;
        // Apart, since the builder forks and this process must have one thread then.
        let about = engine.apart(|engine| engine.fetch_context(&folder, &flags.context))?;
        // What is no archive is the Dockerfile, whatever it is called.
        let file = file(flags).filter(|_| !about.alone);
        return Source::unpacked(folder, file, about);
    }
    let context = PathBuf::from(&flags.context);
    if !context.is_dir() {
        let message = format!(
            "unable to prepare context: path {:?} not found or no folder",
            flags.context
        );
        return Err(CliError::plain(message));
    }
    if from_stdin {
        return Ok(Source::bare(Some(context), read_stdin(MAX_DOCKERFILE)?));
    }
    let path = match file(flags) {
        Some(file) => named(file, &context),
        None => recipe(&context),
    };
    let mut dockerfile = read(&path, flags)?;
    // As buildah: several are one, in the order in which they are named.
    for more in flags.file.iter().skip(1) {
        dockerfile.push('\n');
        dockerfile.push_str(&read(&named(more, &context), flags)?);
    }
    let inside = fs::canonicalize(&path)
        .ok()
        .zip(fs::canonicalize(&context).ok())
        .and_then(|(path, context)| Some(path.strip_prefix(context).ok()?.display().to_string()));
    let (name, ignore) = match inside {
        Some(name) => (name, Ignore::InContext),
        None => (path.display().to_string(), ignore_beside(&path)),
    };
    Ok(Source {
        context: Some(context),
        dockerfile,
        name,
        ignore,
        time: None,
        material: None,
        folder: None,
    })
}

/// The Dockerfile that is named first.
fn file(flags: &BuildFlags) -> Option<&Path> {
    flags.file.first().map(PathBuf::as_path)
}

/// As buildah: a name that is not here is looked for in the context.
fn named(file: &Path, context: &Path) -> PathBuf {
    if dialect::spoken().is_podman() && !file.exists() {
        return context.join(file);
    }
    file.to_owned()
}

fn read(path: &Path, flags: &BuildFlags) -> Result<String, CliError> {
    let text = fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_DOCKERFILE).read_to_string(&mut text).map(|_| text)
    });
    text.map_err(|error| {
        let absent = error.kind() == std::io::ErrorKind::NotFound;
        CliError::plain(match (dialect::spoken().is_podman() && absent, flags.file.is_empty()) {
            (true, true) => format!(
                "no Containerfile or Dockerfile specified or found in context directory, {}: no such file or directory",
                flags.context
            ),
            (true, false) => format!(
                "the specified Containerfile or Dockerfile does not exist, {}: no such file or directory",
                path.display()
            ),
            _ => format!("failed to read dockerfile: open {}: {error}", path.display()),
        })
    })
}

/// The files of a commit, fetched by the `git` program.
fn git(context: &Context, flags: &BuildFlags) -> Result<Source, CliError> {
    let mut git = GitContext::parse(&flags.context)?;
    let argument = "BUILDKIT_CONTEXT_KEEP_GIT_DIR=";
    let keep = flags
        .build_arg
        .iter()
        .rev()
        .find_map(|text| text.strip_prefix(argument));
    git.keep_git_dir = keep.is_some_and(|keep| matches!(keep, "1" | "true"));
    for text in &flags.secret {
        let (id, secret) = super::secret(text)?;
        let word = || {
            String::from_utf8(secret.0.clone())
                .ok()
                .map(|word| word.trim().to_owned())
        };
        match id.as_str() {
            "GIT_AUTH_TOKEN" => git.token = word(),
            "GIT_AUTH_HEADER" => git.header = word(),
            _ => {}
        }
    }
    git.agent = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
    let engine = context.engine()?;
    let mut folder = engine.context_folder()?;
    // Apart, since the builder forks and this process must have one thread then.
    let about = engine.apart(|engine| engine.fetch_git_context(&folder, &git))?;
    folder.enter(git.subdir())?;
    Source::unpacked(folder, file(flags), about)
}

/// What docker takes for a git repository (moby `urlutil.IsGitURL`).
fn is_git(context: &str) -> bool {
    let path = context.split(['#', '?']).next().unwrap_or(context);
    let web = context.starts_with("http://") || context.starts_with("https://");
    ["git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|start| context.starts_with(start))
        || web && path.ends_with(".git")
}

/// A Dockerfile outside the context may have its own patterns beside it.
fn ignore_beside(path: &Path) -> Ignore {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".dockerignore");
    fs::read_to_string(PathBuf::from(beside)).map_or(Ignore::InContext, Ignore::Text)
}

/// A tar with the context on standard input, or a Dockerfile alone.
fn on_stdin(context: &Context, flags: &BuildFlags, twice: bool) -> Result<Source, CliError> {
    if twice {
        return Err(CliError::plain(
            "invalid argument: can't use stdin for both build context and dockerfile",
        ));
    }
    let mut input = std::io::stdin();
    let mut head = Vec::new();
    (&mut input).take(512).read_to_end(&mut head)?;
    let archive = is_context(&head);
    let mut whole = std::io::Cursor::new(head).chain(input);
    if archive {
        let engine = context.engine()?;
        let folder = engine.context_folder()?;
        engine.fill_context(&folder, whole)?;
        return Source::unpacked(folder, file(flags), ContextAbout::default());
    }
    if !flags.file.is_empty() {
        let message = "a Dockerfile alone comes from standard input: --file names nothing then";
        return Err(CliError::plain(message));
    }
    let mut text = String::new();
    (&mut whole)
        .take(MAX_DOCKERFILE)
        .read_to_string(&mut text)
        .map_err(|error| CliError::plain(format!("read the Dockerfile on standard input: {error}")))?;
    Ok(Source::bare(None, text))
}

fn read_stdin(most: u64) -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin().lock().take(most).read_to_string(&mut text)?;
    Ok(text)
}
