//! `checkpoint` and `restore`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dhow_runtime::container::{self, Checkpoint, GroupMode, Images, Restore};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::begin::{self, BUNDLE, CONSOLE, NO_PIVOT, PID_FILE};
use super::life::open;
use crate::args::{Flag, Given, Until, on, value, values};
use crate::{Context, Failure, Verb, crun, is_missing, streams};

const IMAGE_PATH: Flag = value("image-path", None, "folder of the images [default: ./checkpoint]");
const WORK_PATH: Flag = value("work-path", None, "folder of logs [default: that of the images]");
const TCP_ESTABLISHED: Flag = on("tcp-established", None, "allow open TCP connections");
const EXT_UNIX_SK: Flag = on(
    "ext-unix-sk",
    None,
    "allow Unix sockets that lead out of the container",
);
const SHELL_JOB: Flag = on("shell-job", None, "allow a session whose leader is outside");
const LAZY_PAGES: Flag = on("lazy-pages", None, "let memory follow after the processes");
const FILE_LOCKS: Flag = on("file-locks", None, "keep locks of files");
const CGROUPS_MODE: Flag = value(
    "manage-cgroups-mode",
    None,
    "what becomes of control groups: soft (default), full, strict or ignore",
);
const EMPTY_NS: Flag = values(
    "empty-ns",
    None,
    "make this namespace again, but nothing in it: network (always so)",
);
const AUTO_DEDUP: Flag = on(
    "auto-dedup",
    None,
    "take memory that a later image has out of an earlier one",
);

pub(crate) const CHECKPOINT: Verb = Verb {
    name: "checkpoint",
    about: "write the processes of a running container to files, by criu",
    words: "<container-id>",
    flags: &[
        IMAGE_PATH,
        WORK_PATH,
        value(
            "parent-path",
            None,
            "folder of an earlier --pre-dump, relative to the image path",
        ),
        on("leave-running", None, "let the container run on"),
        TCP_ESTABLISHED,
        on(
            "tcp-skip-in-flight",
            None,
            "leave out TCP connections that are being opened",
        ),
        on("link-remap", None, "give a name to open files that have none"),
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        value(
            "status-fd",
            None,
            "descriptor that gets a null byte once lazy pages can be asked for",
        ),
        value(
            "page-server",
            None,
            "ADDRESS:PORT of the page server that gets the memory",
        ),
        FILE_LOCKS,
        on("pre-dump", None, "write memory only, while the container runs"),
        CGROUPS_MODE,
        EMPTY_NS,
        AUTO_DEDUP,
    ],
    until: Until::End,
    count: (1, 1),
    run: checkpoint,
};

pub(crate) const RESTORE: Verb = Verb {
    name: "restore",
    about: "make a container from a checkpoint, by criu",
    words: "<container-id>",
    flags: &[
        CONSOLE,
        IMAGE_PATH,
        WORK_PATH,
        TCP_ESTABLISHED,
        EXT_UNIX_SK,
        SHELL_JOB,
        FILE_LOCKS,
        CGROUPS_MODE,
        BUNDLE,
        on("detach", Some('d'), "detach from the container's process"),
        PID_FILE,
        on(
            "no-subreaper",
            None,
            "do not reap the container's orphaned processes",
        ),
        NO_PIVOT,
        EMPTY_NS,
        AUTO_DEDUP,
        LAZY_PAGES,
        value(
            "lsm-profile",
            None,
            "another profile of AppArmor or SELinux, as TYPE:NAME",
        ),
        value("lsm-mount-context", None, "another SELinux context of mounts"),
    ],
    until: Until::End,
    count: (1, 1),
    run: restore,
};

fn checkpoint(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let container = open(context, given)?;
    warn_without_root(context);
    let images = images(given, crun::checkpoint_config(context))?;
    let asked = Checkpoint {
        parent: parent(given, &images.path)?,
        leave_running: given.is_on("leave-running"),
        tcp_skip_in_flight: given.is_on("tcp-skip-in-flight"),
        link_remap: given.is_on("link-remap"),
        pre_dump: given.is_on("pre-dump"),
        page_server: given.text("page-server").map(page_server).transpose()?,
        status: status(given)?,
        images,
    };
    container.checkpoint(&asked)?;
    if asked.leave_running || asked.pre_dump {
        return Ok(ExitCode::SUCCESS);
    }
    let hooks = crun::last_surroundings(context, container.record());
    match container.delete(true, &hooks) {
        Ok(failures) => crun::warn_of_hooks(context, failures),
        // Whoever waited for it in the foreground was faster.
        Err(error) if is_missing(error.kind()) => {}
        Err(error) => context.log.warn(&Failure::from(error).message),
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    if given.is_on("no-pivot") {
        let message = "--no-pivot is not supported by restore: criu changes the root by pivot_root";
        return Err(Failure::new(message));
    }
    warn_without_root(context);
    let asked = Restore {
        images: images(given, crun::checkpoint_config(context))?,
        lsm_profile: given.text("lsm-profile").map(str::to_owned),
        lsm_mount_context: given.text("lsm-mount-context").map(str::to_owned),
    };
    begin::carry(context, given, |id, bundle, options| {
        container::restore(&context.root, id, bundle, options, &asked).map_err(Failure::from)
    })
}

fn warn_without_root(context: &Context) {
    if !rustix::process::geteuid().is_root() {
        let message = "checkpoint and restore are untested with rootless containers";
        context.log.warn(message);
    }
}

/// What both verbs have in common. The paths are absolute: the working directory becomes the bundle's.
fn images(given: &Given, config: Option<PathBuf>) -> Result<Images, Failure> {
    for namespace in given.values("empty-ns") {
        if namespace != "network" {
            let message = format!("namespace \"{namespace}\" is not supported by --empty-ns");
            return Err(Failure::new(message));
        }
    }
    let mode = given.value("manage-cgroups-mode").unwrap_or_default();
    let groups = GroupMode::parse(mode).ok_or_else(|| Failure::new("invalid manage-cgroups-mode value"))?;
    Ok(Images {
        path: streams::absolute(given.text("image-path").unwrap_or("checkpoint"))?,
        work: given.text("work-path").map(streams::absolute).transpose()?,
        tcp_established: given.is_on("tcp-established"),
        ext_unix_sk: given.is_on("ext-unix-sk"),
        shell_job: given.is_on("shell-job"),
        file_locks: given.is_on("file-locks"),
        auto_dedup: given.is_on("auto-dedup"),
        lazy_pages: given.is_on("lazy-pages"),
        groups,
        config,
    })
}

/// The folder of an earlier pre-dump: relative, so that both can move, and there.
fn parent(given: &Given, images: &Path) -> Result<Option<PathBuf>, Failure> {
    let Some(parent) = given.text("parent-path").map(PathBuf::from) else {
        return Ok(None);
    };
    if parent.is_absolute() {
        return Err(Failure::new("--parent-path must be relative"));
    }
    // The folder of the images need not be there yet: without it, `..` cannot be followed.
    let found = std::fs::create_dir_all(images).and_then(|()| std::fs::metadata(images.join(&parent)));
    match found {
        Ok(found) if found.is_dir() => Ok(Some(parent)),
        Ok(_) => Err(Failure::new("invalid --parent-path: not a directory")),
        Err(error) => Err(Failure::from(error).during("invalid --parent-path")),
    }
}

fn page_server(text: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::new("Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    if address.is_empty() || port.is_empty() || (bare.is_none() && address.contains(':')) {
        return Err(wrong());
    }
    let port = port.parse().map_err(|_| Failure::new("Invalid port number"))?;
    Ok((address.to_owned(), port))
}

/// A copy of the descriptor that the caller names.
fn status(given: &Given) -> Result<Option<OwnedFd>, Failure> {
    let Some(number) = given.number::<i32>("status-fd")?.filter(|number| *number != -1) else {
        return Ok(None);
    };
    let copy = || -> std::io::Result<OwnedFd> {
        let this = pidfd_open(getpid(), PidfdFlags::empty())?;
        let copy = pidfd_getfd(this, number, PidfdGetfdFlags::empty())?;
        if !fcntl_getfl(&copy)?.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return Err(std::io::Error::other("not writable"));
        }
        Ok(copy)
    };
    let copied = copy().map_err(|error| {
        let what = format!("invalid --status-fd argument {number}");
        Failure::from(error).during(&what)
    });
    copied.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let sound = [
            ("0.0.0.0:27277", "0.0.0.0", 27277),
            ("[::1]:1", "::1", 1),
            ("host:65535", "host", 65535),
        ];
        for (text, address, port) in sound {
            assert_eq!(page_server(text).unwrap(), (address.to_owned(), port), "{text}");
        }
        for wrong in [
            "",
            "host",
            ":1",
            "host:",
            "::1:1",
            "host:x",
            "host:65536",
            "host:-1",
        ] {
            assert!(page_server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_parent_is_a_folder_beside_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        let parent = |text: &str| {
            let args = ["--parent-path".to_owned(), text.to_owned()];
            let given = crate::args::parse(CHECKPOINT.flags, Until::End, &args).unwrap();
            super::parent(&given, &images)
        };
        for wrong in ["../nope", "/tmp", "../file"] {
            std::fs::write(folder.path().join("file"), "").unwrap();
            assert!(
                parent(wrong).unwrap_err().message.contains("--parent-path"),
                "{wrong}"
            );
        }
        std::fs::create_dir(folder.path().join("earlier")).unwrap();
        assert_eq!(parent("../earlier").unwrap(), Some(PathBuf::from("../earlier")));
    }

    #[test]
    fn what_criu_cannot_do_is_refused_by_name() {
        let images = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            images(
                &crate::args::parse(RESTORE.flags, Until::End, &args).unwrap(),
                None,
            )
        };
        assert!(images(&["--empty-ns", "network", "--manage-cgroups-mode", "full"]).is_ok());
        let failure = images(&["--empty-ns", "ipc"]).unwrap_err();
        assert!(failure.message.contains("--empty-ns"), "{}", failure.message);
        let failure = images(&["--manage-cgroups-mode", "lax"]).unwrap_err();
        assert!(
            failure.message.contains("manage-cgroups-mode"),
            "{}",
            failure.message
        );
    }
}
