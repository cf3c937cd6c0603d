//! Wishes that contradict each other, in docker's words (moby `runconfig/errors.go`): what is shared with another, or with the
//! host, is not to be set for one.

use dhow_bundle::NamespaceMode;
use dhow_types::ErrorKind;

use super::create::{CreateContainer, NamespaceChoice};
use crate::Error;

/// What cannot be had together.
pub(super) fn check(wanted: &CreateContainer) -> Result<(), Error> {
    let refuse = |what: &str| {
        let message = format!("conflicting options: {what}");
        Err(Error::new(ErrorKind::InvalidArgument, message))
    };
    let uts_of_host = NamespaceChoice::Uts(NamespaceMode::Host);
    if wanted.namespaces.contains(&uts_of_host) {
        if wanted.hostname.is_some() {
            return refuse("hostname and the UTS mode");
        }
        if wanted.domainname.is_some() {
            return refuse("domainname and the UTS mode");
        }
    }
    let shared = |network: &str| network.starts_with("container:");
    if wanted
        .networks
        .iter()
        .any(|attachment| shared(&attachment.network))
    {
        if wanted.hostname.is_some() {
            return refuse("hostname and the network mode");
        }
        if !wanted.dns.is_empty() {
            return refuse("dns and the network mode");
        }
        if !wanted.extra_hosts.is_empty() {
            return refuse("custom host-to-IP mapping and the network mode");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Attachment;

    #[test]
    fn what_is_shared_is_not_set() {
        let network = |name: &str| CreateContainer {
            networks: vec![Attachment {
                network: name.to_owned(),
                ..Attachment::default()
            }],
            hostname: Some("me".to_owned()),
            ..CreateContainer::default()
        };
        assert!(check(&network("bridge")).is_ok());
        assert!(check(&network("host")).is_ok());
        let error = check(&network("container:web")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "conflicting options: hostname and the network mode"
        );
        let uts = CreateContainer {
            namespaces: vec![NamespaceChoice::Uts(NamespaceMode::Host)],
            domainname: Some("example.com".to_owned()),
            ..CreateContainer::default()
        };
        let error = check(&uts).unwrap_err();
        assert_eq!(
            error.to_string(),
            "conflicting options: domainname and the UTS mode"
        );
    }
}
