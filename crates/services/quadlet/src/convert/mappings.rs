//! Whose the ids in a container are: `UserNS`, `UIDMap` and so on, and the older `RemapUsers`.

use super::{Command, Conversion, bad};
use crate::Error;

impl Conversion<'_> {
    pub(super) fn mappings(&self, command: &mut Command, manual: bool) -> Result<(), Error> {
        let before = command.0.len();
        self.texts(command, &[("UserNS", "--userns")]);
        self.words(command, &[("UIDMap", "--uidmap"), ("GIDMap", "--gidmap")]);
        self.texts(
            command,
            &[("SubUIDMap", "--subuidname"), ("SubGIDMap", "--subgidname")],
        );
        if command.0.len() == before {
            return self.remap(command, manual);
        }
        let older = ["RemapUid", "RemapGid", "RemapUsers"];
        if older.iter().any(|key| self.file.has(self.group(), key)) {
            return Err(bad(
                "deprecated Remap keys are set along with explicit mapping keys",
            ));
        }
        Ok(())
    }

    fn remap(&self, command: &mut Command, manual: bool) -> Result<(), Error> {
        let group = self.group();
        let (uids, gids) = (
            self.file.names(group, "RemapUid"),
            self.file.names(group, "RemapGid"),
        );
        let options = |mode: &str, options: Vec<String>| match options.is_empty() {
            true => mode.to_owned(),
            false => format!("{mode}:{}", options.join(",")),
        };
        let pairs = |name: &str, values: &[String]| -> Vec<String> {
            values.iter().map(|value| format!("{name}={value}")).collect()
        };
        match self.file.last(group, "RemapUsers").unwrap_or_default() {
            "" if !uids.is_empty() => Err(bad("UidMap set without RemapUsers")),
            "" if !gids.is_empty() => Err(bad("GidMap set without RemapUsers")),
            "" => Ok(()),
            "manual" if !manual => Err(bad("RemapUsers=manual is not supported")),
            "manual" => {
                self.words(command, &[("RemapUid", "--uidmap"), ("RemapGid", "--gidmap")]);
                Ok(())
            }
            "auto" => {
                let mut all = pairs("uidmapping", &uids);
                all.extend(pairs("gidmapping", &gids));
                let size = self.value("RemapUidSize").and_then(number);
                all.extend(size.filter(|size| *size > 0).map(|size| format!("size={size}")));
                command.add(["--userns".to_owned(), options("auto", all)]);
                Ok(())
            }
            "keep-id" => {
                for (kind, values) in [("UID", &uids), ("GID", &gids)] {
                    if values.len() > 1 {
                        return Err(bad(format!(
                            "RemapUsers=keep-id supports only a single value for {kind} mapping"
                        )));
                    }
                }
                let mut all = pairs("uid", &uids);
                all.extend(pairs("gid", &gids));
                command.add(["--userns".to_owned(), options("keep-id", all)]);
                Ok(())
            }
            other => Err(bad(format!("unsupported RemapUsers option '{other}'"))),
        }
    }
}

/// A number as systemd reads it: decimal, `0x` or `0` for the others.
pub(super) fn number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        return u32::from_str_radix(digits, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}
