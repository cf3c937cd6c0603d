//! Root file systems in the archives of others: App Container images (appc spec 0.8.11, `spec/aci.md`: `manifest` and
//! `rootfs/`) and unified tarballs of LXC and LXD (`metadata.yaml`, `rootfs/`, `templates/`).

mod appc;
mod lxd;

use std::io::{self, Read, Write};

use dhow_layer::tar::{Reader, Writer};
use dhow_layer::{Entry, EntryKind, Limits, decoder};
use dhow_oci::RunConfig;
use dhow_types::{ErrorKind, Platform};

use crate::types::Packing;
use crate::{Context as _, Error};

/// Bytes of a document of an archive; those of real images are a few kilobytes.
const DOCUMENT: u64 = 1 << 20;

/// What an archive says of the image in it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) run: RunConfig,
    pub(crate) platform: Option<Platform>,
    /// RFC 3339.
    pub(crate) created: Option<String>,
    /// What it asks for and an image cannot hold, in words for the user.
    pub(crate) left_out: Vec<String>,
}

/// Keeps what was read of a stream, so that it can be read again.
struct Recorder<R> {
    input: R,
    kept: Vec<u8>,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        self.kept.extend_from_slice(&buf[..count]);
        Ok(count)
    }
}

/// What the archive is, by its first entry, and the whole of it again, compressed as it is. One whose first entry says nothing is
/// a plain root file system, and so is what is no archive: unpacking it tells what is wrong.
pub(crate) fn sniff<R: Read + Send>(
    input: R,
    limits: &Limits,
) -> (Packing, io::Chain<io::Cursor<Vec<u8>>, R>) {
    let mut recorder = Recorder {
        input,
        kept: Vec::new(),
    };
    let packing = match decoder(&mut recorder) {
        Ok((_, tar)) => first(&mut Reader::with_limits(tar, limits.clone())),
        Err(_) => Packing::Plain,
    };
    let Recorder { input, kept } = recorder;
    (packing, io::Cursor::new(kept).chain(input))
}

fn first(reader: &mut Reader<impl Read>) -> Packing {
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) if entry.path.is_empty() => (),
            Ok(Some(entry)) => return guess(&entry),
            Ok(None) | Err(_) => return Packing::Plain,
        }
    }
}

fn guess(first: &Entry) -> Packing {
    match first.path.split(|byte| *byte == b'/').next().unwrap_or_default() {
        b"manifest" if first.kind == EntryKind::File => Packing::Aci,
        b"metadata.yaml" if first.kind == EntryKind::File => Packing::Lxd,
        b"templates" => Packing::Lxd,
        // Both have it; which one it is is seen by what else is there.
        b"rootfs" => Packing::Auto,
        _ => Packing::Plain,
    }
}

/// Writes the root file system of an archive as a layer; returns what the archive says of it. `Auto` is either of the two.
///
/// # Errors
/// `InvalidArgument` when the archive is malformed, or is not what it was taken for; `Unsupported` for an image that is not
/// whole in itself.
pub(crate) fn unwrap(
    input: impl Read,
    packing: Packing,
    limits: &Limits,
    output: impl Write,
) -> Result<Told, Error> {
    let mut reader = Reader::with_limits(input, limits.clone());
    let mut writer = Writer::new(output);
    let (mut manifest, mut metadata, mut systemd) = (None, None, false);
    while let Some(mut entry) = reader.next_entry().context(|| "read the archive")? {
        let document = entry.kind == EntryKind::File;
        match entry.path.as_slice() {
            b"" | b"templates" => {}
            b"manifest" if document && packing != Packing::Lxd => {
                manifest = Some(
                    reader
                        .body(DOCUMENT)
                        .context(|| "read the manifest of the archive")?,
                );
            }
            b"metadata.yaml" if document && packing != Packing::Aci => {
                metadata = Some(
                    reader
                        .body(DOCUMENT)
                        .context(|| "read metadata.yaml of the archive")?,
                );
            }
            path if packing != Packing::Aci && path.starts_with(b"templates/") => {}
            _ => {
                inside(&mut entry)?;
                systemd |= entry.path.ends_with(b"sbin/init") && entry.link.ends_with(b"/systemd");
                writer
                    .append(&entry, &mut reader)
                    .context(|| "write the root file system")?;
            }
        }
    }
    writer.finish().context(|| "write the root file system")?;
    match (manifest, metadata) {
        (Some(manifest), None) => appc::read(&manifest),
        (None, Some(metadata)) => lxd::read(&metadata, systemd),
        (found, _) => {
            let what = if found.is_some() { "both" } else { "neither" };
            let message = format!(
                "the archive has {what} of `manifest` and `metadata.yaml` beside `rootfs`: it is no image of appc, LXC or LXD"
            );
            Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("with --format tar it is imported as it is"))
        }
    }
}

/// Takes `rootfs/` off the names of an entry.
fn inside(entry: &mut Entry) -> Result<(), Error> {
    let cut = |name: &[u8]| match name.strip_prefix(b"rootfs") {
        Some(rest @ ([] | [b'/', ..])) => Ok(rest.strip_prefix(b"/").unwrap_or(rest).to_vec()),
        _ => {
            let message = format!(
                "the archive has {:?} beside `rootfs`, where an image of appc, LXC or LXD has nothing else",
                String::from_utf8_lossy(&name[..name.len().min(256)])
            );
            Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("with --format tar it is imported as it is"))
        }
    };
    entry.path = cut(&entry.path)?;
    if entry.kind == EntryKind::Hardlink {
        entry.link = cut(&entry.link)?;
    }
    Ok(())
}

/// Settings of a request over those of an archive: what is given wins, tables are joined.
pub(crate) fn overlay(mut base: RunConfig, wanted: &RunConfig) -> RunConfig {
    let RunConfig {
        user,
        exposed_ports,
        env,
        entrypoint,
        cmd,
        volumes,
        working_dir,
        labels,
        stop_signal,
        stop_timeout,
        healthcheck,
        shell,
        on_build,
        extra,
    } = wanted.clone();
    for (field, wanted) in [(&mut base.user, user), (&mut base.working_dir, working_dir)] {
        if !wanted.is_empty() {
            *field = wanted;
        }
    }
    base.exposed_ports.extend(exposed_ports);
    base.volumes.extend(volumes);
    base.labels.extend(labels);
    base.extra.extend(extra);
    base.on_build.extend(on_build);
    for variable in env {
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        base.env.retain(|old| name(old) != name(&variable));
        base.env.push(variable);
    }
    // As with ENTRYPOINT in a Dockerfile, arguments for another program do not stay.
    if entrypoint.is_some() {
        base.cmd = None;
    }
    base.entrypoint = entrypoint.or(base.entrypoint);
    base.cmd = cmd.or(base.cmd);
    base.stop_signal = stop_signal.or(base.stop_signal);
    base.stop_timeout = stop_timeout.or(base.stop_timeout);
    base.healthcheck = healthcheck.or(base.healthcheck);
    base.shell = shell.or(base.shell);
    base
}

fn malformed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::because(
        ErrorKind::InvalidArgument,
        format!("parse {what} of the archive"),
        error,
    )
}
