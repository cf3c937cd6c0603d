use std::collections::BTreeMap;
use std::thread;

use dhow_rootpath::Root;
use dhow_types::{ErrorKind, Hasher, Observer, Progress};

use crate::archive::{Archive, Suite};
use crate::configure::Configuration;
use crate::fetch::Downloads;
use crate::filter::Filter;
use crate::packages::{Package, Universe, name_of};
use crate::release::Listed;
use crate::resolve::{Wanted, resolve};
use crate::sources::without_credentials;
use crate::unpack::{Tree, Unpacked};
use crate::{
    Configure, Context, Error, Fetch, Installed, Outcome, Request, Variant, bare, clean, dpkg, parallel,
    sources,
};

/// Packages on their way at once: enough to hide the round trips of one mirror, polite enough for it.
const TRANSFERS: usize = 6;
/// The package that ships the skeleton (`/var/run`, `/etc/os-release` ...): its links must be there before others
/// ship directories of the same names.
const SKELETON: &str = "base-files";

/// Makes the base file system that `request` describes.
///
/// # Errors
/// When no source offers the suite, a signature or hash does not match, a package is missing or conflicts, or a
/// package's own script fails. The root directory then holds a partial tree that the caller removes.
pub fn bootstrap(
    request: &Request,
    fetch: &dyn Fetch,
    configure: &dyn Configure,
    observer: &dyn Observer,
) -> Result<Outcome, Error> {
    let downloads = Downloads::new(&request.cache, fetch, observer)?;
    let archive = Archive {
        request,
        downloads: &downloads,
        observer,
    };
    let suites = trusted_suites(&archive)?;
    let universe = universe(&archive, &suites)?;
    let packages = chosen(request, &universe)?;
    let date = suites
        .iter()
        .map(|suite| suite.release.date)
        .max()
        .unwrap_or_default();

    let filter = match request.target.variant {
        _ if request.only => Filter::SLIM,
        Variant::Slim => Filter::SLIM,
        Variant::Standard => Filter::NOTHING,
    };
    let mut tree = Tree::new(Root::open(&request.root)?, filter)?;
    tree.scripts_run = !request.only;
    let unpacked = unpack(&tree, &downloads, &packages)?;
    let named: Vec<(&str, &Unpacked)> = packages
        .iter()
        .map(|package| &*package.name)
        .zip(&unpacked)
        .collect();
    tree.finish(&named)?;
    let registered = dpkg::register(tree.root(), &named, request.only)?;
    drop(unpacked);
    if request.only {
        bare::finish(tree.root())?;
    } else {
        configure_all(&tree, request, configure, &registered, date, observer)?;
    }
    let apt = !request.only;
    clean::finish(
        tree.root(),
        &request.target,
        &filter,
        &suites,
        (date, request.now),
        apt,
    )?;
    Ok(outcome(request, &suites, &packages, date))
}

/// Runs the packages' scripts.
fn configure_all(
    tree: &Tree,
    request: &Request,
    configure: &dyn Configure,
    registered: &[dpkg::Registered],
    date: i64,
    observer: &dyn Observer,
) -> Result<(), Error> {
    observer.observe(Progress::Begin {
        id: "packages",
        what: "Configuring",
        total: None,
    });
    Configuration {
        path: &request.root,
        root: tree.root(),
        configure,
        observer,
        epoch: date,
    }
    .run(registered)?;
    observer.observe(Progress::End {
        id: "packages",
        status: "Configured",
    });
    Ok(())
}

/// Chooses the repositories and checks their signatures, all at once.
fn trusted_suites(archive: &Archive<'_>) -> Result<Vec<Suite>, Error> {
    let request = archive.request;
    let known = sources::parse(&request.sources)?;
    let chosen = sources::choose(
        &known,
        request.mirror.as_deref(),
        &request.target,
        &request.architecture,
    )?;
    let suites = parallel::each(&chosen, chosen.len(), |_, repository| archive.suite(repository))?;
    let suites: Vec<Suite> = suites.into_iter().flatten().collect();
    if !suites
        .iter()
        .any(|suite| suite.repository.suite == request.target.suite)
    {
        let message = format!(
            "no source of {} has packages of the distribution itself",
            request.target
        );
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    for suite in &suites {
        if let Some(signer) = &suite.signer {
            let repository = &suite.repository;
            let message = format!(
                "{} {}: signed by {} ({})",
                without_credentials(&repository.uri),
                repository.suite,
                signer.user,
                signer.key
            );
            archive.observer.observe(Progress::Message(&message));
        }
    }
    Ok(suites)
}

/// All packages of all suites; of equal versions the one of the first source.
fn universe(archive: &Archive<'_>, suites: &[Suite]) -> Result<Universe, Error> {
    let parts = parallel::each(suites, cores(), |_, suite| archive.packages(suite))?;
    let mut all = Universe::default();
    for part in parts {
        all.merge(part);
    }
    Ok(all)
}

fn chosen<'a>(request: &Request, universe: &'a Universe) -> Result<Vec<&'a Package>, Error> {
    let included = request.include.iter().map(String::as_str);
    let wanted = if request.only {
        let mut absent = bare::FOR_SCRIPTS.to_vec();
        absent.retain(|name| !request.include.iter().any(|wanted| name_of(wanted) == *name));
        absent.extend(request.leave_out.iter().map(String::as_str));
        Wanted {
            names: std::iter::once(SKELETON).chain(included).collect(),
            bare: true,
            absent,
            alone: vec![SKELETON],
            ..Wanted::default()
        }
    } else {
        Wanted {
            names: std::iter::once("apt").chain(included).collect(),
            required: true,
            ..Wanted::default()
        }
    };
    let mut packages = resolve(universe, &wanted, &request.architecture)
        .context(|| format!("cannot put {} together", request.target))?;
    if let Some(at) = packages.iter().position(|package| &*package.name == SKELETON) {
        packages[..=at].rotate_right(1);
    }
    Ok(packages)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}

/// Downloads and unpacks; while one package comes in, another is unpacked.
fn unpack(tree: &Tree, downloads: &Downloads<'_>, packages: &[&Package]) -> Result<Vec<Unpacked>, Error> {
    let one = |package: &Package| -> Result<Unpacked, Error> {
        let listed = Listed {
            size: package.size,
            digest: package.digest,
        };
        let file = downloads.file(&package.name, &[package.url.to_string()], listed)?;
        tree.unpack(std::io::BufReader::with_capacity(128 << 10, file))
            .context(|| format!("cannot unpack {} {}", package.name, package.version))
    };
    let Some((skeleton, rest)) = packages.split_first() else {
        return Ok(Vec::new());
    };
    let mut unpacked = vec![one(skeleton)?];
    // The largest come first in time, not in order: none is left to be unpacked alone at the end.
    let mut by_size: Vec<(usize, &Package)> = rest.iter().copied().enumerate().collect();
    by_size.sort_by_key(|(_, package)| std::cmp::Reverse(package.size));
    let done = parallel::each(&by_size, TRANSFERS.max(cores()), |_, (_, package)| one(package))?;
    let mut done: Vec<(usize, Unpacked)> = by_size.iter().map(|(index, _)| *index).zip(done).collect();
    done.sort_by_key(|(index, _)| *index);
    unpacked.extend(done.into_iter().map(|(_, unpacked)| unpacked));
    Ok(unpacked)
}

fn outcome(request: &Request, suites: &[Suite], packages: &[&Package], date: i64) -> Outcome {
    let target = &request.target;
    let mut installed: Vec<Installed> = packages
        .iter()
        .map(|package| Installed {
            name: package.name.to_string(),
            version: package.version.to_string(),
            architecture: package.architecture.to_string(),
            sha256: package.digest.hex(),
        })
        .collect();
    installed.sort_by(|left, right| left.name.cmp(&right.name));
    let mut hasher = Hasher::new();
    for one in &installed {
        hasher.update(
            format!(
                "{} {} {} {}\n",
                one.name, one.version, one.architecture, one.sha256
            )
            .as_bytes(),
        );
    }
    let main = suites.iter().find(|suite| suite.repository.suite == target.suite);
    let release = main.map(|suite| &suite.release);
    let version = release.and_then(|release| release.version.clone());
    let used = suites.iter().map(|suite| {
        let repository = &suite.repository;
        let uri = without_credentials(&repository.uri);
        format!("{uri} {} {}", repository.suite, repository.components.join(" "))
    });
    let variant = match target.variant {
        _ if request.only => "packages",
        Variant::Slim => "slim",
        Variant::Standard => "standard",
    };
    let created = jiff::Timestamp::from_second(date)
        .map(|stamp| stamp.to_string())
        .unwrap_or_default();
    let labels = BTreeMap::from(
        [
            ("org.opencontainers.image.title", target.distribution.clone()),
            (
                "org.opencontainers.image.version",
                version.unwrap_or_else(|| target.suite.clone()),
            ),
            (
                "org.opencontainers.image.vendor",
                release.map(|one| one.origin.clone()).unwrap_or_default(),
            ),
            ("org.opencontainers.image.created", created),
            ("dev.dhow.bootstrap.suite", target.suite.clone()),
            ("dev.dhow.bootstrap.variant", variant.to_owned()),
            ("dev.dhow.bootstrap.sources", used.collect::<Vec<_>>().join("; ")),
            ("dev.dhow.bootstrap.packages", hasher.finish().to_string()),
            (
                "dev.dhow.bootstrap.verified",
                suites.iter().all(|suite| suite.signer.is_some()).to_string(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let history = format!("dhow bootstrap {target} # {} packages", installed.len());
    Outcome {
        created: date,
        labels,
        packages: installed,
        history,
    }
}
