//! `--network`: a name, docker's list of pairs (`name=sea,ip=10.1.0.5`), podman's options behind a name
//! (`sea:ip=10.1.0.5,mac=...`).

use std::net::IpAddr;

use dhow_engine::container::Attachment;

/// Modes behind which a colon means something else.
const MODES: [&str; 4] = ["container", "ns", "pasta", "slirp4netns"];

/// Reads one value of the flag.
pub(crate) fn attachment(text: &str) -> Result<Attachment, String> {
    let mut attachment = Attachment::default();
    let before = |mark: char| text.split_once(mark).map(|(name, rest)| (name.to_owned(), rest));
    let pairs = match before(':') {
        Some((name, rest)) if !MODES.contains(&name.as_str()) && !name.contains('=') => {
            attachment.network = name;
            rest
        }
        _ if text.contains('=') && !MODES.iter().any(|mode| text.starts_with(&format!("{mode}:"))) => text,
        _ => {
            text.clone_into(&mut attachment.network);
            ""
        }
    };
    for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("invalid field {pair:?} of --network {text:?}: write key=value"))?;
        set(&mut attachment, key.trim(), value.trim())
            .map_err(|why| format!("invalid field {pair:?} of --network {text:?}: {why}"))?;
    }
    if attachment.network.is_empty() {
        return Err(format!("--network {text:?} names no network: write name=NETWORK"));
    }
    Ok(attachment)
}

fn set(attachment: &mut Attachment, key: &str, value: &str) -> Result<(), String> {
    let address =
        || -> Result<IpAddr, String> { value.parse().map_err(|_| format!("{value:?} is not an address")) };
    match key {
        "name" => value.clone_into(&mut attachment.network),
        "alias" => attachment.aliases.push(value.to_owned()),
        "mac" | "mac-address" => attachment.mac = Some(value.to_owned()),
        "interface_name" => attachment.interface = Some(value.to_owned()),
        "driver-opt" => match value.split_once('=') {
            Some(("com.docker.network.endpoint.ifname", name)) => {
                attachment.interface = Some(name.to_owned())
            }
            _ => return Err(format!("driver option {value:?} is not supported")),
        },
        "ip" | "ip6" => match address()? {
            IpAddr::V4(ip) if key == "ip" => attachment.ip = Some(ip),
            IpAddr::V4(_) => return Err(format!("{value:?} is not an IPv6 address")),
            IpAddr::V6(ip) => attachment.ip6 = Some(ip),
        },
        _ => return Err(format!("{key:?} is not supported")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_pairs_and_podmans_options_mean_the_same() {
        let wanted = Attachment {
            network: "sea".into(),
            aliases: vec!["a".into(), "b".into()],
            ip: Some([10, 1, 0, 5].into()),
            ip6: Some("fd00::5".parse().unwrap()),
            mac: Some("02:00:00:00:00:01".into()),
            interface: None,
        };
        for text in [
            "name=sea,alias=a,alias=b,ip=10.1.0.5,ip6=fd00::5,mac-address=02:00:00:00:00:01",
            "sea:alias=a,alias=b,ip=10.1.0.5,ip=fd00::5,mac=02:00:00:00:00:01",
        ] {
            assert_eq!(attachment(text).unwrap(), wanted, "{text}");
        }
        let named = attachment("sea:interface_name=wan0").unwrap();
        assert_eq!(named.interface.as_deref(), Some("wan0"));
        let named = attachment("name=sea,driver-opt=com.docker.network.endpoint.ifname=wan0").unwrap();
        assert_eq!(named.interface.as_deref(), Some("wan0"));
    }

    #[test]
    fn names_and_modes_are_taken_as_they_are() {
        for text in ["bridge", "none", "host", "container:web", "ns:/proc/1/ns/net"] {
            assert_eq!(attachment(text).unwrap().network, text);
        }
    }

    #[test]
    fn what_is_no_field_is_named() {
        for (text, part) in [
            ("sea:ip=x", "is not an address"),
            ("sea:ip6=10.0.0.1", "is not an IPv6 address"),
            ("sea:speed=9", "\"speed\" is not supported"),
            ("sea:ip", "write key=value"),
            ("ip=10.0.0.1", "names no network"),
        ] {
            let said = attachment(text).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }
}
