//! Mounts of a container: what a person says, and what is written down of it.

use std::path::{Path, PathBuf};

use dhow_bundle::{BindMount, MountRequest, Propagation, Submounts, TmpfsMount};
use dhow_image::Image;
use dhow_meta::Lease;
use dhow_types::ErrorKind;

use super::create::{CreateContainer, ImageVolumes};
use super::record::{MountRecord, MountedLayers};
use super::users::{Users, is_mapped};
use crate::{Context as _, Engine, Error, Relabel, VolumeRequest};

/// The option of a mount whose files become the container's user's (podman's `U`).
pub(super) const CHOWN: &str = "U";
/// What the spec says of a source that has no path; nobody opens it.
const NOWHERE: &str = "/proc/self/fd";

/// One mount as a person says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSpec {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container.
        target: PathBuf,
        /// Whether it may not be written.
        read_only: bool,
        /// Whether a source that is not there is made as a folder (`-v` does, `--mount` does not).
        create: bool,
        /// How later mounts travel.
        propagation: Propagation,
        /// Attributes: `noexec`, `nosuid`, `nodev` and their opposites.
        options: Vec<String>,
        /// Whether its files get a SELinux label (`z`, `Z`).
        relabel: Relabel,
        /// What becomes of mounts below the source.
        submounts: Submounts,
    },
    /// A volume; without a name a new one that goes with the container.
    Volume {
        /// Its name.
        name: Option<String>,
        /// Absolute path in the container.
        target: PathBuf,
        /// Whether it may not be written.
        read_only: bool,
        /// Whether the image's content is not copied into an empty volume.
        no_copy: bool,
        /// Attributes, as of a bind.
        options: Vec<String>,
        /// The part of it that is mounted, when it is not all of it.
        subpath: Option<PathBuf>,
        /// Labels and options of one that is not there yet; its name is left alone.
        made_with: Box<VolumeRequest>,
    },
    /// The file system of an image.
    Image {
        /// Its name or id.
        image: String,
        /// Absolute path in the container.
        target: PathBuf,
        /// The part of it that is mounted, when it is not all of it.
        subpath: Option<PathBuf>,
        /// Whether the container may write there; it is gone when the container starts again.
        writable: bool,
    },
    /// Memory.
    Tmpfs {
        /// Absolute path in the container.
        target: PathBuf,
        /// Options as `--tmpfs` takes them.
        options: Vec<String>,
    },
}

impl MountSpec {
    /// Where it is in the container.
    #[must_use]
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. }
            | Self::Volume { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Image { target, .. } => target,
        }
    }
}

impl Engine {
    /// Every mount: those of the person, then the image's volumes that the person did not mount over.
    pub(super) fn mounts(
        &self,
        wanted: &CreateContainer,
        image: &Image,
        mounted: &[Mounted],
    ) -> Result<Vec<MountRecord>, Error> {
        let mut records = Vec::new();
        for spec in &wanted.mounts {
            records.push(self.mount_record(spec, mounted)?);
        }
        if wanted.image_volumes != ImageVolumes::Anonymous {
            return Ok(records);
        }
        for path in image.config.config.volumes.keys() {
            let covered = records
                .iter()
                .any(|record: &MountRecord| same_path(&record.destination, path));
            if !covered {
                let target = PathBuf::from(path);
                let spec = MountSpec::Volume {
                    name: None,
                    target,
                    read_only: false,
                    no_copy: false,
                    options: Vec::new(),
                    subpath: None,
                    made_with: Box::default(),
                };
                records.push(self.mount_record(&spec, mounted)?);
            }
        }
        Ok(records)
    }

    fn mount_record(&self, spec: &MountSpec, mounted: &[Mounted]) -> Result<MountRecord, Error> {
        absolute(spec.target())?;
        let destination = text(spec.target())?;
        match spec {
            MountSpec::Bind {
                source,
                read_only,
                create,
                options,
                submounts,
                ..
            } => Ok(MountRecord {
                source: bind_source(source, *create)?,
                writable: !read_only,
                options: options.clone(),
                submounts: *submounts,
                ..MountRecord::new("bind", destination)
            }),
            MountSpec::Volume {
                name,
                read_only,
                no_copy,
                options,
                subpath,
                made_with,
                ..
            } => {
                if name.is_none() && subpath.is_some() {
                    let message = "must not set Subpath when using anonymous volumes";
                    return Err(Error::new(ErrorKind::InvalidArgument, message));
                }
                check_subpath(subpath.as_deref(), "volume")?;
                let volume = self.create_volume(&VolumeRequest {
                    name: name.clone(),
                    ..VolumeRequest::clone(made_with)
                })?;
                Ok(MountRecord {
                    source: text(&volume.source()?)?,
                    writable: !read_only,
                    copy_up: !no_copy,
                    anonymous: name.is_none(),
                    options: options.clone(),
                    subpath: subpath.clone(),
                    name: Some(volume.name),
                    ..MountRecord::new("volume", destination)
                })
            }
            MountSpec::Tmpfs { .. } => Ok(MountRecord::new("tmpfs", destination)),
            MountSpec::Image {
                image,
                subpath,
                writable,
                ..
            } => {
                check_subpath(subpath.as_deref(), "image")?;
                let found = mounted.iter().find(|(name, _, _)| name == image);
                let (_, found, _) = found.ok_or_else(|| no_source(image))?;
                Ok(MountRecord {
                    source: image.clone(),
                    writable: *writable,
                    subpath: subpath.clone(),
                    image: Some(MountedLayers {
                        id: found.id,
                        layers: found.config.rootfs.diff_ids.clone(),
                    }),
                    ..MountRecord::new("image", destination)
                })
            }
        }
    }

    /// The images to mount, kept until a container has them.
    pub(super) fn images_to_mount(&self, wanted: &[MountSpec]) -> Result<Vec<Mounted>, Error> {
        let images = wanted.iter().filter_map(|spec| match spec {
            MountSpec::Image { image, .. } => Some(image),
            _ => None,
        });
        images
            .map(|name| {
                let (image, lease) = self.image_to_run(name, None)?;
                Ok((name.clone(), image, lease))
            })
            .collect()
    }
}

/// An image that is to be mounted: its name, and what keeps its layers meanwhile.
pub(super) type Mounted = (String, Image, Lease);

fn no_source(image: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no such image: {image}"))
}

/// The path of the host, made as a folder if that is asked for.
fn bind_source(source: &Path, create: bool) -> Result<String, Error> {
    if create && !source.exists() {
        std::fs::create_dir_all(source)
            .context(|| format!("make the folder {} to mount", source.display()))?;
    }
    if !source.exists() {
        let message = format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            source.display()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    text(source)
}

/// A part is named by a path that says itself that it is inside; links on the way are followed inside at the start.
fn check_subpath(subpath: Option<&Path>, of: &str) -> Result<(), Error> {
    use std::path::Component;
    let inside = |path: &Path| {
        let normal = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        path.components().all(normal)
    };
    if subpath.is_none_or(inside) {
        return Ok(());
    }
    let message =
        format!("invalid mount config for type \"{of}\": subpath must be a relative path within the {of}");
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

pub(super) fn mount_requests(wanted: &CreateContainer, records: &[MountRecord]) -> Vec<MountRequest> {
    let request =
        |(index, record): (usize, &MountRecord)| match (record.kind.as_str(), wanted.mounts.get(index)) {
            ("tmpfs", Some(MountSpec::Tmpfs { target, options })) => MountRequest::Tmpfs(TmpfsMount {
                destination: target.clone(),
                options: options.clone(),
            }),
            (kind, spec) => MountRequest::Bind(BindMount {
                // Of an image the runtime gets the mount itself.
                source: PathBuf::from(if kind == "image" { NOWHERE } else { &record.source }),
                destination: PathBuf::from(&record.destination),
                read_only: !record.writable,
                submounts: record.submounts,
                propagation: match spec {
                    Some(MountSpec::Bind { propagation, .. }) => *propagation,
                    _ => Propagation::default(),
                },
                options: attributes(record),
            }),
        };
    records.iter().enumerate().map(request).collect()
}

/// The attributes that are the kernel's.
fn attributes(record: &MountRecord) -> Vec<String> {
    let all = record.options.iter();
    all.filter(|option| *option != CHOWN).cloned().collect()
}

/// Refuses mapped ids where there are no others.
pub(super) fn check_mapped(records: &[MountRecord], users: Option<&Users>) -> Result<(), Error> {
    match records.iter().find(|record| is_mapped(record)) {
        Some(record) if users.is_none() => {
            let message = format!(
                "mount {}: idmap is for containers in a user namespace of their own",
                record.destination
            );
            Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("such as with --userns auto"))
        }
        Some(record) if super::users::keeps_ids_outside() => {
            let message = format!(
                "mount {}: idmap needs rights over the whole file system, which only the host's root has",
                record.destination
            );
            Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("U gives the files to the container's user instead"))
        }
        _ => Ok(()),
    }
}

fn absolute(target: &Path) -> Result<(), Error> {
    let root = target
        .components()
        .all(|part| matches!(part, std::path::Component::RootDir));
    if target.is_absolute() && !root {
        return Ok(());
    }
    let message = format!(
        "invalid mount path {:?}: it must be absolute and not '/'",
        target.display().to_string()
    );
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("path {} is not UTF-8", path.display()),
        )
    })
}

fn same_path(a: &str, b: &str) -> bool {
    Path::new(a).components().eq(Path::new(b).components())
}
