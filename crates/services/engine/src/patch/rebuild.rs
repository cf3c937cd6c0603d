//! An image built again by its recipe, on what its bases became: by the recipe that its provenance has, or by one that is given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_build::{Built, NamedContext, Request};
use dhow_dockerfile::{Copy, Dockerfile, Instruction, Op, Run};
use dhow_image::Image;
use dhow_types::{ErrorKind, ImageId};
use serde_json::{Value, json};

use super::said::{Evidence, Fetched, PATCH};
use super::{Mend, PatchPlan, Patched};
use crate::provenance::{BUILD_TYPE, PROVENANCE};
use crate::{Context as _, Engine, Error};

/// Most bytes of a provenance that is read.
const MOST_PROVENANCE: u64 = 16 << 20;

/// When images are built again instead of being given other layers below, or newer packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebuild {
    /// Where an image's layers cannot follow, and its provenance has a recipe that needs nothing else.
    #[default]
    Needed,
    /// Wherever its provenance has such a recipe.
    Always,
    /// Only by recipes that are given.
    Never,
}

/// What is given to build an image again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenRecipe {
    /// Name and text of a Dockerfile; that of the image's provenance when none is given.
    pub dockerfile: Option<(String, String)>,
    /// What `COPY` reads.
    pub context: Option<PathBuf>,
}

/// How a patch goes about it.
#[derive(Clone, Debug, Default)]
pub struct PatchWays {
    /// A command of the shell that has to succeed in each new image.
    pub smoke: Option<String>,
    /// When images are built again.
    pub rebuild: Rebuild,
    /// What is given to build images again, by their numbers in the graph.
    pub recipes: BTreeMap<usize, GivenRecipe>,
}

/// A recipe, as a patch's provenance keeps it for the next one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recipe {
    name: String,
    dockerfile: String,
    target: Option<String>,
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    /// Where the context came from, if the recipe had one from elsewhere.
    source: Option<String>,
    context: Option<PathBuf>,
}

impl Recipe {
    /// What a provenance says of how an image was built; what is missing in it otherwise.
    fn recorded(predicate: &Value) -> Result<Self, String> {
        let definition = &predicate["buildDefinition"];
        let internal = &definition["internalParameters"]["recipe"];
        if definition["buildType"] == PATCH {
            let kept = Self::read(&internal["request"], &internal["source"], &internal["dockerfile"]);
            return kept.ok_or_else(|| "the image that it was patched from had no recipe".to_owned());
        }
        if definition["buildType"] != BUILD_TYPE {
            return Err("its provenance is of another kind of build".to_owned());
        }
        let parameters = &definition["externalParameters"];
        let infos = &predicate["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"];
        // A Dockerfile that includes others does not exist: one text is the recipe.
        Self::read(
            &parameters["request"],
            &parameters["configSource"],
            &infos[0]["data"],
        )
        .ok_or_else(|| {
            "its provenance does not have the Dockerfile (build with --provenance=mode=max)".to_owned()
        })
    }

    fn read(request: &Value, source: &Value, dockerfile: &Value) -> Option<Self> {
        let text = dockerfile.as_str()?;
        // BuildKit's field is of bytes, which JSON has in base64.
        let bytes = STANDARD.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
        let mut recipe = Self {
            name: source["path"].as_str().unwrap_or("Dockerfile").to_owned(),
            dockerfile: String::from_utf8(bytes).ok()?,
            source: source["uri"].as_str().map(str::to_owned),
            ..Self::default()
        };
        for (name, value) in request["args"].as_object().into_iter().flatten() {
            let value = value.as_str()?.to_owned();
            match name.split_once(':') {
                Some(("build-arg", name)) => drop(recipe.build_args.insert(name.to_owned(), value)),
                Some(("label", name)) => drop(recipe.labels.insert(name.to_owned(), value)),
                None if name == "target" => recipe.target = Some(value),
                // Whatever else it was, it is not known what comes out without it.
                _ => return None,
            }
        }
        Some(recipe)
    }

    /// As the next patch reads it.
    pub(super) fn kept(&self) -> Value {
        let mut args = serde_json::Map::new();
        let mut say = |name: String, value: &String| drop(args.insert(name, value.clone().into()));
        for (name, value) in &self.build_args {
            say(format!("build-arg:{name}"), value);
        }
        for (name, value) in &self.labels {
            say(format!("label:{name}"), value);
        }
        if let Some(target) = &self.target {
            say("target".to_owned(), target);
        }
        let mut source = json!({"path": self.name});
        if let Some(uri) = &self.source {
            source["uri"] = uri.clone().into();
        }
        json!({
            "request": {"args": args},
            "source": source,
            "dockerfile": STANDARD.encode(&self.dockerfile),
        })
    }

    /// The names of its stages.
    fn stages(&self) -> BTreeSet<String> {
        let parsed = dhow_dockerfile::parse(&self.dockerfile);
        let stages = parsed.map(|parsed| parsed.stages).unwrap_or_default();
        stages.into_iter().filter_map(|stage| stage.name).collect()
    }

    /// What it needs that nobody recorded; nothing when it can be built as it is.
    fn missing(&self) -> Result<Option<String>, Error> {
        let parsed = dhow_dockerfile::parse(&self.dockerfile).map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            Error::new(ErrorKind::InvalidArgument, format!("{}: {first}", self.name))
        })?;
        Ok(
            missing(&parsed, self.context.is_some()).map(|need| match &self.source {
                Some(source) if need.ends_with("context") => format!("{need}, which was {source}"),
                _ => need,
            }),
        )
    }
}

/// The first thing that a Dockerfile needs besides itself and images.
fn missing(dockerfile: &Dockerfile, has_context: bool) -> Option<String> {
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    instructions.into_iter().find_map(|instruction| {
        let need = match &instruction.op {
            Op::Copy(copy) | Op::Add(copy) if !has_context && reads_context(copy) => "the build's context",
            Op::Run(run) => need_of(run, has_context)?,
            _ => return None,
        };
        Some(format!("{} needs {need}", shown(instruction)))
    })
}

fn shown(instruction: &Instruction) -> String {
    let mut text: String = instruction.text.chars().take(60).collect();
    if text.len() < instruction.text.len() {
        text.push_str("...");
    }
    format!("{text:?}")
}

fn reads_context(copy: &Copy) -> bool {
    let is_elsewhere = |path: &String| {
        ["http://", "https://", "git@", "ssh://"]
            .iter()
            .any(|start| path.starts_with(start))
    };
    copy.from.is_none() && copy.paths.iter().any(|path| !is_elsewhere(path))
}

fn need_of(run: &Run, has_context: bool) -> Option<&'static str> {
    run.mounts.iter().find_map(|mount| {
        let field = |name: &str| {
            let fields = mount.text.split(',').map(str::trim);
            fields
                .filter_map(|field| field.split_once('='))
                .find(|(key, _)| *key == name)
        };
        match field("type").map_or("bind", |(_, value)| value) {
            "bind" if field("from").is_none() && !has_context => Some("the build's context"),
            "secret" => Some("a secret"),
            "ssh" => Some("an ssh agent"),
            _ => None,
        }
    })
}

impl Engine {
    /// The recipe of an image's provenance; what is missing otherwise.
    pub(super) fn recorded_recipe(&self, image: &Image) -> Result<Result<Recipe, String>, Error> {
        let store = self.store()?;
        let attestations = store.attestations(image);
        let attestations = attestations.context(|| "look for the image's provenance")?;
        let statements = attestations
            .iter()
            .flat_map(|attestation| &attestation.statements);
        let mut wanted = statements.filter(|(kind, _)| kind == PROVENANCE);
        let Some((_, blob)) = wanted.next() else {
            return Ok(Err("it has no provenance".to_owned()));
        };
        let what = || "read the image's provenance";
        let bytes =
            dhow_content::ContentStore::read(&store.content, &blob.digest, MOST_PROVENANCE).context(what)?;
        let statement: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, what(), error))?;
        Ok(Recipe::recorded(&statement["predicate"]))
    }

    /// The recipe by which an image can be built again: the one that is given, or the recorded one; what is missing otherwise.
    pub(super) fn recipe(
        &self,
        image: &Image,
        given: Option<&GivenRecipe>,
    ) -> Result<Result<Recipe, String>, Error> {
        let recorded = self.recorded_recipe(image)?;
        let mut recipe = match given.and_then(|given| given.dockerfile.clone()) {
            Some((name, dockerfile)) => Recipe {
                name,
                dockerfile,
                source: None,
                // What was said beside the recipe is true of its next version, too.
                ..recorded.unwrap_or_default()
            },
            None => match recorded {
                Ok(recipe) => recipe,
                Err(why) => return Ok(Err(why)),
            },
        };
        recipe.context = given.and_then(|given| given.context.clone());
        Ok(match recipe.missing()? {
            Some(missing) => Err(missing),
            None => Ok(recipe),
        })
    }

    /// Whether an image is going to be built again in any case, before it is tried to let its layers follow. A recipe that is given and
    /// cannot be used is an error.
    ///
    /// # Errors
    /// `FailedPrecondition` with what is missing; `InvalidArgument` for a Dockerfile that is none.
    pub(super) fn first_recipe(
        &self,
        node: usize,
        image: &Image,
        ways: &PatchWays,
        notes: &mut Vec<String>,
    ) -> Result<Option<Recipe>, Error> {
        let given = ways.recipes.get(&node);
        if given.is_none() && ways.rebuild != Rebuild::Always {
            return Ok(None);
        }
        match self.recipe(image, given)? {
            Ok(recipe) => Ok(Some(recipe)),
            Err(missing) if given.is_some() => {
                let message = format!("it cannot be built again: {missing}");
                Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint(
                    "--recipe FILE and --context FOLDER give what is missing; secrets cannot be given",
                ))
            }
            Err(missing) => {
                notes.push(format!("not built again: {missing}"));
                Ok(None)
            }
        }
    }

    /// Builds an image again, with new images in the places of those that were patched already.
    pub(super) fn built_again(
        &self,
        planned: &PatchPlan,
        old: &Image,
        recipe: &Recipe,
        made: &[Patched],
        packages: &[Mend],
        making: &mut Evidence,
    ) -> Result<ImageId, Error> {
        let mut request = Request::new(recipe.dockerfile.clone());
        request.dockerfile_name.clone_from(&recipe.name);
        request.target.clone_from(&recipe.target);
        request.build_args.clone_from(&recipe.build_args);
        request.labels.clone_from(&recipe.labels);
        request.context.clone_from(&recipe.context);
        request.platform = Some(old.config.platform());
        request.run_dir.clone_from(&self.settings().run);
        // What brought the old packages would come from the cache with them.
        request.no_cache = !packages.is_empty();
        let stages = recipe.stages();
        for one in made {
            for name in &planned.graph.nodes()[one.node].names {
                let key = NamedContext::key(name);
                // A stage of that name is the recipe's own, and would be replaced, too. Where an image is meant, the proof fails.
                if !stages.contains(&key) {
                    request.contexts.insert(key, NamedContext::Image(one.image.hex()));
                }
            }
        }
        let (built, _): (Built, Vec<Fetched>) = self
            .built_quietly(&request)
            .context(|| format!("build it again by {}", recipe.name))?;
        for (name, image) in &built.bases {
            let name = made
                .iter()
                .find(|one| one.image == image.id)
                .map_or(name.as_str(), |one| {
                    let names = &planned.graph.nodes()[one.node].names;
                    names.first().map_or(name.as_str(), String::as_str)
                });
            making.made_of("base", name, image);
        }
        for material in &built.materials {
            let digest = json!({ &material.algorithm: material.digest });
            making.depends_on(json!({"name": "source", "uri": material.uri, "digest": digest}));
        }
        making.keep_recipe(Some(recipe));
        Ok(built.image.id)
    }
}

/// What an image that was built again does otherwise than the old one.
pub(super) fn other_settings(old: &Image, new: &Image) -> Vec<&'static str> {
    let (old, new) = (&old.config.config, &new.config.config);
    let pairs = [
        ("entrypoint", old.entrypoint == new.entrypoint),
        ("command", old.cmd == new.cmd),
        ("user", old.user == new.user),
        ("working directory", old.working_dir == new.working_dir),
        ("ports", old.exposed_ports == new.exposed_ports),
        ("volumes", old.volumes == new.volumes),
        ("stop signal", old.stop_signal == new.stop_signal),
    ];
    pairs
        .into_iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(text: &str, has_context: bool) -> Option<String> {
        missing(&dhow_dockerfile::parse(text).unwrap(), has_context)
    }

    #[test]
    fn what_a_recipe_needs_besides_itself_is_said() {
        let whole = "FROM a AS one\nRUN --mount=type=cache,target=/c --mount=from=b,target=/b true\nCOPY --from=b /x /y\n\
                     FROM scratch\nCOPY <<EOF /z\nhello\nEOF\nADD https://example.test/a.tar /\nENV A=1\n";
        assert_eq!(need(whole, false), None);
        for (line, wanted) in [
            ("COPY a /b", "context"),
            ("COPY <<EOF b /c/\nx\nEOF", "context"),
            ("ADD $URL /b", "context"),
            ("RUN --mount=target=/src true", "context"),
            ("RUN --mount=type=secret,id=k true", "a secret"),
            ("RUN --mount=type=ssh true", "an ssh agent"),
        ] {
            let text = format!("FROM a\n{line}\n");
            let found = need(&text, false).unwrap();
            assert!(found.ends_with(wanted), "{found}");
            assert_eq!(need(&text, true).is_none(), wanted == "context", "{line}");
        }
    }

    #[test]
    fn a_recipe_is_read_as_it_was_recorded_and_as_a_patch_keeps_it() {
        let text = "FROM a\nRUN true\n";
        let of = |data: &str| {
            json!({
                "buildDefinition": {"buildType": BUILD_TYPE, "externalParameters": {
                    "configSource": {"path": "Dockerfile.app"},
                    "request": {"args": {"build-arg:A": "1", "label:l": "x", "target": "t"}},
                }},
                "runDetails": {"metadata": {"buildkit_metadata": {"source": {"infos": [{"data": data}]}}}},
            })
        };
        let plain = Recipe::recorded(&of(text)).unwrap();
        assert_eq!(Recipe::recorded(&of(&STANDARD.encode(text))).unwrap(), plain);
        assert_eq!(plain.dockerfile, text);
        assert_eq!(
            (plain.name.as_str(), plain.target.as_deref()),
            ("Dockerfile.app", Some("t"))
        );
        let kept = json!({"buildDefinition": {
            "buildType": PATCH, "internalParameters": {"recipe": plain.kept()}}});
        assert_eq!(Recipe::recorded(&kept).unwrap(), plain);
        let mut odd = of(text);
        odd["buildDefinition"]["externalParameters"]["request"]["args"]["no-idea"] = "1".into();
        assert!(Recipe::recorded(&odd).is_err());
        for bad in [
            json!({}),
            json!({"buildDefinition": {"buildType": BUILD_TYPE}}),
            json!([1]),
        ] {
            assert!(Recipe::recorded(&bad).is_err(), "{bad}");
        }
    }
}
