//! The packages' own scripts, run inside the new root.

use std::io::Write;
use std::path::Path;

use dhow_rootpath::Root;
use dhow_types::{ErrorKind, Observer, Progress};

use crate::dpkg::Registered;
use crate::{Configure, Context, Error};

/// Lines of output that an error shows.
const SHOWN: usize = 20;
/// More output than any configuration makes; what comes after it is dropped.
const MAX_LINE: usize = 4096;

/// Services must not start in a container that is being built (invoke-rc.d(8), `policy-rc.d`).
const POLICY: &str = "#!/bin/sh\n\
    # No service is started while packages are installed into an image: there is no init to run it.\n\
    exit 101\n";

/// Programs that scripts call before the package that owns their usual name is configured; each becomes the proper
/// link (an alternative, or the same link) when that package is. debootstrap makes the first of them too.
const STAND_INS: &[(&str, &str)] = &[("usr/bin/awk", "mawk"), ("usr/bin/sh", "dash")];

/// Runs inside the root until every package is configured.
pub(crate) struct Configuration<'a> {
    pub(crate) path: &'a Path,
    pub(crate) root: &'a Root,
    pub(crate) configure: &'a dyn Configure,
    pub(crate) observer: &'a dyn Observer,
    /// Programs that write a date (`useradd`) take this one.
    pub(crate) epoch: i64,
}

impl Configuration<'_> {
    /// Configures the packages, which are unpacked and registered.
    pub(crate) fn run(&self, packages: &[Registered]) -> Result<(), Error> {
        self.root
            .write(Path::new("usr/sbin/policy-rc.d"), POLICY.as_bytes(), 0o755, None)?;
        for (name, target) in STAND_INS {
            let (link, directory) = (Path::new(name), Path::new("usr/bin"));
            let usable = self.root.exists(&directory.join(target))?;
            if usable && self.root.symlink_metadata(link).is_err() {
                self.root.symlink(Path::new(target), link, None)?;
            }
        }
        self.preinst(packages)?;
        // The names of users and groups that all other scripts rely on; nothing declares that dependency.
        if packages.iter().any(|package| package.name == "base-passwd") {
            self.command(
                "configuring base-passwd",
                &["/usr/bin/dpkg", "--force-depends", "--configure", "base-passwd"],
            )?;
        }
        self.command(
            "configuring the packages",
            &["/usr/bin/dpkg", "--configure", "--pending"],
        )
    }

    /// The scripts that dpkg runs before it unpacks; here the files are there already, as in the first stage of
    /// debootstrap. One shell runs them all.
    fn preinst(&self, packages: &[Registered]) -> Result<(), Error> {
        let mut script = String::from(
            "set -e\nexport DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_MAINTSCRIPT_NAME=preinst\n",
        );
        script.push_str("export DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1\n");
        let (first, rest): (Vec<_>, Vec<_>) = packages
            .iter()
            .filter(|one| one.has_preinst)
            .partition(|one| one.name == "base-passwd");
        for package in first.iter().chain(&rest) {
            // Names and architectures were checked to be plain words.
            script.push_str(&format!(
                "echo 'Preparing {id}'\nDPKG_MAINTSCRIPT_PACKAGE={name} DPKG_MAINTSCRIPT_ARCH={arch} \
                 /var/lib/dpkg/info/{id}.preinst install\n",
                id = package.id,
                name = package.name,
                arch = package.architecture
            ));
        }
        self.command("running the preinst scripts", &["/bin/sh", "-c", &script])
    }

    fn command(&self, what: &str, argv: &[&str]) -> Result<(), Error> {
        let epoch = self.epoch.to_string();
        let env = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("SOURCE_DATE_EPOCH", &epoch),
        ];
        let mut output = Lines {
            observer: self.observer,
            line: Vec::new(),
            last: Vec::new(),
        };
        let code = self
            .configure
            .run(self.path, argv, &env, &mut output)
            .context(|| what.to_owned())?;
        output.end();
        if code == 0 {
            return Ok(());
        }
        let message = format!("{what} failed with exit code {code}: {}", output.last.join(" | "));
        Err(Error::new(ErrorKind::Internal, message))
    }
}

/// Gives output on line by line and keeps the last lines.
struct Lines<'a> {
    observer: &'a dyn Observer,
    line: Vec<u8>,
    last: Vec<String>,
}

impl Lines<'_> {
    fn end(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        self.observer.observe(Progress::Message(&line));
        if self.last.len() == SHOWN {
            self.last.remove(0);
        }
        self.last.push(line);
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            match byte {
                b'\n' => self.end(),
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => (),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_output_are_kept() {
        let mut lines = Lines {
            observer: &dhow_types::Silent,
            line: Vec::new(),
            last: Vec::new(),
        };
        for number in 0..50 {
            write!(lines, "line {number}\n\n").unwrap();
        }
        lines.write_all(b"half").unwrap();
        lines.end();
        assert_eq!(lines.last.len(), SHOWN);
        assert_eq!(lines.last.first().unwrap(), "line 31");
        assert_eq!(lines.last.last().unwrap(), "half");
    }
}
