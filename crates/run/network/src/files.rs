use std::net::{IpAddr, SocketAddr};

use dhow_types::ErrorKind;

use crate::Error;

/// Longest host file that is looked at; the rest is ignored.
const MAX_HOST_TEXT: usize = 64 << 10;
/// Most name servers that a resolver asks (glibc `MAXNS`).
const MAX_SERVERS: usize = 3;

/// What a person asked for in a container's `resolv.conf` (`--dns`, `--dns-search`, `--dns-option`).
#[derive(Clone, Debug, Default)]
pub struct ResolvOptions {
    /// Name servers; those of the host when empty.
    pub servers: Vec<IpAddr>,
    /// Search domains; those of the host when empty; a single `.` means none.
    pub search: Vec<String>,
    /// Options; those of the host when empty.
    pub options: Vec<String>,
    /// The name server of the container is dhow's own at 127.0.0.11 (user networks).
    pub embedded: bool,
    /// The container shares the host's network, so loopback servers of the host work in it.
    pub host_network: bool,
    /// Podman's form: the search domains come first, and dhow's own name server needs no option.
    pub podman: bool,
    /// Where the container reaches servers on the host's loopback, if anywhere ([`crate::Networks::resolver`]).
    pub forwarder: Option<IpAddr>,
}

/// Name servers that the host's `resolv.conf` names, at most three. Scoped IPv6 addresses are left out,
/// since the scope means nothing outside their interface.
#[must_use]
pub fn host_resolvers(text: &str) -> Vec<SocketAddr> {
    lines(text)
        .filter_map(|(keyword, rest)| (keyword == "nameserver").then_some(rest))
        .filter_map(|rest| rest.split_ascii_whitespace().next()?.parse::<IpAddr>().ok())
        .take(MAX_SERVERS)
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

/// Keyword and rest of every line that is no comment.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let end = text.floor_char_boundary(MAX_HOST_TEXT);
    text[..end].lines().filter_map(|line| {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            return None;
        }
        line.split_once(|c: char| c.is_ascii_whitespace())
    })
}

/// The container's `resolv.conf`.
///
/// # Errors
/// `InvalidArgument` for a search domain or option with characters that would start a new line or word
/// (class of CVE-2022-4318).
pub fn resolv_conf(host: &str, wanted: &ResolvOptions) -> Result<String, Error> {
    let host_words = |keyword: &str| -> Vec<String> {
        // The last search line counts (resolv.conf(5)); option lines add up.
        let mut found = Vec::new();
        for (key, rest) in lines(host).filter(|(key, _)| *key == keyword) {
            if key == "search" {
                found.clear();
            }
            found.extend(rest.split_ascii_whitespace().map(str::to_owned));
        }
        found
    };
    let mut servers: Vec<IpAddr> = if wanted.embedded {
        vec![IpAddr::V4(crate::dns::ADDRESS)]
    } else {
        wanted.servers.clone()
    };
    if servers.is_empty() {
        servers = host_resolvers(host)
            .iter()
            .map(SocketAddr::ip)
            .filter(|ip| wanted.host_network || !ip.is_loopback())
            .collect();
    }
    if servers.is_empty() {
        servers.extend(wanted.forwarder);
    }
    if servers.is_empty() {
        // As docker: a host that has only a loopback resolver leaves a container on the default bridge without one.
        servers = vec![IpAddr::from([8, 8, 8, 8]), IpAddr::from([8, 8, 4, 4])];
    }
    let search = match wanted.search.as_slice() {
        [] => host_words("search"),
        [dot] if dot == "." => Vec::new(),
        given => given.to_vec(),
    };
    let mut options = if wanted.options.is_empty() {
        host_words("options")
    } else {
        wanted.options.clone()
    };
    if wanted.embedded && !wanted.podman && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let servers: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    let (search, options) = (line("search", &search)?, line("options", &options)?);
    Ok(match wanted.podman {
        true => search + &servers + &options,
        false => servers + &search + &options,
    })
}

/// A line of `resolv.conf`; nothing without words.
fn line(keyword: &str, words: &[String]) -> Result<String, Error> {
    for word in words {
        check_word(keyword, word)?;
    }
    if words.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("{keyword} {}\n", words.join(" ")))
}

/// One line of a `hosts` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// The address.
    pub ip: IpAddr,
    /// Its names, the canonical one first.
    pub names: Vec<String>,
}

/// The container's `hosts` file: the loopback names and then `entries`.
///
/// # Errors
/// `InvalidArgument` for a name with white space, control characters or a comment sign.
pub fn hosts_file(entries: &[HostEntry]) -> Result<String, Error> {
    let mut out = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    out.push_str(&host_lines(entries)?);
    Ok(out)
}

/// Lines of a `hosts` file, and nothing besides.
///
/// # Errors
/// As [`hosts_file`].
pub fn host_lines(entries: &[HostEntry]) -> Result<String, Error> {
    let mut out = String::new();
    for entry in entries {
        for name in &entry.names {
            check_word("hosts", name)?;
        }
        if !entry.names.is_empty() {
            out.push_str(&format!("{}\t{}\n", entry.ip, entry.names.join(" ")));
        }
    }
    Ok(out)
}

/// What a `hosts` file says; lines that say nothing are left out.
#[must_use]
pub fn host_entries(text: &str) -> Vec<HostEntry> {
    let end = text.floor_char_boundary(MAX_HOST_TEXT);
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        let names: Vec<String> = words.map(str::to_owned).collect();
        (!names.is_empty()).then_some(HostEntry { ip, names })
    };
    text[..end].lines().filter_map(entry).collect()
}

fn check_word(what: &str, word: &str) -> Result<(), Error> {
    let good = !word.is_empty()
        && word.len() <= 255
        && !word
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '#' | ';'));
    if good {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "invalid word {:?} for the container's {what} line",
                word.chars().take(64).collect::<String>()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_resolvers_takes_three_servers_and_no_scoped_ones() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n;nameserver 9.9.9.9\n nameserver\t1.1.1.1 # c\nnameserver ::1\nnameserver 8.8.8.8\nnameserver";
        let found: Vec<String> = host_resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "1.1.1.1:53", "[::1]:53"]);
    }

    #[test]
    fn resolv_conf_drops_loopback_servers_unless_the_network_is_shared() {
        let host = "nameserver 127.0.0.53\nsearch a.example\nsearch b.example c.example\noptions edns0\noptions trust-ad\n";
        assert_eq!(
            resolv_conf(host, &ResolvOptions::default()).unwrap(),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch b.example c.example\noptions edns0 trust-ad\n"
        );
        let forwarded = ResolvOptions {
            forwarder: Some([169, 254, 1, 1].into()),
            ..ResolvOptions::default()
        };
        let text = resolv_conf(host, &forwarded).unwrap();
        assert!(text.starts_with("nameserver 169.254.1.1\nsearch"), "{text}");
        let text = resolv_conf("nameserver 192.0.2.53\n", &forwarded).unwrap();
        assert_eq!(text, "nameserver 192.0.2.53\n");
        let shared = ResolvOptions {
            host_network: true,
            ..ResolvOptions::default()
        };
        assert!(
            resolv_conf(host, &shared)
                .unwrap()
                .starts_with("nameserver 127.0.0.53\n")
        );
        let embedded = ResolvOptions {
            embedded: true,
            search: vec![".".into()],
            ..ResolvOptions::default()
        };
        assert_eq!(
            resolv_conf(host, &embedded).unwrap(),
            "nameserver 127.0.0.11\noptions edns0 trust-ad ndots:0\n"
        );
    }

    #[test]
    fn generated_files_refuse_words_that_would_add_lines() {
        for bad in ["a\nnameserver 6.6.6.6", "a b", "", "x#", "a\u{2028}b", "\0"] {
            let options = ResolvOptions {
                search: vec![bad.into()],
                ..ResolvOptions::default()
            };
            assert!(resolv_conf("", &options).is_err(), "{bad:?}");
            let entry = HostEntry {
                ip: IpAddr::from([10, 0, 0, 1]),
                names: vec![bad.into()],
            };
            assert!(hosts_file(&[entry]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_file_has_loopback_first() {
        let entry = HostEntry {
            ip: IpAddr::from([10, 88, 0, 2]),
            names: vec!["web".into(), "w".into()],
        };
        let text = hosts_file(&[entry]).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("\n10.88.0.2\tweb w\n"));
    }
}
