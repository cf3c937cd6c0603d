//! Packages of an image, brought up to date by its own package manager.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dhow_build::{BuildObserver, Built, Event, Request};
use dhow_image::Image;
use dhow_inventory::Kind;
use dhow_oci::{ImageConfig, RunConfig};
use dhow_types::{ErrorKind, ImageId, Silent};

use super::Mend;
use super::said::{Fetched, Lines};
use crate::algebra::add_layer;
use crate::{BuildAround, BuildFailure, BuildNetwork, Context as _, Engine, Error, Limits};

/// Most bytes of what the package manager said that a failure tells.
const MOST_SAID: usize = 4096;

/// For each kind of package what brings packages up to date, given as arguments. What says that it was done, lists and caches, is in
/// memory or goes again: it is no part of the image.
const WAYS: &[(Kind, &str, &str)] = &[
    (
        Kind::Deb,
        "--mount=type=tmpfs,target=/var/lib/apt/lists --mount=type=tmpfs,target=/var/cache/apt \
         --mount=type=tmpfs,target=/var/log/apt",
        "command -v apt-get >/dev/null || { echo 'there is no apt-get in the image' >&2; exit 127; }; \
         export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; \
         apt-get -qq -y --no-install-recommends --only-upgrade --print-uris install \"$@\"; \
         apt-get -qq -y --no-install-recommends --only-upgrade -o Dpkg::Options::=--force-confdef \
         -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--log=/dev/null -o Dpkg::Use-Pty=0 install \"$@\"",
    ),
    (
        Kind::Apk,
        "--mount=type=tmpfs,target=/var/cache/apk",
        "command -v apk >/dev/null || { echo 'there is no apk in the image' >&2; exit 127; }; \
         apk upgrade --no-cache \"$@\"",
    ),
    (
        Kind::Rpm,
        "--mount=type=tmpfs,target=/var/cache --mount=type=tmpfs,target=/var/log",
        "for manager in dnf microdnf yum; do if command -v $manager >/dev/null; then \
         exec $manager -y update \"$@\"; fi; done; \
         if command -v zypper >/dev/null; then exec zypper -n update \"$@\"; fi; \
         echo 'there is no dnf, microdnf, yum or zypper in the image' >&2; exit 127",
    ),
];

/// What a step said: the end of it, for when it fails, and the files that it fetched.
#[derive(Default)]
struct Said(Mutex<(Vec<u8>, Lines)>);

impl BuildObserver for Said {
    fn observe(&self, event: Event<'_>) {
        if let Event::Output { bytes, .. } = event
            && let Ok(mut said) = self.0.lock()
        {
            let (said, lines) = &mut *said;
            lines.take(bytes);
            said.extend_from_slice(bytes);
            let over = said.len().saturating_sub(MOST_SAID);
            said.drain(..over);
        }
    }
}

impl Engine {
    /// The image with these packages brought up to date. From the layer `from` on, counted from 0 at the bottom, its layers are one with
    /// what is new: of the old packages nothing stays in them.
    pub(super) fn upgraded(
        &self,
        image: &Image,
        packages: &[Mend],
        from: usize,
    ) -> Result<(ImageId, Vec<Fetched>), Error> {
        let mut layers = image.record.layers.clone();
        let mut fetched = Vec::new();
        for (kind, mounts, script) in WAYS {
            let mut names: Vec<&str> = packages
                .iter()
                .filter(|package| package.kind == *kind)
                .map(|package| package.name.as_str())
                .collect();
            names.sort_unstable();
            names.dedup();
            if names.is_empty() {
                continue;
            }
            // What the image says may be anything; an option is no package.
            if let Some(odd) = names.iter().find(|name| name.starts_with('-')) {
                let message = format!("{odd:?} is no name of a package");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            let mut args = vec!["/bin/sh", "-ec", script, "sh"];
            args.extend(&names);
            let ran = self.run_on(image, layers, mounts, &args, true);
            let (above, more) = ran.context(|| format!("bring {} up to date", names.join(", ")))?;
            layers = above;
            fetched.extend(more);
        }
        let kinds: Vec<Kind> = WAYS.iter().map(|(kind, ..)| *kind).collect();
        if let Some(other) = packages.iter().find(|package| !kinds.contains(&package.kind)) {
            let message = format!(
                "{} is a package of {}, for which there is no way yet",
                other.name,
                other.kind.purl_type()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok((self.squeezed(image, layers, packages, from)?, fetched))
    }

    /// The image with these layers, those from `from` on as one.
    fn squeezed(
        &self,
        image: &Image,
        mut layers: Vec<dhow_types::DiffId>,
        packages: &[Mend],
        from: usize,
    ) -> Result<ImageId, Error> {
        let own = layers.split_off(from.min(image.record.layers.len()));
        let mut config = image.config.clone();
        let mut number = 0;
        for line in config.history.iter_mut().filter(|line| !line.empty_layer) {
            number += 1;
            line.empty_layer = number > layers.len();
        }
        let layer = self.merged_layer(&own, !layers.is_empty())?;
        config.rootfs.diff_ids = layers;
        let text: Vec<String> = packages
            .iter()
            .map(|package| {
                let names: Vec<&str> = package.mends.iter().map(|(name, _)| name.as_str()).collect();
                format!(
                    "{} after {} ({})",
                    package.name,
                    package.version,
                    names.join(", ")
                )
            })
            .collect();
        add_layer(&mut config, layer, format!("dhow patch: {}", text.join("; ")));
        self.derive(image, config, &BTreeMap::new(), &[])
    }

    /// The layers with one more, what a command of root's changes on them, and the files of packages that it says to fetch. Without
    /// `network` there is none.
    pub(super) fn run_on(
        &self,
        image: &Image,
        layers: Vec<dhow_types::DiffId>,
        mounts: &str,
        args: &[&str],
        network: bool,
    ) -> Result<(Vec<dhow_types::DiffId>, Vec<Fetched>), Error> {
        // Only what a command needs of it: triggers, users and shells are the image's own affair.
        let mut config = ImageConfig {
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            variant: image.config.variant.clone(),
            config: RunConfig {
                env: image.config.config.env.clone(),
                ..RunConfig::default()
            },
            ..ImageConfig::default()
        };
        for layer in layers {
            add_layer(&mut config, layer, String::new());
        }
        let bare = self.store()?.commit(config, &[]).context(|| "store the image")?;
        // `<<` would begin a here-document, in a list of words too.
        let args = serde_json::Value::from(args.to_vec())
            .to_string()
            .replace('<', "\\u003c");
        let mut request = Request::new(format!("FROM {}\nRUN {mounts} {args}\n", bare.hex()));
        request.no_cache = true;
        request.aside = true;
        request.record = false;
        request.never_pull = true;
        request.run_dir.clone_from(&self.settings().run);
        request.platform = Some(image.config.platform());
        if !network {
            request.network = BuildNetwork::None;
        }
        let built = self.built_quietly(&request);
        self.discard(&bare);
        let (built, fetched) = built?;
        Ok((built.image.config.rootfs.diff_ids.clone(), fetched))
    }

    /// Builds, and says what the steps said only when one fails; with the files of packages that they say to fetch.
    pub(super) fn built_quietly(&self, request: &Request) -> Result<(Built, Vec<Fetched>), Error> {
        let said = Said::default();
        let around = BuildAround {
            caches: &[],
            limits: &Limits::default(),
        };
        let built = self.build(request, around, &said, &Silent);
        let (said, lines) = said.0.into_inner().unwrap_or_default();
        match built {
            Ok(built) => Ok((built, lines.fetched)),
            Err(BuildFailure::Around(error)) => Err(error),
            Err(BuildFailure::Build(failed)) => {
                let said = String::from_utf8_lossy(&said);
                let said: Vec<&str> = said.lines().rev().take(10).collect();
                let said: Vec<&str> = said.into_iter().rev().collect();
                let message = match said.as_slice() {
                    [] => "the command failed in the image".to_owned(),
                    lines => format!("the command failed in the image, saying: {}", lines.join(" / ")),
                };
                Err(Error::wrap(*failed, message))
            }
        }
    }
}
