//! Names of users and groups in the `passwd` and `group` files of a stage.

use dhow_types::ErrorKind;

use crate::failure::{Error, invalid};

/// Largest of these files that is read.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// Owner that `--chown=user[:group]` or `USER` names. A number stands for itself; a user alone has the group of the
/// same number, or with a name its primary group (BuildKit `solver/llbsolver/file`, `docker` reference "COPY --chown").
pub(crate) fn owner(text: &str, passwd: &[u8], group: &[u8]) -> Result<(u32, u32), Error> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let (uid, primary) = if user.is_empty() || user == "root" {
        (0, 0)
    } else if let Ok(uid) = user.parse::<u32>() {
        (uid, uid)
    } else {
        let line = find(passwd, user).ok_or_else(|| {
            missing("user", user).with_hint("name a user of the image, or write the number")
        })?;
        (number(line, 2, user)?, number(line, 3, user)?)
    };
    let gid = match wanted_group {
        None => primary,
        Some("root") => 0,
        Some(name) => match name.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                let line = find(group, name).ok_or_else(|| {
                    missing("group", name).with_hint("name a group of the image, or write the number")
                })?;
                number(line, 2, name)?
            }
        },
    };
    Ok((uid, gid))
}

/// Whether an owner can be found without the files.
pub(crate) fn is_numeric(text: &str) -> bool {
    text.split(':')
        .all(|part| part.is_empty() || part == "root" || part.parse::<u32>().is_ok())
}

fn missing(what: &str, name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("unable to find {what} {name}: no matching entries in the image"),
    )
}

/// The line whose first field is `name`.
fn find<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    file.split(|byte| *byte == b'\n').find(|line| {
        line.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b':'))
    })
}

fn number(line: &[u8], field: usize, name: &str) -> Result<u32, Error> {
    let text = line.split(|byte| *byte == b':').nth(field).unwrap_or_default();
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| invalid(format!("the entry of {name} in the image has no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers_names_and_pairs() {
        let passwd = b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbad:x::\n";
        let group = b"root:x:0:\nstaff:x:50:\n";
        for (text, wanted) in [
            ("app", (1000, 1001)),
            ("app:staff", (1000, 50)),
            ("app:7", (1000, 7)),
            ("5", (5, 5)),
            ("5:6", (5, 6)),
            ("root", (0, 0)),
            (":staff", (0, 50)),
        ] {
            assert_eq!(owner(text, passwd, group).unwrap(), wanted, "{text}");
        }
        for bad in ["no", "app:no", "bad", "-1", "99999999999", "ap"] {
            assert!(owner(bad, passwd, group).is_err(), "{bad}");
        }
    }
}
