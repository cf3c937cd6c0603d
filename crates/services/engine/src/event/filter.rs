//! Which events a person wants to see (moby `daemon/events/filter.go`).

use super::{Event, EventKind};

/// Names of filters that there are.
pub const EVENT_FILTERS: &[&str] = &[
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "service",
    "secret",
    "config",
    "status",
    "type",
    "volume",
];

/// Filters: one name several times means any of them, but every label must be there, and every name must pass.
#[derive(Clone, Debug, Default)]
pub struct EventFilter(Vec<(String, String)>);

impl EventFilter {
    /// The filters with these names, which are among [`EVENT_FILTERS`], and values.
    #[must_use]
    pub fn new(filters: Vec<(String, String)>) -> Self {
        Self(filters)
    }

    /// Whether an event passes.
    #[must_use]
    pub fn passes(&self, event: &Event) -> bool {
        EVENT_FILTERS.iter().all(|name| {
            let mut values = self
                .0
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
                .peekable();
            if values.peek().is_none() {
                return true;
            }
            match *name {
                // The second is docker's older word, and podman's.
                "event" | "status" => values.any(|wanted| {
                    // `exec_start: sh` and `health_status: healthy` also by their first word.
                    let first = event.action.split(':').next();
                    event.action == wanted || first == Some(wanted)
                }),
                "type" => values.any(|wanted| wanted == event.kind.as_str()),
                "scope" => values.any(|wanted| wanted == "local"),
                "label" => values.all(|wanted| has_label(event, wanted)),
                "image" => values.any(|wanted| is_image(event, wanted)),
                "container" => values.any(|wanted| is_named(event, EventKind::Container, wanted)),
                "network" => values.any(|wanted| is_named(event, EventKind::Network, wanted)),
                "volume" => values.any(|wanted| is_named(event, EventKind::Volume, wanted)),
                // Nothing here is of a daemon, a cluster or a plugin.
                _ => false,
            }
        })
    }
}

fn has_label(event: &Event, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => event.attributes.get(name).is_some_and(|found| found == value),
        None => event.attributes.contains_key(wanted),
    }
}

/// By the beginning of an id or name, as docker.
fn is_named(event: &Event, kind: EventKind, wanted: &str) -> bool {
    let name = event.attributes.get("name");
    event.kind == kind && (event.id.starts_with(wanted) || name.is_some_and(|name| name.starts_with(wanted)))
}

/// Also what happens to a container of the image.
fn is_image(event: &Event, wanted: &str) -> bool {
    let attribute = match event.kind {
        EventKind::Image => "name",
        EventKind::Container => "image",
        _ => return false,
    };
    let name = event.attributes.get(attribute).map_or("", String::as_str);
    [event.id.as_str(), name]
        .into_iter()
        .any(|found| found == wanted || without_tag(found) == wanted)
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        // What is behind a colon and a slash is a registry's port.
        Some((head, tag)) if !tag.contains('/') => head,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(pairs: &[(&str, &str)]) -> EventFilter {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        EventFilter::new(pairs.collect())
    }

    #[test]
    fn one_name_means_any_value_and_several_names_mean_all() {
        let event = Event::now(EventKind::Container, "start", "abcdef")
            .with("image", "host:5000/app:1")
            .with("name", "web")
            .with("tier", "front");
        assert!(filter(&[]).passes(&event));
        assert!(filter(&[("event", "die"), ("event", "start")]).passes(&event));
        assert!(!filter(&[("event", "die")]).passes(&event));
        assert!(filter(&[("container", "abc"), ("type", "container")]).passes(&event));
        assert!(filter(&[("status", "start")]).passes(&event));
        assert!(filter(&[("container", "web")]).passes(&event));
        assert!(!filter(&[("container", "web"), ("type", "image")]).passes(&event));
        assert!(filter(&[("image", "host:5000/app")]).passes(&event));
        assert!(!filter(&[("image", "host")]).passes(&event));
        assert!(filter(&[("label", "tier"), ("label", "tier=front")]).passes(&event));
        assert!(!filter(&[("label", "tier"), ("label", "tier=back")]).passes(&event));
        assert!(!filter(&[("daemon", "x")]).passes(&event));
    }

    #[test]
    fn an_action_with_more_words_is_found_by_its_first() {
        let event = Event::now(EventKind::Container, "health_status: healthy", "a");
        assert!(filter(&[("event", "health_status")]).passes(&event));
        assert!(filter(&[("event", "health_status: healthy")]).passes(&event));
        assert!(!filter(&[("event", "health")]).passes(&event));
    }
}
