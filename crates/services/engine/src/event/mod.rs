//! What happened here: a journal that every command and every monitor appends to, since no daemon sees it all.
//!
//! Kinds, actions and attributes are docker's (moby `api/types/events`, `daemon/events.go`).

mod filter;
mod journal;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_network::Endpoint;
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

pub use filter::{EVENT_FILTERS, EventFilter};
pub(crate) use journal::Journal;

use crate::container::Config;
use crate::{Engine, Error};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A container.
    Container,
    /// An image, or a name of one.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The build cache.
    Builder,
}

impl EventKind {
    /// Docker's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Builder => "builder",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds since 1970.
    #[serde(rename = "at")]
    pub nanoseconds: i64,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// What happened, in docker's word: `start`, `die`, `health_status: healthy`.
    pub action: String,
    /// Whom it happened to: an id, or a name where that is docker's key (volumes, images).
    pub id: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event of this moment.
    pub(crate) fn now(kind: EventKind, action: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            nanoseconds: self::now(),
            kind,
            action: action.into(),
            id: id.into(),
            attributes: BTreeMap::new(),
        }
    }

    /// An event of a container, with its image, name and labels.
    pub(crate) fn of(config: &Config, action: impl Into<String>) -> Self {
        let mut event = Self::now(EventKind::Container, action, config.id.as_str());
        let labels = config.labels.iter();
        event.attributes = labels
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        event.with("image", &config.image_name).with("name", &config.name)
    }

    /// A container's place in a network that it got or lost.
    pub(crate) fn of_place(endpoint: &Endpoint, action: &str) -> Self {
        Self::now(EventKind::Network, action, endpoint.network_id.to_string())
            .with("container", &endpoint.container)
            .with("name", &endpoint.network)
            .with("type", "bridge")
    }

    /// An event of an image or of one of its names, by docker's key: the id, or the name for `pull` and `push`.
    pub(crate) fn of_image(action: &str, id: impl ToString, name: &str) -> Self {
        Self::now(EventKind::Image, action, id.to_string()).with("name", name)
    }

    /// With one more attribute.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.attributes.insert(name.to_owned(), value.to_string());
        self
    }
}

/// This moment, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Which events to give, and how long to wait for more. Times are nanoseconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct EventRequest {
    /// From here on; without it only what happens from now on.
    pub since: Option<i64>,
    /// Until here; without it for ever.
    pub until: Option<i64>,
    /// Only those that pass.
    pub filter: EventFilter,
    /// Ends with what has happened already (podman's `--stream=false`).
    pub past_only: bool,
}

impl Engine {
    /// Writes down that something happened. What cannot be written (a full disk) changes nothing for who did it.
    pub(crate) fn tell(&self, event: &Event) {
        self.tell_all(std::slice::from_ref(event));
    }

    /// The same for several in their order.
    pub(crate) fn tell_all(&self, events: &[Event]) {
        drop(Journal::of(&self.settings().root).append(events));
    }

    /// Gives every event wanted to `each`, oldest first, until `each` returns false or the time is over.
    ///
    /// # Errors
    /// `InvalidArgument` when the end is before the beginning; what reading the journal said.
    pub fn events(&self, request: &EventRequest, each: &mut dyn FnMut(&Event) -> bool) -> Result<(), Error> {
        if let (Some(since), Some(until)) = (request.since, request.until)
            && since > until
        {
            let message = "`since` time cannot be after `until` time";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Journal::of(&self.settings().root).follow(request, each)
    }
}
