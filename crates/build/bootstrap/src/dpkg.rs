//! dpkg's database in the new root: packages are entered as unpacked, with all that dpkg needs to configure them
//! itself (dpkg(1) "Package states"; the files are those of dpkg 1.16 and later, `info/format` 1).
//!
//! Triggers: dpkg notes the interest of a package when it unpacks it, so the interests are written here; activation by
//! what was unpacked is not needed, since every interested package is configured after it all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_rootpath::Root;
use dhow_types::ErrorKind;

use crate::Error;
use crate::control::Paragraph;
use crate::deb::ControlFile;
use crate::unpack::{Unpacked, stamps};

const DATABASE: &str = "var/lib/dpkg";
/// Control files that dpkg keeps elsewhere: the paragraph goes to `status`, the rest is not kept at all.
const NOT_KEPT: &[&str] = &["control", "list", "conffiles.old"];

fn bad(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, why)
}

/// One line of a `conffiles` file (deb-conffiles(5)).
pub(crate) struct ConffileLine<'a> {
    pub(crate) path: &'a str,
    remove_on_upgrade: bool,
}

/// Reads a `conffiles` file.
pub(crate) fn conffile_lines(bytes: &[u8]) -> impl Iterator<Item = Result<ConffileLine<'_>, Error>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| {
            let line = std::str::from_utf8(line)
                .map_err(|_| bad("conffiles is not UTF-8"))?
                .trim_end();
            let (remove_on_upgrade, path) = match line.strip_prefix("remove-on-upgrade ") {
                Some(path) => (true, path),
                None => (false, line),
            };
            let inside = path.starts_with('/') && !path.contains(char::is_whitespace);
            if !inside || path.split('/').any(|part| part == "..") {
                return Err(bad(format!("conffiles has {line:?}, which is no path")));
            }
            Ok(ConffileLine {
                path,
                remove_on_upgrade,
            })
        })
}

/// A package as the database knows it.
pub(crate) struct Registered {
    /// Name, with the architecture when several of it may be installed at once.
    pub(crate) id: String,
    /// Name alone.
    pub(crate) name: String,
    /// Architecture.
    pub(crate) architecture: String,
    /// Whether it has a `preinst` script.
    pub(crate) has_preinst: bool,
}

/// Enters the packages as unpacked, or as installed where no script is to be run.
pub(crate) fn register(
    root: &Root,
    packages: &[(&str, &Unpacked)],
    installed: bool,
) -> Result<Vec<Registered>, Error> {
    for directory in ["info", "updates", "triggers", "parts", "alternatives"] {
        root.create_dir_all(&Path::new(DATABASE).join(directory), 0o755, None)?;
    }
    let (mut registered, mut status, mut interests) = (Vec::new(), BTreeMap::new(), Interests::default());
    for (name, unpacked) in packages {
        let text = unpacked
            .control
            .get("control")
            .map(|file| file.bytes.as_slice())
            .unwrap_or_default();
        let text =
            std::str::from_utf8(text).map_err(|_| bad(format!("the control file of {name} is not UTF-8")))?;
        let paragraph = Paragraph::parse(text)?;
        if paragraph.need("Package")? != *name {
            return Err(bad(format!(
                "the package {name} says that it is {:?}",
                paragraph.get("Package")
            )));
        }
        let architecture = paragraph.need("Architecture")?.to_owned();
        let several = paragraph.get("Multi-Arch") == Some("same");
        let id = if several {
            format!("{name}:{architecture}")
        } else {
            (*name).to_owned()
        };
        write_info(root, &id, unpacked)?;
        if let Some(file) = unpacked.control.get("triggers") {
            interests.read(&id, &file.bytes)?;
        }
        status.insert(id.clone(), stanza(&paragraph, unpacked, installed)?);
        let has_preinst = unpacked.control.contains_key("preinst");
        registered.push(Registered {
            id,
            name: (*name).to_owned(),
            architecture,
            has_preinst,
        });
    }
    let status: Vec<String> = status.into_values().collect();
    write(root, "info/format", b"1\n")?;
    write(root, "status", status.join("\n").as_bytes())?;
    // apt is the only one that could fill it; dselect reads it.
    write(root, "available", b"")?;
    write(root, "cmethopt", b"apt apt\n")?;
    interests.write(root)?;
    Ok(registered)
}

fn write(root: &Root, name: &str, bytes: &[u8]) -> Result<(), Error> {
    Ok(root.write(&Path::new(DATABASE).join(name), bytes, 0o644, None)?)
}

/// The paragraph of `status`. dpkg writes it anew in its own order when it configures the package.
fn stanza(paragraph: &Paragraph<'_>, unpacked: &Unpacked, installed: bool) -> Result<String, Error> {
    let state = if installed { "installed" } else { "unpacked" };
    let mut out = String::new();
    for (field, value) in paragraph.fields() {
        if field.eq_ignore_ascii_case("Status") || field.eq_ignore_ascii_case("Conffiles") {
            return Err(bad(format!("a control file with the field {field}")));
        }
        out.push_str(&format!("{field}: {value}\n"));
        if field.eq_ignore_ascii_case("Package") {
            out.push_str(&format!("Status: install ok {state}\n"));
        }
    }
    if let Some(file) = unpacked.control.get("conffiles").filter(|_| !installed) {
        out.push_str("Conffiles:\n");
        for line in conffile_lines(&file.bytes) {
            let line = line?;
            let flag = if line.remove_on_upgrade {
                " remove-on-upgrade"
            } else {
                ""
            };
            out.push_str(&format!(" {} newconffile{flag}\n", line.path));
        }
    }
    Ok(out)
}

fn write_info(root: &Root, id: &str, unpacked: &Unpacked) -> Result<(), Error> {
    let info = |ending: &str| -> PathBuf { Path::new(DATABASE).join("info").join(format!("{id}.{ending}")) };
    let mut list = Vec::with_capacity(unpacked.paths.len() * 48);
    for path in &unpacked.paths {
        if path.contains(&b'\n') {
            return Err(bad(format!("the package {id} ships a path with a line end")));
        }
        // dpkg writes the root as "/.".
        list.push(b'/');
        list.extend_from_slice(if path.is_empty() { b"." } else { path });
        list.push(b'\n');
    }
    root.write(&info("list"), &list, 0o644, None)?;
    for (name, ControlFile { bytes, mode, mtime }) in &unpacked.control {
        if NOT_KEPT.contains(&name.as_str()) {
            continue;
        }
        let path = info(name);
        let file = root.create_file(&path, *mode, None)?;
        let mut writer = &file;
        std::io::Write::write_all(&mut writer, bytes)
            .and_then(|()| Ok(rustix::fs::futimens(&file, &stamps(*mtime))?))
            .map_err(|error| {
                Error::because(
                    ErrorKind::Internal,
                    format!("cannot write /{}", path.display()),
                    error,
                )
            })?;
    }
    Ok(())
}

/// Who wants to know of what (deb-triggers(5)).
#[derive(Default)]
struct Interests {
    /// Lines of `triggers/File`: a path and a package.
    files: Vec<(String, String)>,
    /// Files of `triggers`: a name and the packages.
    named: BTreeMap<String, Vec<String>>,
}

impl Interests {
    fn read(&mut self, id: &str, bytes: &[u8]) -> Result<(), Error> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| bad(format!("the triggers of {id} are not UTF-8")))?;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(directive) = words.next() else { continue };
            let (Some(trigger), None) = (words.next(), words.next()) else {
                return Err(bad(format!("the triggers of {id} have the line {line:?}")));
            };
            let ending = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                "activate" | "activate-await" | "activate-noawait" => continue,
                _ => return Err(bad(format!("the triggers of {id} have the word {directive:?}"))),
            };
            let who = format!("{id}{ending}");
            if trigger.starts_with('/') {
                self.files.push((trigger.to_owned(), who));
            } else if is_trigger_name(trigger) {
                self.named.entry(trigger.to_owned()).or_default().push(who);
            } else {
                return Err(bad(format!("the triggers of {id} name {trigger:?}")));
            }
        }
        Ok(())
    }

    fn write(mut self, root: &Root) -> Result<(), Error> {
        self.files.sort();
        let lines: String = self
            .files
            .iter()
            .map(|(path, who)| format!("{path} {who}\n"))
            .collect();
        write(root, "triggers/File", lines.as_bytes())?;
        write(root, "triggers/Unincorp", b"")?;
        for (name, mut packages) in self.named {
            packages.sort();
            write(
                root,
                &format!("triggers/{name}"),
                format!("{}\n", packages.join("\n")).as_bytes(),
            )?;
        }
        Ok(())
    }
}

/// A name that is also a file name in `triggers`.
fn is_trigger_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b':');
    name.bytes().all(good) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conffile_lines_are_absolute_paths() {
        let good = conffile_lines(b"/etc/a\n\nremove-on-upgrade /etc/b\n")
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        assert_eq!(
            good.iter().map(|line| line.path).collect::<Vec<_>>(),
            ["/etc/a", "/etc/b"]
        );
        assert!(!good[0].remove_on_upgrade && good[1].remove_on_upgrade);
        for bad in ["etc/a", "/etc/../b", "/etc/a b", "obsolete /etc/a"] {
            assert!(conffile_lines(bad.as_bytes()).any(|line| line.is_err()), "{bad}");
        }
    }

    #[test]
    fn interests_of_triggers_are_sorted_by_kind() {
        let mut interests = Interests::default();
        let text = b"# a comment\ninterest-noawait ldconfig\ninterest /usr/share/x\nactivate-noawait other\n";
        interests.read("libc-bin", text).unwrap();
        assert_eq!(
            interests.files,
            [("/usr/share/x".to_owned(), "libc-bin".to_owned())]
        );
        assert_eq!(interests.named["ldconfig"], ["libc-bin/noawait"]);
        assert_eq!(interests.named.len(), 1);
        for bad in ["interest", "interest a b", "unknown x", "interest ../x"] {
            assert!(interests.read("x", bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
