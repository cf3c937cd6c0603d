//! The engine value: where things are, and the parts that open when first needed.

use std::path::PathBuf;
use std::sync::OnceLock;

use dhow_image::Store;
use dhow_network::Networks;
use dhow_transport::Client;

use crate::container::{Containers, make_folder};
use crate::{Context as _, Error};

/// Where an engine keeps things and what its environment allows. Only faces read the environment; they say it here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What lasts: `/var/lib/dhow`.
    pub root: PathBuf,
    /// What ends with a boot: `/run/dhow`.
    pub run: PathBuf,
    /// Where volumes are; below the root when absent.
    pub volumes: Option<PathBuf>,
    /// How to reach registries.
    pub transport: dhow_transport::Settings,
    /// Folder of apt's sources, for `bootstrap`: `/etc/apt`.
    pub apt: PathBuf,
    /// Policies that images are judged by.
    pub policies: crate::PolicyFiles,
    /// Where lists and plugins of the Container Network Interface are.
    pub cni: crate::CniFolders,
}

/// One root folder and everything in it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    containers: Containers,
    store: OnceLock<Store>,
    networks: OnceLock<Networks>,
    client: OnceLock<Client>,
    pub(crate) policies: crate::policy::Policies,
}

impl Engine {
    /// An engine over these folders, which are made.
    ///
    /// # Errors
    /// Whatever making the folders said, with the word to run as root when that is it.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let made = make_folder(&settings.root).and_then(|()| make_folder(&settings.run));
        made.map_err(|error| {
            if error.kind() == dhow_types::ErrorKind::PermissionDenied {
                return error.with_hint("run as root, or name a folder of your own with --root");
            }
            error
        })?;
        let containers = Containers::new(&settings.root, &settings.run);
        Ok(Self {
            settings,
            containers,
            store: OnceLock::new(),
            networks: OnceLock::new(),
            client: OnceLock::new(),
            policies: crate::policy::Policies::default(),
        })
    }

    /// Where things are.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The containers.
    #[must_use]
    pub const fn containers(&self) -> &Containers {
        &self.containers
    }

    /// The images, opened when first asked for.
    ///
    /// # Errors
    /// What opening the store said.
    pub fn store(&self) -> Result<&Store, Error> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::open_with_run(&self.settings.root, Some(&self.settings.run))
            .context(|| format!("open the store in {}", self.settings.root.display()))?;
        crate::selinux::layers::mark(&self.settings.root)?;
        let (containers, snapshots) = (self.containers.clone(), store.snapshots.clone());
        store.ask_before_a_sweep(move || {
            let what = "list who has layers";
            let all = containers
                .list()
                .map_err(|error| dhow_image::Error::wrap(error, what))?;
            let contained = all
                .into_iter()
                .flat_map(|container| container.config.all_layers());
            let mounted = crate::mounted::layers(&snapshots);
            let mounted = mounted.map_err(|error| dhow_image::Error::wrap(error, what))?;
            Ok(contained.chain(mounted).collect())
        });
        Ok(self.store.get_or_init(|| store))
    }

    pub(crate) fn networks(&self) -> Result<&Networks, Error> {
        if let Some(networks) = self.networks.get() {
            return Ok(networks);
        }
        let networks = match crate::rootless::is_rootful() {
            true => Networks::open(&self.settings.root),
            false => Networks::open_for_user(&self.settings.root, &crate::rootless::members(&self.settings)),
        };
        let networks = networks.context(|| "open the networks")?;
        Ok(self.networks.get_or_init(|| networks))
    }

    pub(crate) fn client(&self) -> Result<&Client, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(self.settings.transport.clone()).context(|| "set up the registry client")?;
        Ok(self.client.get_or_init(|| client))
    }
}
