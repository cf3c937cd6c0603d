//! The caller's account in a container in which they are who they are (podman-run(1), `--userns=keep-id`): programs ask for the
//! name of their user, and the image knows none.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::exec::accounts;
use super::record::Config;
use super::users::{Entered, UsersChoice};
use crate::{Context as _, Error};

/// Largest file of accounts of the host that is read.
const MOST: usize = 1 << 20;

/// Who somebody is on the host and, by number, in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Name of the user.
    pub name: String,
    /// The user's full name.
    pub full_name: String,
    /// Name of the group.
    pub group: String,
    /// Number of the user inside.
    pub uid: u32,
    /// Number of the group inside.
    pub gid: u32,
}

impl Account {
    /// The caller's, where that is to be in the container; none of somebody whom the host does not know.
    pub(super) fn of_caller(choice: &UsersChoice) -> Result<Option<Self>, Error> {
        let UsersChoice::KeepId(kept) = choice else {
            return Ok(None);
        };
        let (uid, gid) = super::own_ids::caller()?;
        let users = dhow_sys::file::read_text("/etc/passwd", MOST).unwrap_or_default();
        let groups = dhow_sys::file::read_text("/etc/group", MOST).unwrap_or_default();
        Ok(known(&users, uid).map(|user| Self {
            name: user[0].to_owned(),
            full_name: user.get(4).copied().unwrap_or_default().to_owned(),
            group: known(&groups, gid).map_or(user[0], |group| group[0]).to_owned(),
            uid: kept.uid.unwrap_or(uid),
            gid: kept.gid.unwrap_or(gid),
        }))
    }
}

/// The fields of the line of a number in `passwd` or `group`; it has a name.
fn known(text: &str, id: u32) -> Option<Vec<&str>> {
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| {
        let number = fields.get(2).and_then(|number| number.parse().ok());
        number == Some(id) && !fields[0].is_empty()
    })
}

/// Adds it to the container's own files where these have nobody of its numbers, in podman's form. An image without such files
/// gets none.
pub(super) fn enter(config: &Config, root: &Root, users: Option<&Entered>) -> Result<(), Error> {
    let Some(account) = config
        .extras
        .account
        .as_ref()
        .filter(|_| !config.request.read_only)
    else {
        return Ok(());
    };
    let (passwd, group) = accounts(root)?;
    let Account {
        name,
        full_name,
        uid,
        gid,
        ..
    } = account;
    let home = config.request.cwd.display();
    let user = format!("{name}:*:{uid}:{gid}:{full_name}:{home}:/bin/sh\n");
    let own_group = format!("{}:x:{gid}:{name}\n", account.group);
    for (file, there, id, line) in [
        ("/etc/passwd", passwd, *uid, user),
        ("/etc/group", group, *gid, own_group),
    ] {
        let text = String::from_utf8_lossy(&there);
        if text.is_empty() || known(&text, id).is_some() {
            continue;
        }
        let line = match text.ends_with('\n') {
            true => line,
            false => format!("\n{line}"),
        };
        let add = || append(root, Path::new(file), &line);
        match users {
            Some(users) => users.as_root(add)?,
            None => add(),
        }
        .context(|| format!("add the user {name} to the container's {file}"))?;
    }
    Ok(())
}

fn append(root: &Root, path: &Path, line: &str) -> Result<(), Error> {
    let file = root.resolve(path).context(|| "find it")?;
    let status = rustix::fs::fstat(&file)
        .map_err(io::Error::from)
        .context(|| "look at it")?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Error::new(ErrorKind::FailedPrecondition, "it is no file"));
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .context(|| "write to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_known_by_its_number() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7:7::/:\nada:x:1000:1000:Ada L.:/home/ada:/bin/sh\n";
        assert_eq!(known(text, 1000).unwrap()[4], "Ada L.");
        assert_eq!(known(text, 7), None);
        assert_eq!(known(text, 5), None);
        assert_eq!(known("staff:x:50:\n", 50).unwrap()[0], "staff");
    }
}
