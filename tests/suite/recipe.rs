//! Small builds for tests of the Dockerfile language: a text, files beside it, and what comes out.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use crate::world::{Ran, World};

/// A root with busybox, and a build context. What a step finds it says itself: `RUN test ... = ...` fails the build.
pub(crate) struct Recipe {
    pub(crate) world: World,
    outputs: Cell<u32>,
}

/// What a build left in a folder.
pub(crate) struct Output(PathBuf);

impl Recipe {
    /// None when this is not root.
    pub(crate) fn new() -> Option<Self> {
        let world = World::with_busybox()?;
        fs::create_dir_all(world.path("ctx")).unwrap();
        let outputs = Cell::new(0);
        Some(Self { world, outputs })
    }

    /// Writes files of the context.
    pub(crate) fn files(&self, files: &[(&str, &str)]) -> &Self {
        for (name, content) in files {
            self.world.file(&format!("ctx/{name}"), content);
        }
        self
    }

    /// A path in the context.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.world.path("ctx").join(name)
    }

    /// Builds a Dockerfile with the context; its steps have no network.
    pub(crate) fn build(&self, flags: &[&str], text: &str) -> Ran {
        self.files(&[("Dockerfile", text)]);
        let folder = self.at("").display().to_string();
        self.call(flags, &folder)
    }

    /// Builds something else than the folder of the context.
    pub(crate) fn call(&self, flags: &[&str], context: &str) -> Ran {
        let mut args = vec!["build", "--progress", "plain", "--network", "none"];
        args.extend(flags);
        args.push(context);
        self.world.dhow(&args)
    }

    /// A build that goes well; nothing stays of it but the cache.
    #[track_caller]
    pub(crate) fn good(&self, flags: &[&str], text: &str) -> Ran {
        let flags = [&["-o", "type=cacheonly"], flags].concat();
        self.build(&flags, text).exits(0)
    }

    /// A build that fails with these words.
    #[track_caller]
    pub(crate) fn bad(&self, flags: &[&str], text: &str, words: &str) {
        let flags = [&["-o", "type=cacheonly"], flags].concat();
        self.build(&flags, text).exits(1).says(words);
    }

    /// A build into a new folder.
    #[track_caller]
    pub(crate) fn output(&self, flags: &[&str], text: &str) -> Output {
        self.files(&[("Dockerfile", text)]);
        let folder = self.at("").display().to_string();
        self.output_of(flags, &folder)
    }

    /// The same of another context.
    #[track_caller]
    pub(crate) fn output_of(&self, flags: &[&str], context: &str) -> Output {
        self.outputs.set(self.outputs.get() + 1);
        let out = self.world.path(&format!("out{}", self.outputs.get()));
        let flag = format!("type=local,dest={}", out.display());
        self.call(&[&["-o", &flag], flags].concat(), context).exits(0);
        Output(out)
    }

    /// The config of an image in the store.
    #[track_caller]
    pub(crate) fn config(&self, image: &str) -> serde_json::Value {
        serde_json::from_str(&self.world.inspect(image, "{{json .Config}}")).unwrap()
    }
}

impl Output {
    /// A file's text.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Whether there is something of that name, be it a link to nowhere.
    pub(crate) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.0.join(name)).is_ok()
    }

    /// Fails unless these files have these texts.
    #[track_caller]
    pub(crate) fn holds(&self, files: &[(&str, &str)]) -> &Self {
        for (name, text) in files {
            assert_eq!(self.text(name), *text, "{name}");
        }
        self
    }

    /// Fails if one of these is there.
    #[track_caller]
    pub(crate) fn lacks(&self, names: &[&str]) -> &Self {
        for name in names {
            assert!(!self.has(name), "{name} is there");
        }
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
