//! What the image says, and the person over it.

use dhow_monitor::OnUnhealthy;
use dhow_network::PortMapping;
use dhow_oci::Healthcheck;
use dhow_types::ErrorKind;

use super::create::CreateContainer;
use crate::Error;

/// The ports that are published: those asked for, and with `-P` all that are exposed.
pub(super) fn all_ports(wanted: &CreateContainer, exposed: &[String]) -> Result<Vec<PortMapping>, Error> {
    let mut ports = wanted.ports.clone();
    if !wanted.publish_all {
        return Ok(ports);
    }
    for text in exposed {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let bad = || {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("invalid exposed port {text:?}"),
            )
        };
        let container_port = number.parse().map_err(|_| bad())?;
        let protocol = match protocol {
            "tcp" => dhow_network::Protocol::Tcp,
            "udp" => dhow_network::Protocol::Udp,
            "sctp" => dhow_network::Protocol::Sctp,
            _ => return Err(bad()),
        };
        let covered = ports
            .iter()
            .any(|p| p.container_port == container_port && p.protocol == protocol);
        if !covered {
            ports.push(PortMapping {
                host_ip: None,
                host_port: None,
                host_last: None,
                container_port,
                protocol,
            });
        }
    }
    Ok(ports)
}

/// The part of the command that is the entrypoint, by the rules of [`dhow_bundle::command`].
pub(super) fn entrypoint(wanted: &CreateContainer, image: &dhow_oci::RunConfig) -> Vec<String> {
    match wanted.entrypoint.as_ref().or(image.entrypoint.as_ref()) {
        Some(words) if words.len() == 1 && words[0].is_empty() => Vec::new(),
        Some(words) => words.clone(),
        None => Vec::new(),
    }
}

/// What is known of checks that run, and of those that do not: one of the two at most.
type Checks = (Option<Healthcheck>, Option<Healthcheck>);

/// The health check: the image's, with what the person changes of it.
pub(super) fn health(wanted: &CreateContainer, image: Option<&Healthcheck>) -> Result<Checks, Error> {
    let joined = joined_health(wanted, image);
    let runs = joined.test.first().is_some_and(|first| first != "NONE");
    if !runs && wanted.on_unhealthy != OnUnhealthy::None {
        let message = format!(
            "cannot set on-failure action to {} without a health check",
            wanted.on_unhealthy.as_str()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("give --health-cmd"));
    }
    let idle = !runs && joined != Healthcheck::default();
    Ok((runs.then(|| joined.clone()), idle.then_some(joined)))
}

fn joined_health(wanted: &CreateContainer, image: Option<&Healthcheck>) -> Healthcheck {
    let mut health = image.cloned().unwrap_or_default();
    if let Some(over) = &wanted.health {
        if !over.test.is_empty() {
            health.test.clone_from(&over.test);
        }
        for (mine, theirs) in [
            (&mut health.interval, over.interval),
            (&mut health.timeout, over.timeout),
            (&mut health.start_period, over.start_period),
            (&mut health.start_interval, over.start_interval),
            (&mut health.retries, over.retries),
        ] {
            if theirs != 0 {
                *mine = theirs;
            }
        }
    }
    if wanted.no_healthcheck {
        health.test = vec!["NONE".to_owned()];
    }
    health
}

/// The ports that are exposed, without doubles.
pub(super) fn exposed(wanted: &CreateContainer, image: &dhow_oci::RunConfig) -> Vec<String> {
    let mut exposed: Vec<String> = image.exposed_ports.keys().cloned().collect();
    exposed.extend(wanted.expose.iter().cloned());
    exposed.sort();
    exposed.dedup();
    exposed
}
