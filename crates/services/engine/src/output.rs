//! What was built, on its way out of the store: an archive, a layout, a tree.

use std::io::{self, Write};
use std::path::Path;

use dhow_build::Built;
use dhow_image::{ArchiveForm, Image, PushForm, Pushed};
use dhow_oci::Descriptor;
use dhow_policy::Point;
use dhow_reference::Reference;
use dhow_rootpath::Root;
use dhow_types::{ErrorKind, Observer, Progress};

use crate::container::{check_out_tree, write_named_tree, write_tree};
use crate::provenance::About;
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

    /// Writes what was built for several machines as one OCI layout in an archive; the descriptor of its index.
    ///
    /// # Errors
    /// What reading the store and writing said.
    pub fn write_built_index(
        &self,
        built: &[Built],
        names: &[Reference],
        form: &ArchiveForm,
        about: &About<'_>,
        output: &mut dyn Write,
    ) -> Result<Descriptor, Error> {
        let images = images(built);
        let say = about.say(built, names);
        let written = self.store()?.write_images(&images, names, form, &say, output);
        written.context(|| "write the images")
    }

    /// The same into a folder.
    ///
    /// # Errors
    /// What reading the store and writing said.
    pub fn write_built_index_layout(
        &self,
        built: &[Built],
        names: &[Reference],
        form: &ArchiveForm,
        about: &About<'_>,
        folder: &Path,
    ) -> Result<Descriptor, Error> {
        let images = images(built);
        let say = about.say(built, names);
        let store = self.store()?;
        let written = store.write_images_layout(&images, names, form, &say, folder);
        written.context(|| format!("write the images to {}", folder.display()))
    }

    /// Pushes what was built for several machines, and an index of it under this name.
    ///
    /// # Errors
    /// As [`Engine::push`].
    pub fn push_built_index(
        &self,
        built: &[Built],
        name: &Reference,
        form: &PushForm,
        about: &About<'_>,
        observer: &dyn Observer,
    ) -> Result<Pushed, Error> {
        if self.own_policy()?.is_some() {
            for built in built {
                for warning in self.admit(Point::Push, &built.image, &name.canonical())? {
                    observer.observe(Progress::Warning(&warning));
                }
            }
        }
        let (client, images) = (self.client()?, images(built));
        let say = about.say(built, std::slice::from_ref(name));
        let pushed = self
            .store()?
            .push_images(client, &images, name, form, &say, observer);
        pushed.context(|| format!("push {}", name.familiar()))
    }

    /// Writes the root file system of what was built as a tar.
    ///
    /// # Errors
    /// What reading the layers and writing said.
    pub fn write_built_tree(&self, built: &Built, output: &mut dyn Write) -> Result<(), Error> {
        let stack = &built.image.config.rootfs.diff_ids;
        self.with_view(stack, "output", |root| write_tree(root, output))
    }

    /// The same of what was built for several machines, each in a folder of its own.
    ///
    /// # Errors
    /// What reading the layers and writing said.
    pub fn write_built_trees(&self, built: &[Built], output: &mut dyn Write) -> Result<(), Error> {
        for (index, one) in built.iter().enumerate() {
            let name = one.platform_folder();
            let stack = &one.image.config.rootfs.diff_ids;
            self.with_view(stack, "output", |root| {
                if index + 1 == built.len() {
                    return write_named_tree(root, &name, output);
                }
                write_named_tree(root, &name, &mut Unended::new(&mut *output))
            })?;
        }
        Ok(())
    }

    /// Writes the root file system of what was built into a folder, beside what is there. All of it belongs to whoever
    /// runs this, without set-id bits; no link of what is there or of what comes leads out of the folder.
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
                let read = scope.spawn(|| check_out_tree(&target, reader).context(what));
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

fn images(built: &[Built]) -> Vec<Image> {
    built.iter().map(|built| built.image.clone()).collect()
}

/// An archive without its end, so that another one may follow.
struct Unended<'w> {
    output: &'w mut dyn Write,
    held: Vec<u8>,
}

impl<'w> Unended<'w> {
    /// Two blocks of zeros.
    const END: usize = 1024;

    fn new(output: &'w mut dyn Write) -> Self {
        Self {
            output,
            held: Vec::new(),
        }
    }
}

impl Write for Unended<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        let ready = self.held.len().saturating_sub(Self::END);
        self.output.write_all(&self.held[..ready])?;
        self.held.drain(..ready);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
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
