//! `.build`, and the working directory that it and `.kube` may ask for.

use std::path::Path;

use super::{Conversion, SERVICE, bad, is_specifier};
use crate::{Error, Kind};

impl Conversion<'_> {
    pub(super) fn build(&mut self) -> Result<(), Error> {
        let tagged = self
            .known
            .get(&self.file.name)
            .is_some_and(|known| !known.resource.is_empty());
        if !tagged {
            return Err(bad("no ImageTag key specified"));
        }
        let mut build = self.command();
        build.add(["build"]);
        if let Some(pull) = self.value("Pull") {
            // Its value is part of the word: alone it would be the context.
            build.add([format!("--pull={pull}")]);
        }
        let texts = [
            ("Arch", "--arch"),
            ("AuthFile", "--authfile"),
            ("IgnoreFile", "--ignorefile"),
            ("Target", "--target"),
            ("Variant", "--variant"),
            ("Retry", "--retry"),
            ("RetryDelay", "--retry-delay"),
        ];
        self.texts(&mut build, &texts);
        let switches = [("TLSVerify", "--tls-verify"), ("ForceRM", "--force-rm")];
        self.switches(&mut build, &switches);
        let lists = [
            ("DNS", "--dns"),
            ("DNSOption", "--dns-option"),
            ("DNSSearch", "--dns-search"),
            ("GroupAdd", "--group-add"),
            ("ImageTag", "--tag"),
        ];
        self.lists(&mut build, &lists);
        let pairs = [
            ("BuildArg", "--build-arg"),
            ("Environment", "--env"),
            ("Label", "--label"),
            ("Annotation", "--annotation"),
        ];
        self.pairs(&mut build, &pairs);
        self.networks(&mut build)?;
        self.arguments(&mut build, "Secret", "--secret");
        self.volumes(&mut build)?;
        let context = self.working_directory()?;
        let folder = self.service.some(SERVICE, "WorkingDirectory").map(str::to_owned);
        let file = self.value("File");
        if folder.is_none() && file.is_none() && context.is_none() {
            return Err(bad("neither SetWorkingDirectory, nor File key specified"));
        }
        if let Some(file) = file {
            build.add(["--file", file]);
        }
        self.own_arguments(&mut build);
        let relative = |file: &str| !is_specifier(file) && !file.starts_with('/') && !is_url(file);
        match (context, folder) {
            (Some(context), _) => build.add([context]),
            (None, folder) if relative(file.unwrap_or_default()) => {
                let folder = folder.ok_or_else(|| {
                    bad("relative path in File key requires SetWorkingDirectory key to be set")
                })?;
                build.add([folder]);
            }
            (None, _) => {}
        }
        self.exec("ExecStart", &build);
        self.once(false);
        Ok(())
    }

    /// `SetWorkingDirectory`: the folder of a file, or of a build the context, which is given back.
    pub(super) fn working_directory(&mut self) -> Result<Option<String>, Error> {
        let Some(wanted) = self.value("SetWorkingDirectory") else {
            return Ok(None);
        };
        let only = |kind: Kind| {
            let message = format!(
                "SetWorkingDirectory={wanted} is only supported in .{} files",
                kind.extension()
            );
            if self.kind == kind {
                Ok(())
            } else {
                Err(bad(message))
            }
        };
        let (beside, context) = match wanted.to_ascii_lowercase().as_str() {
            "yaml" => {
                only(Kind::Kube)?;
                let files = self.file.names("Kube", "Yaml");
                let [file] = files.as_slice() else {
                    return Err(bad(
                        "SetWorkingDirectory=yaml is only supported when a single Yaml key is provided",
                    ));
                };
                (Some(file.clone()), None)
            }
            "file" => {
                only(Kind::Build)?;
                let file = self.file.text("Build", "File");
                let file = file.ok_or_else(|| bad("no File key specified"))?;
                (Some(file.to_owned()), None)
            }
            "unit" => (Some(self.file.path.clone()), None),
            _ if self.kind != Kind::Build => {
                return Err(bad(format!("unsupported value for WorkingDirectory: {wanted} ")));
            }
            _ => {
                let beside = (!wanted.starts_with('/')).then(|| self.file.path.clone());
                (beside, Some(wanted.to_owned()))
            }
        };
        let remote = context.as_deref().is_some_and(is_url);
        if let Some(beside) = beside.filter(|_| !remote) {
            // One that the service has already stays.
            if self.file.some(SERVICE, "WorkingDirectory").is_some() {
                return Ok(None);
            }
            let whole = self.whole_path(&beside);
            let folder = Path::new(&whole).parent().unwrap_or(Path::new("/"));
            self.service
                .add(SERVICE, "WorkingDirectory", &folder.display().to_string());
        }
        Ok(context)
    }
}

/// What podman takes for the place of a context elsewhere.
fn is_url(text: &str) -> bool {
    ["http://", "https://", "git://"]
        .iter()
        .any(|start| text.starts_with(start))
        || text
            .split_once("github.com/")
            .is_some_and(|(_, rest)| !rest.is_empty())
}
