//! What was built, on its way out of the store: an archive, a layout, a tree.

use std::io::{self, Write};
use std::path::Path;

use dhow_build::Built;
use dhow_image::ArchiveForm;
use dhow_oci::Descriptor;
use dhow_reference::Reference;
use dhow_rootpath::Root;
use dhow_types::ErrorKind;

use crate::container::{unpack_tree, write_tree};
use crate::{Context as _, Engine, Error};

impl Engine {
    /// Writes what was built as an image archive; the descriptor of its manifest.
    ///
    /// # Errors
    /// What reading the store and writing said.
    pub fn write_built(
        &self,
        built: &Built,
        names: &[Reference],
        form: &ArchiveForm,
        output: &mut dyn Write,
    ) -> Result<Descriptor, Error> {
        let written = self.store()?.write_image(&built.image, names, form, output);
        written.context(|| "write the image")
    }

    /// Writes what was built into an OCI layout; the descriptor of its manifest.
    ///
    /// # Errors
    /// What reading the store and writing said.
    pub fn write_built_layout(
        &self,
        built: &Built,
        names: &[Reference],
        form: &ArchiveForm,
        folder: &Path,
    ) -> Result<Descriptor, Error> {
        let written = self.store()?.write_layout(&built.image, names, form, folder);
        written.context(|| format!("write the image to {}", folder.display()))
    }

    /// Writes the root file system of what was built as a tar.
    ///
    /// # Errors
    /// What reading the layers and writing said.
    pub fn write_built_tree(&self, built: &Built, output: &mut dyn Write) -> Result<(), Error> {
        let stack = &built.image.config.rootfs.diff_ids;
        self.with_view(stack, "output", |root| write_tree(root, output))
    }

    /// Writes the root file system of what was built into a folder, beside what is there. All of it belongs to whoever
    /// runs this, and no link of what is there or of what comes leads out of the folder.
    ///
    /// # Errors
    /// `FailedPrecondition` where a folder and something else want one place; failures of the file system.
    pub fn check_out_built(&self, built: &Built, folder: &Path) -> Result<(), Error> {
        let what = || format!("write to {}", folder.display());
        std::fs::create_dir_all(folder).context(what)?;
        let target = Root::open(folder).context(what)?;
        let stack = &built.image.config.rootfs.diff_ids;
        self.with_view(stack, "output", |root| {
            let (reader, writer) = io::pipe().context(|| "make a pipe")?;
            std::thread::scope(|scope| {
                let read = scope.spawn(|| unpack_tree(&target, reader).context(what));
                let mut writer = Noting {
                    writer,
                    abandoned: false,
                };
                let written = write_tree(root, &mut writer);
                let abandoned = writer.abandoned;
                drop(writer);
                let panicked = || Error::new(ErrorKind::Internal, "the thread that writes the files ended");
                let read = read.join().unwrap_or_else(|_| Err(panicked()));
                match written {
                    // That nobody reads any more is the echo of the reader's own failure.
                    Err(error) if !abandoned => Err(error),
                    _ => read,
                }
            })
        })
    }
}

/// Notes that nobody reads any more.
struct Noting<W> {
    writer: W,
    abandoned: bool,
}

impl<W: Write> Write for Noting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).inspect_err(|error| {
            self.abandoned |= error.kind() == io::ErrorKind::BrokenPipe;
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
