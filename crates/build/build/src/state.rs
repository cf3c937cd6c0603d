//! What a stage is at one point of its file: the image so far, and the arguments in scope.

use dhow_dockerfile::{Command, Form};
use dhow_image::Image;
use dhow_oci::{History, ImageConfig};
use dhow_types::{DiffId, ErrorKind, ImageId, Platform};

use crate::failure::Error;

/// `PATH` of an image that has none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the history of every line says besides.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// Most bytes of the whole history: a config may have 4 MiB.
const MAX_HISTORY: usize = 3 << 20;

/// The state of a stage.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) image: ImageConfig,
    /// `ARG`s in scope, in order; `None` when unset.
    pub(crate) args: Vec<(String, Option<String>)>,
    /// The image that the stage was made from, when it was one.
    pub(crate) parent: Option<ImageId>,
    /// The time of everything that the build adds, when `SOURCE_DATE_EPOCH` says one.
    epoch: Option<String>,
    history_bytes: usize,
}

impl State {
    /// `FROM scratch`.
    pub(crate) fn scratch(platform: &Platform) -> Self {
        let mut image = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        "/".clone_into(&mut image.config.working_dir);
        let mut state = Self {
            image,
            args: Vec::new(),
            parent: None,
            epoch: None,
            history_bytes: 0,
        };
        state.ensure_path();
        state
    }

    /// `FROM image`. Gives the image's triggers as well, which the new image does not inherit.
    pub(crate) fn from_image(image: &Image) -> (Self, Vec<String>) {
        let mut config = image.config.clone();
        config.extra.clear();
        let triggers = std::mem::take(&mut config.config.on_build);
        let mut state = Self {
            image: config,
            args: Vec::new(),
            parent: Some(image.id),
            epoch: None,
            history_bytes: 0,
        };
        state.ensure_path();
        (state, triggers)
    }

    /// `FROM stage`: as it is, but for its triggers.
    pub(crate) fn from_stage(base: &Self) -> (Self, Vec<String>) {
        let mut state = base.clone();
        let triggers = std::mem::take(&mut state.image.config.on_build);
        (state, triggers)
    }

    /// Everything that is added from now on, and the image itself, is of this time.
    pub(crate) fn set_epoch(&mut self, seconds: i64) -> Result<(), Error> {
        let time = jiff::Timestamp::from_second(seconds)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "SOURCE_DATE_EPOCH", error))?;
        self.epoch = Some(time.to_string());
        self.image.created.clone_from(&self.epoch);
        Ok(())
    }

    /// Windows has its own way to find programs (moby/buildkit#5445).
    fn ensure_path(&mut self) {
        if self.env("PATH").is_none() && !self.is_windows() {
            self.image.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
    }

    pub(crate) fn stack(&self) -> &[DiffId] {
        &self.image.rootfs.diff_ids
    }

    /// A variable of the image's environment.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        self.image
            .config
            .env
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        let line = format!("{name}={value}");
        let env = &mut self.image.config.env;
        let found = env
            .iter_mut()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')));
        match found {
            Some(found) => *found = line,
            None => env.push(line),
        }
    }

    /// A variable as instructions see it: the environment first, then the arguments.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        if let Some(value) = self.env(name) {
            return Some(value.to_owned());
        }
        self.argument(name)
    }

    /// The value of an argument, as it was declared last.
    pub(crate) fn argument(&self, name: &str) -> Option<String> {
        let newest = self.args.iter().rev().find(|(known, _)| known == name)?;
        newest.1.clone()
    }

    /// Names and values of the arguments in scope, each name once in the place where it came first; a variable of
    /// the environment hides an argument.
    pub(crate) fn args_in_scope(&self) -> Vec<(String, Option<String>)> {
        let mut found: Vec<(String, Option<String>)> = Vec::new();
        for (name, value) in &self.args {
            let value = self.env(name).map(str::to_owned).or_else(|| value.clone());
            match found.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => found.push((name.clone(), value)),
            }
        }
        found
    }

    /// The shell of shell forms.
    pub(crate) fn shell(&self) -> Vec<String> {
        match &self.image.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ if self.is_windows() => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }

    fn is_windows(&self) -> bool {
        self.image.os == "windows"
    }

    /// Program and arguments of a command.
    pub(crate) fn command(&self, command: &Command) -> Vec<String> {
        match &command.form {
            Form::Exec(words) => words.clone(),
            Form::Shell(text) => {
                let mut words = self.shell();
                words.push(text.clone());
                words
            }
        }
    }

    /// The working directory, absolute.
    pub(crate) fn cwd(&self) -> &str {
        match self.image.config.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }

    /// Adds a line of history that has no layer.
    pub(crate) fn record(&mut self, created_by: String) -> Result<(), Error> {
        let created = self.epoch.clone();
        let created = created.or_else(|| self.image.history.last().and_then(|line| line.created.clone()));
        let created = created.or_else(|| self.image.created.clone());
        self.push(created_by, created, true)
    }

    /// Adds a layer and its line of history.
    pub(crate) fn add_layer(
        &mut self,
        layer: DiffId,
        created_by: String,
        created: String,
    ) -> Result<(), Error> {
        self.image.rootfs.diff_ids.push(layer);
        self.image.created = Some(created.clone());
        self.push(created_by, Some(created), false)
    }

    fn push(&mut self, created_by: String, created: Option<String>, empty: bool) -> Result<(), Error> {
        self.history_bytes += created_by.len();
        if self.history_bytes > MAX_HISTORY {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!("the history of the image is longer than {MAX_HISTORY} bytes"),
            )
            .with_hint("move long scripts and values into files"));
        }
        self.image.history.push(History {
            created,
            created_by: Some(created_by),
            comment: Some(COMMENT.to_owned()),
            empty_layer: empty,
            ..History::default()
        });
        Ok(())
    }
}
