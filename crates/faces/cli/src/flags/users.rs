//! Which user namespace a container has, in podman's words (podman-run(1)).

use clap::Args;
use dhow_engine::IdMapping;
use dhow_engine::container::{AutoUsers, KeptId, UsersChoice};

/// Of containers and pods.
#[derive(Args, Debug)]
pub(crate) struct UsersFlags {
    /// User namespace: host, auto[:size=,uidmapping=,gidmapping=], keep-id[:uid=,gid=,size=], nomap, ns:PATH or container:NAME
    #[arg(long, value_name = "MODE", overrides_with = "userns")]
    userns: Option<String>,
    /// Map users of the container to users of the host: [FLAGS]CONTAINER:HOST[:COUNT]
    #[arg(long, value_name = "MAP")]
    uidmap: Vec<String>,
    /// Map groups of the container to groups of the host: [FLAGS]CONTAINER:HOST[:COUNT]
    #[arg(long, value_name = "MAP")]
    gidmap: Vec<String>,
    /// Map the users that /etc/subuid gives this name
    #[arg(long, value_name = "NAME")]
    subuidname: Option<String>,
    /// Map the groups that /etc/subgid gives this name
    #[arg(long, value_name = "NAME")]
    subgidname: Option<String>,
}

impl UsersFlags {
    /// What they say.
    pub(crate) fn choice(&self) -> Result<UsersChoice, String> {
        let names = self.subuidname.as_ref().or(self.subgidname.as_ref());
        let mapped = !self.uidmap.is_empty() || !self.gidmap.is_empty();
        if mapped && names.is_some() {
            return Err(
                "--uidmap and --gidmap are not for use with --subuidname and --subgidname".to_owned(),
            );
        }
        // `private` is what the mappings make it anyway.
        let mode = self.userns.as_deref().filter(|mode| *mode != "private");
        match (mode, names) {
            (Some(_), _) if mapped || names.is_some() => Err(
                "--userns is not for use with --uidmap, --gidmap, --subuidname and --subgidname: use one of them"
                    .to_owned(),
            ),
            (Some(mode), _) => choice(mode),
            (None, Some(name)) => Ok(UsersChoice::Subordinate {
                users: self.subuidname.as_ref().unwrap_or(name).clone(),
                groups: self.subgidname.as_ref().unwrap_or(name).clone(),
            }),
            (None, None) if mapped => mapped_choice(&self.uidmap, &self.gidmap),
            (None, None) if self.userns.is_some() => {
                Err("--userns private needs ids: add --uidmap, or use --userns auto".to_owned())
            }
            (None, None) => Ok(UsersChoice::Host),
        }
    }
}

fn choice(mode: &str) -> Result<UsersChoice, String> {
    let (name, rest) = mode
        .split_once(':')
        .map_or((mode, None), |(name, rest)| (name, Some(rest)));
    match (name, rest) {
        ("" | "host", None) => Ok(UsersChoice::Host),
        ("auto", options) => auto(options.unwrap_or_default()).map(UsersChoice::Auto),
        ("keep-id", options) => kept(options.unwrap_or_default()).map(UsersChoice::KeepId),
        ("nomap", None) => Ok(UsersChoice::NoMap),
        ("ns", Some(path)) if path.starts_with('/') => Ok(UsersChoice::Namespace(path.into())),
        ("container", Some(other)) if !other.is_empty() => Ok(UsersChoice::Container(other.to_owned())),
        _ => Err(format!(
            "--userns {mode} is not supported: use host, auto[:size=,uidmapping=,gidmapping=], keep-id[:uid=,gid=,size=], nomap, ns:PATH or \
             container:NAME"
        )),
    }
}

fn kept(options: &str) -> Result<KeptId, String> {
    let mut kept = KeptId::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let bad = || format!("--userns keep-id: {option:?} is none of uid=N, gid=N and size=N");
        let (key, value) = option.split_once('=').ok_or_else(bad)?;
        let value = Some(value.parse().map_err(|_| bad())?);
        match key {
            "uid" => kept.uid = value,
            "gid" => kept.gid = value,
            "size" => kept.size = value,
            _ => return Err(bad()),
        }
    }
    Ok(kept)
}

fn auto(options: &str) -> Result<AutoUsers, String> {
    let mut auto = AutoUsers::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let bad =
            || format!("--userns auto: {option:?} is none of size=N, uidmapping=MAP and gidmapping=MAP");
        let (key, value) = option.split_once('=').ok_or_else(bad)?;
        match key {
            "size" => auto.size = Some(value.parse().ok().filter(|size| *size > 0).ok_or_else(bad)?),
            "uidmapping" => auto.uids.push(plain(value)?),
            "gidmapping" => auto.gids.push(plain(value)?),
            _ => return Err(bad()),
        }
    }
    Ok(auto)
}

/// A mapping as it is written down, with what stands before it.
struct Word {
    map: IdMapping,
    /// Whether it takes its ids from those before it (`+`).
    extends: bool,
    /// Whether it is for users (`u`) or groups (`g`) alone.
    only: Option<char>,
}

fn word(text: &str) -> Result<Word, String> {
    let bad = || format!("mapping {text:?} is not [FLAGS]CONTAINER:HOST[:COUNT] with numbers");
    let digits = text.find(|c: char| c.is_ascii_digit()).ok_or_else(bad)?;
    let (flags, numbers) = text.split_at(digits);
    let (mut extends, mut only) = (false, None);
    for flag in flags.chars() {
        match flag {
            '+' => extends = true,
            // Both are as neither.
            'u' | 'g' if only.is_some_and(|other| other != flag) => only = None,
            'u' | 'g' => only = Some(flag),
            _ => return Err(bad()),
        }
    }
    let parts: Vec<&str> = numbers.split(':').collect();
    let number = |part: &str| part.parse::<u32>().map_err(|_| bad());
    let (container, host, size) = match parts.as_slice() {
        [container, host] => (*container, *host, 1),
        [container, host, size] => (*container, *host, number(size)?),
        _ => return Err(bad()),
    };
    let map = IdMapping {
        container_id: number(container)?,
        // Root's ids are the host's own, with the sign or without.
        host_id: number(host.strip_prefix('@').unwrap_or(host))?,
        size,
    };
    Ok(Word { map, extends, only })
}

fn plain(text: &str) -> Result<IdMapping, String> {
    match word(text)? {
        Word {
            map,
            extends: false,
            only: None,
        } => Ok(map),
        _ => Err(format!("mapping {text:?} takes no flags here")),
    }
}

/// What is said of one kind of id alone holds for both, but for what is marked as of one.
fn mapped_choice(uidmap: &[String], gidmap: &[String]) -> Result<UsersChoice, String> {
    let (of_users, of_groups) = (words(uidmap)?, words(gidmap)?);
    let pick = |own: &[Word], other: &[Word], not: char| {
        let words = if own.is_empty() { other } else { own };
        let fits = words.iter().filter(|word| word.only != Some(not));
        fits.fold(Vec::new(), added)
    };
    Ok(UsersChoice::Mapped {
        uids: pick(&of_users, &of_groups, 'g'),
        gids: pick(&of_groups, &of_users, 'u'),
    })
}

fn words(texts: &[String]) -> Result<Vec<Word>, String> {
    texts.iter().map(|text| word(text)).collect()
}

/// The mappings with one more, which may take ids away from the others.
fn added(maps: Vec<IdMapping>, word: &Word) -> Vec<IdMapping> {
    let mut maps = maps;
    if word.extends {
        let (by_container, by_host) = (|map: &IdMapping| map.container_id, |map: &IdMapping| map.host_id);
        maps = maps
            .iter()
            .flat_map(|map| without(map, &word.map, by_container))
            .collect();
        maps = maps
            .iter()
            .flat_map(|map| without(map, &word.map, by_host))
            .collect();
    }
    maps.push(word.map.clone());
    maps
}

/// What is left of a mapping below and above the ids of another one.
fn without(map: &IdMapping, taken: &IdMapping, side: fn(&IdMapping) -> u32) -> Vec<IdMapping> {
    let (first, end) = (u64::from(side(map)), u64::from(side(map)) + u64::from(map.size));
    let (from, to) = (
        u64::from(side(taken)),
        u64::from(side(taken)) + u64::from(taken.size),
    );
    let part = |start: u64, stop: u64| {
        let (skip, size) = (
            u32::try_from(start - first).ok()?,
            u32::try_from(stop.checked_sub(start)?).ok()?,
        );
        (size > 0).then(|| IdMapping {
            container_id: map.container_id.saturating_add(skip),
            host_id: map.host_id.saturating_add(skip),
            size,
        })
    };
    let parts = [
        part(first, from.clamp(first, end)),
        part(to.clamp(first, end), end),
    ];
    // Where the two do not meet, one of them is the whole.
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(uids: &[&str], gids: &[&str]) -> (Vec<String>, Vec<String>) {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let shown = |maps: Vec<IdMapping>| {
            let show = |map: IdMapping| format!("{}:{}:{}", map.container_id, map.host_id, map.size);
            maps.into_iter().map(show).collect()
        };
        match mapped_choice(&owned(uids), &owned(gids)).unwrap() {
            UsersChoice::Mapped { uids, gids } => (shown(uids), shown(gids)),
            _ => (Vec::new(), Vec::new()),
        }
    }

    #[test]
    fn mappings_of_one_kind_hold_for_both() {
        let (uids, gids) = mapped(&["0:200000:5000"], &[]);
        assert_eq!(
            (uids, gids),
            (vec!["0:200000:5000".into()], vec!["0:200000:5000".into()])
        );
        let (uids, gids) = mapped(&[], &["0:0:1000", "g2000:@2000"]);
        assert_eq!(uids, ["0:0:1000"]);
        assert_eq!(gids, ["0:0:1000", "2000:2000:1"]);
        let (uids, gids) = mapped(&["0:1:10"], &["0:2:10"]);
        assert_eq!((uids, gids), (vec!["0:1:10".into()], vec!["0:2:10".into()]));
    }

    #[test]
    fn a_plus_takes_its_ids_from_those_before() {
        // The example of podman-run(1).
        let (uids, _) = mapped(&["0:0:65000", "+100000:1:1"], &[]);
        assert_eq!(uids, ["0:0:1", "2:2:64998", "100000:1:1"]);
        let (uids, _) = mapped(&["0:100:10", "+3:500:2"], &[]);
        assert_eq!(uids, ["0:100:3", "5:105:5", "3:500:2"]);
    }

    #[test]
    fn what_is_no_mapping_and_no_mode_is_refused() {
        for bad in ["", "1", "a:b", "0:1:2:3", "x0:1", "0:-1", "0:4294967296", "u0"] {
            assert!(word(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "auto:size=0",
            "auto:size",
            "auto:uid=1",
            "keep-id:uid=x",
            "keep-id:uid",
            "keep-id:name=x",
            "ns:relative",
            "container:",
            "nomap:x",
            "mine",
        ] {
            assert!(choice(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            choice("keep-id:uid=5,gid=6").unwrap(),
            UsersChoice::KeepId(KeptId {
                uid: Some(5),
                gid: Some(6),
                size: None,
            })
        );
        assert_eq!(
            choice("auto:size=10,uidmapping=5:7:1").unwrap(),
            UsersChoice::Auto(AutoUsers {
                size: Some(10),
                uids: vec![plain("5:7:1").unwrap()],
                gids: Vec::new(),
            })
        );
    }
}
