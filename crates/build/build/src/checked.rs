//! `build --check`: the rules and the first error, without a build.

use std::collections::BTreeSet;

use dhow_dockerfile::{Dockerfile, SyntaxError};
use dhow_image::Store;
use dhow_oci::ImageConfig;
use dhow_reference::Reference;
use dhow_types::Platform;

use crate::context::Context;
use crate::failure::{Error, Failed, Trouble, invalid};
use crate::ignore::Patterns;
use crate::lint::{self, Around, Choice, Findings, Outline, Target, Warning};
use crate::request::Request;
use crate::step::Images;

/// What `build --check` found.
#[derive(Debug)]
pub struct Checked {
    /// What the rules say, in the order in which docker tells it.
    pub warnings: Vec<Warning>,
    /// Why the Dockerfile cannot be built at all.
    pub error: Option<Failed>,
}

/// Checks a Dockerfile: all stages, or those that the target reaches. Nothing is built; of base images that are not
/// in the store only the config is fetched.
///
/// # Errors
/// What is around it: the context cannot be read. A Dockerfile that is wrong is no error of this call.
pub fn check(store: &Store, images: &dyn Images, request: &Request) -> Result<Checked, Failed> {
    let failed = |trouble: Trouble| trouble.into_failed(&request.dockerfile_name);
    let (file, errors) = dhow_dockerfile::parse_some(&request.dockerfile);
    let choice = Choice::new(&file, request).map_err(|error| failed(error.into()))?;
    if let Some(first) = errors.first() {
        return Ok(Checked {
            warnings: lint::lines_before(&file, &choice, first.at),
            error: Some(failed(wrong(errors))),
        });
    }
    let ignore = Context::patterns(request).map_err(|error| failed(error.into()))?;
    let reached = match &request.target {
        Some(_) => crate::plan::Plan::new(&file, request)
            .ok()
            .map(|plan| plan.reached),
        None => None,
    };
    let findings = findings(
        &file,
        request,
        &choice,
        ignore.as_ref(),
        reached.as_ref(),
        &|name, platform| known(store, name, platform).or_else(|| fetched(images, name, platform)),
    );
    Ok(Checked {
        warnings: findings.warnings,
        error: findings.trouble.map(|trouble| failed(*trouble)),
    })
}

/// What a target can be built with: arguments, secrets, agents.
///
/// # Errors
/// A Dockerfile that is wrong, or a context that cannot be read.
pub fn outline(store: &Store, images: &dyn Images, request: &Request) -> Result<Outline, Failed> {
    let find = || -> Result<Outline, Trouble> {
        let file = parse(request)?;
        let base = |name: &str, platform: &Platform| {
            known(store, name, platform).or_else(|| fetched(images, name, platform))
        };
        let around = Around {
            file: &file,
            request,
            base: &base,
            ignore: None,
            reached: None,
        };
        lint::outline(&around)
    };
    find().map_err(|trouble| trouble.into_failed(&request.dockerfile_name))
}

/// The stages that can be built.
///
/// # Errors
/// A Dockerfile that is wrong.
pub fn targets(request: &Request) -> Result<Vec<Target>, Failed> {
    let file = parse(request).map_err(|trouble| trouble.into_failed(&request.dockerfile_name))?;
    Ok(lint::targets(&file))
}

/// Parses the text of a request.
pub(crate) fn parse(request: &Request) -> Result<Dockerfile, Trouble> {
    dhow_dockerfile::parse(&request.dockerfile).map_err(wrong)
}

fn wrong(errors: Vec<SyntaxError>) -> Trouble {
    let mut errors = errors.into_iter();
    let first = errors.next().map(Trouble::from);
    let mut trouble = first.unwrap_or_else(|| Trouble::from(invalid("the Dockerfile is wrong")));
    trouble.more = errors.collect();
    trouble
}

/// What the rules say of the stages that are built.
pub(crate) fn findings(
    file: &Dockerfile,
    request: &Request,
    choice: &Choice,
    ignore: Option<&Patterns>,
    reached: Option<&BTreeSet<usize>>,
    base: &dyn Fn(&str, &Platform) -> Option<ImageConfig>,
) -> Findings {
    let around = Around {
        file,
        request,
        base,
        ignore,
        reached,
    };
    lint::check(&around, choice)
}

/// The config of an image of the store: for the platform, or the one that has the name.
pub(crate) fn known(store: &Store, name: &str, platform: &Platform) -> Option<ImageConfig> {
    let image = store
        .resolve_for(name, Some(platform))
        .or_else(|_| store.resolve(name));
    image.ok().map(|image| image.config)
}

/// The config of an image of a registry: without an answer, what depends on it is not said.
fn fetched(images: &dyn Images, name: &str, platform: &Platform) -> Option<ImageConfig> {
    let reference = Reference::parse(name).ok()?.or_latest();
    images.config(&reference, platform).ok()
}

/// The error of a build whose Dockerfile says that warnings are errors.
pub(crate) fn refused(warnings: &[Warning]) -> Error {
    let rules: BTreeSet<&str> = warnings.iter().map(|warning| warning.rule.name()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    invalid(format!("lint violation found for rules: {}", rules.join(", ")))
        .with_hint("dhow build --check shows the places")
}
