//! Who a container runs as: `USER` and `--user` looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! The files come from the image, so nothing in them is trusted: a line that is not well formed is skipped, a number
//! that does not fit is no number (CVE-2024-40635), and what is taken over holds no control character (CVE-2022-4318:
//! a newline in a home directory added lines to generated files). A word of digits is a number and never a name.

use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Largest file that is read: some 50 000 users.
pub const MOST_BYTES: usize = 4 << 20;
/// Most supplementary groups: the kernel's limit (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory; `/` when the user is not in the file.
    pub home: String,
    /// Login name; empty when the user is not in the file.
    pub name: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            home: "/root".to_owned(),
            name: "root".to_owned(),
        }
    }
}

/// Resolves `name|uid[:group|gid]` (empty means user 0) against the contents of the two files. A numeric user need
/// not be in the file; its group is then 0, as in docker. An explicit group puts the supplementary groups aside.
///
/// # Errors
/// `InvalidArgument` for numbers over `u32` (CVE-2024-40635), control characters and unknown names;
/// `ResourceExhausted` for files over [`MOST_BYTES`].
pub fn resolve(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, Error> {
    for (name, file) in [("passwd", passwd), ("group", group)] {
        if file.len() > MOST_BYTES {
            let message = format!(
                "/etc/{name} of the image has {} bytes, more than {MOST_BYTES}",
                file.len()
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
    }
    if user.chars().any(char::is_control) || user.len() > 512 {
        return Err(invalid(user, "has control characters or is too long"));
    }
    let (user_word, group_word) = user
        .split_once(':')
        .map_or((user, None), |(user, group)| (user, Some(group)));
    let wanted = Word::parse(if user_word.is_empty() { "0" } else { user_word }, user)?;
    let entry = users(passwd).find(|entry| match &wanted {
        Word::Name(name) => entry.name == *name,
        Word::Number(uid) => entry.uid == *uid,
    });
    let mut identity = match (entry, wanted) {
        (Some(entry), _) => entry.identity()?,
        (None, Word::Number(uid)) => Identity {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: "/".to_owned(),
            name: String::new(),
        },
        (None, Word::Name(name)) => {
            return Err(invalid(
                user,
                &format!("names {name:?}, whom the image's /etc/passwd does not have"),
            )
            .with_hint("give the number of the user instead"));
        }
    };
    match group_word.filter(|word| !word.is_empty()) {
        Some(word) => identity.gid = group_id(word, user, group)?,
        None if !identity.name.is_empty() => identity.groups = memberships(&identity.name, group),
        None => {}
    }
    Ok(identity)
}

/// The id of a group by name or number (`--group-add`, the part after the colon of `--user`).
///
/// # Errors
/// As [`resolve`].
pub fn group_id(word: &str, user: &str, group: &[u8]) -> Result<u32, Error> {
    match Word::parse(word, user)? {
        Word::Number(gid) => Ok(gid),
        Word::Name(name) => groups(group)
            .find(|entry| entry.name == name)
            .map(|entry| entry.gid)
            .ok_or_else(|| {
                invalid(
                    user,
                    &format!("names group {name:?}, which the image's /etc/group does not have"),
                )
                .with_hint("give the number of the group instead")
            }),
    }
}

fn memberships(name: &str, group: &[u8]) -> Vec<u32> {
    let mut out = Vec::new();
    for entry in groups(group).filter(|entry| entry.members.split(',').any(|member| member == name)) {
        if out.len() < MOST_GROUPS && !out.contains(&entry.gid) {
            out.push(entry.gid);
        }
    }
    out
}

fn invalid(user: &str, why: &str) -> Error {
    let shown: String = user.chars().take(64).collect();
    Error::new(ErrorKind::InvalidArgument, format!("user {shown:?} {why}"))
}

/// One half of a `user:group` word.
enum Word<'a> {
    Name(&'a str),
    Number(u32),
}

impl<'a> Word<'a> {
    fn parse(word: &'a str, user: &str) -> Result<Self, Error> {
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            return number(word)
                .map(Self::Number)
                .ok_or_else(|| invalid(user, "has a number that is no id: ids go to 4294967294"));
        }
        // A sign would make a number of it in other programs' eyes.
        if word.starts_with(['-', '+']) {
            return Err(invalid(user, "starts with a sign; ids are plain numbers"));
        }
        Ok(Self::Name(word))
    }
}

/// A plain decimal id. The largest number means "leave as it is" to the kernel and is no id.
fn number(word: &str) -> Option<u32> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|id| digits && *id != u32::MAX)
}

struct UserEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl UserEntry<'_> {
    fn identity(&self) -> Result<Identity, Error> {
        if self.home.chars().any(char::is_control) || self.home.len() > 4096 {
            let message = format!(
                "the home directory of user {:?} in the image's /etc/passwd is no path",
                self.name
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let home = if self.home.is_empty() { "/" } else { self.home };
        Ok(Identity {
            uid: self.uid,
            gid: self.gid,
            groups: Vec::new(),
            home: home.to_owned(),
            name: self.name.to_owned(),
        })
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Well-formed lines of a file, by field; names with control characters make a line malformed.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| {
            fields
                .first()
                .is_some_and(|name| !name.is_empty() && !name.chars().any(char::is_control))
        })
}

/// passwd(5): `name:password:uid:gid:comment:home:shell`.
fn users(file: &[u8]) -> impl Iterator<Item = UserEntry<'_>> {
    lines(file).filter_map(|fields| {
        let field = |index: usize| fields.get(index).copied();
        Some(UserEntry {
            name: field(0)?,
            uid: number(field(2)?)?,
            gid: number(field(3)?)?,
            home: field(5).unwrap_or("").trim_end_matches('\r'),
        })
    })
}

/// group(5): `name:password:gid:members`.
fn groups(file: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(file).filter_map(|fields| {
        let field = |index: usize| fields.get(index).copied();
        Some(GroupEntry {
            name: field(0)?,
            gid: number(field(2)?)?,
            members: field(3).unwrap_or("").trim_end_matches('\r'),
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        daemon:*:1:1::/usr/sbin:/usr/sbin/nologin\n\
        web:x:1000:1000:Web,,,:/home/web:/bin/sh\n\
        1234:x:5:5::/tricked:/bin/sh\n\
        huge:x:4294967296:0::/:/bin/sh\n\
        short:x:7\n\
        evil:x:66:66::/home\x0b/evil:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:1000:\ndocker:x:998:web,daemon\naudio:x:29:daemon,web\n777:x:9:\nbig:x:99999999999:web\n";

    fn who(user: &str) -> Result<Identity, ErrorKind> {
        resolve(user, PASSWD, GROUP).map_err(|error| error.kind())
    }

    #[test]
    fn names_and_numbers_find_their_line() {
        assert_eq!(who(""), Ok(Identity::default()));
        let web = Identity {
            uid: 1000,
            gid: 1000,
            groups: vec![998, 29],
            home: "/home/web".to_owned(),
            name: "web".to_owned(),
        };
        assert_eq!(who("web"), Ok(web.clone()));
        assert_eq!(who("1000"), Ok(web.clone()));
        assert_eq!(who("web:"), Ok(web));
    }

    #[test]
    fn an_explicit_group_puts_the_others_aside() {
        let found = who("web:audio").unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (1000, 29, vec![]));
        let found = who("42:43").unwrap();
        assert_eq!((found.uid, found.gid, found.home.as_str()), (42, 43, "/"));
        assert_eq!(who(":29").unwrap().gid, 29);
    }

    #[test]
    fn a_number_is_never_a_name() {
        let found = who("1234").unwrap();
        assert_eq!((found.uid, found.gid, found.home.as_str()), (1234, 0, "/"));
        assert_eq!(who("web:777").unwrap().gid, 777);
    }

    #[test]
    fn numbers_that_do_not_fit_signs_and_unknown_names_are_refused() {
        for bad in [
            "4294967295",
            "4294967296",
            "2147483648000",
            "18446744073709551616",
            "-1",
            "+0",
            "0:-1",
            "0:4294967295",
            "nobody",
            "web:nothing",
            "huge",
            "short",
            "web\n",
            "a\0b",
            "evil",
            "root:x:y",
        ] {
            assert_eq!(who(bad), Err(ErrorKind::InvalidArgument), "{bad:?}");
        }
        assert_eq!(who("4294967294").unwrap().uid, 4_294_967_294);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let big = vec![b'a'; MOST_BYTES + 1];
        assert_eq!(
            resolve("0", &big, b"").unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
        assert_eq!(
            resolve("0", b"", &big).unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
    }

    proptest! {
        #[test]
        fn no_file_panics_or_turns_a_number_into_another(
            uid in any::<u64>(),
            passwd in prop::collection::vec(prop::sample::select(b"ro0:49\n\r,x/".to_vec()), 0..200),
        ) {
            match resolve(&uid.to_string(), &passwd, &passwd) {
                Ok(found) => prop_assert_eq!(u64::from(found.uid), uid),
                Err(_) => prop_assert!(uid >= u64::from(u32::MAX)),
            }
        }
    }
}
