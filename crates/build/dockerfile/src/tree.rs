use std::time::Duration;

use dhow_types::Span;

use crate::{CheckDirective, Syntax};

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    /// The `# syntax=` directive, when there is one; always one that the built-in parser speaks.
    pub syntax: Option<Syntax>,
    /// The escape character: `\`, or `` ` `` by directive.
    pub escape: char,
    /// The `# check=` directive.
    pub check: Option<CheckDirective>,
    /// `ARG` instructions before the first `FROM`.
    pub args: Vec<Instruction>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
    /// What is allowed but not wise.
    pub warnings: Vec<Warning>,
}

/// Something that the person should know about the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub at: Span,
    /// What: lower case, no full stop.
    pub message: String,
}

/// A `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Place of the `FROM` instruction.
    pub at: Span,
    /// Image, earlier stage or `scratch`, not expanded.
    pub base: String,
    /// Name after `AS`, in lower case.
    pub name: Option<String>,
    /// Value of `--platform`, not expanded.
    pub platform: Option<String>,
    /// The `FROM` line as written, continuations joined.
    pub text: String,
    /// Comment lines right above it.
    pub comments: Vec<String>,
    /// What to do.
    pub instructions: Vec<Instruction>,
}

/// One instruction other than `FROM`.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Its place, here-documents included.
    pub at: Span,
    /// The line as written, continuations joined, without here-documents.
    pub text: String,
    /// Comment lines right above it.
    pub comments: Vec<String>,
    /// Flags with their places, in the order written.
    pub flags: Vec<Flag>,
    /// What it says.
    pub op: Op,
}

impl Instruction {
    /// Place of the flag with this name (without dashes), or of the whole instruction.
    #[must_use]
    pub fn flag_at(&self, name: &str) -> Span {
        self.flags
            .iter()
            .find(|flag| flag.name == name)
            .map_or(self.at, |flag| flag.at)
    }
}

/// `--name=value` of an instruction, quotes removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Where.
    pub at: Span,
    /// Name without dashes.
    pub name: String,
    /// Value, `None` without `=`.
    pub value: Option<String>,
}

/// What an instruction says. Values are not expanded.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `ADD`.
    Add(Copy),
    /// `ARG`.
    Arg(Vec<ArgDefinition>),
    /// `CMD`.
    Cmd(Command),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `ENV`.
    Env(Vec<Pair>),
    /// `EXPOSE`, sorted.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`.
    Label(Vec<Pair>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: the trigger's text, here-documents included; its instruction is one that may be a trigger.
    Onbuild(String),
    /// `RUN`.
    Run(Run),
    /// `SHELL`, never empty.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

impl Op {
    /// The keyword in upper case.
    #[must_use]
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

/// `name` or `name=default` of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The name.
    pub name: String,
    /// The default, quotes and variables still in it.
    pub default: Option<String>,
}

/// `key=value` of an `ENV` or `LABEL`, quotes and variables still in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Whether it was written in the old form `KEY value`.
    pub legacy: bool,
}

/// A command with its here-documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// As text for a shell, or as words.
    pub form: Form,
    /// The here-documents of a `RUN` in shell form.
    pub heredocs: Vec<Heredoc>,
}

impl Command {
    /// The here-document when the command is nothing else: its body is then the script.
    #[must_use]
    pub fn lone_heredoc(&self) -> Option<&Heredoc> {
        let Form::Shell(text) = &self.form else {
            return None;
        };
        let announced = crate::heredoc::parse_word(text)?;
        self.heredocs.iter().find(|body| body.name == announced.name)
    }
}

/// The two forms of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Words of a JSON array.
    Exec(Vec<String>),
    /// Text for the shell.
    Shell(String),
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Place of the body.
    pub at: Span,
    /// The delimiter, quotes removed: also the file name in `COPY` and `ADD`.
    pub name: String,
    /// Number before `<<`, 0 when none.
    pub descriptor: u32,
    /// Whether variables in the body are expanded: the delimiter was not quoted.
    pub expand: bool,
    /// Whether leading tabs are removed: `<<-`.
    pub chomp: bool,
    /// The body as written.
    pub content: String,
}

impl Heredoc {
    /// The body with leading tabs removed where `<<-` asks for it.
    #[must_use]
    pub fn body(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK CMD`; a duration or number of zero means the default.
    Check {
        /// What to run.
        command: Command,
        /// Between two checks.
        interval: Duration,
        /// For one check.
        timeout: Duration,
        /// In which failures do not count.
        start_period: Duration,
        /// Between two checks in the start period.
        start_interval: Duration,
        /// Failures in a row that make it unhealthy.
        retries: u32,
    },
    /// `HEALTHCHECK NONE`.
    None,
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What to run.
    pub command: Command,
    /// `--mount`, in order; typed by [`Mount::parse`](crate::Mount::parse) once variables have values.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`.
    pub devices: Vec<String>,
}

/// The text of one `--mount`. Its keys and, when it has no variable, its values are known to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// Where.
    pub at: Span,
    /// The comma-separated fields.
    pub text: String,
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// What the build was started with.
    #[default]
    Default,
    /// The host's.
    Host,
    /// Loopback only.
    None,
}

/// `RUN --security`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// All capabilities, no seccomp.
    Insecure,
    /// As a container.
    #[default]
    Sandbox,
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// Source paths, in order.
    pub paths: Vec<String>,
    /// Sources that are here-documents.
    pub files: Vec<Heredoc>,
    /// Where to.
    pub destination: String,
    /// `--from` (COPY).
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (COPY).
    pub parents: bool,
    /// `--exclude`, in order.
    pub excludes: Vec<String>,
    /// `--keep-git-dir` (ADD).
    pub keep_git_dir: Option<bool>,
    /// `--checksum` (ADD).
    pub checksum: Option<String>,
    /// `--unpack` (ADD).
    pub unpack: Option<bool>,
}
