//! Edits put into a runtime spec.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dhow_oci::runtime::{self, DeviceRule, Hooks, Linux, Spec};

use crate::document::{DeviceNode, Edits, Hook, IntelRdt, Stage};
use crate::{Error, invalid};

/// Changes a spec by edits, in order: what is at the place of a node or mount already gives way.
///
/// # Errors
/// `NotFound` for a device of the host that is not there, `InvalidArgument` for one of another type.
pub fn apply(edits: &[&Edits], spec: &mut Spec) -> Result<(), Error> {
    for edits in edits {
        process(edits, spec);
        for node in &edits.device_nodes {
            device(node, spec)?;
        }
        let linux = spec.linux.get_or_insert_default();
        for device in &edits.net_devices {
            let name = Some(device.name.clone());
            linux
                .net_devices
                .insert(device.host_interface_name.clone(), runtime::NetDevice { name });
        }
        if let Some(rdt) = &edits.intel_rdt {
            linux.intel_rdt = Some(class(rdt));
        }
        mounts(edits, spec);
        for one in &edits.hooks {
            hook(one, spec.hooks.get_or_insert_default());
        }
    }
    Ok(())
}

fn process(edits: &Edits, spec: &mut Spec) {
    let Some(process) = &mut spec.process else {
        return;
    };
    for entry in &edits.env {
        let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        let wanted = name(entry);
        match process.env.iter_mut().find(|known| name(known) == wanted) {
            Some(known) => known.clone_from(entry),
            None => process.env.push(entry.clone()),
        }
    }
    let groups = &mut process.user.additional_gids;
    for group in edits.additional_gids.iter().filter(|group| **group != 0) {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
}

/// What a node is, with what the host's says where the file does not.
fn device(node: &DeviceNode, spec: &mut Spec) -> Result<(), Error> {
    let source = if node.host_path.is_empty() {
        &node.path
    } else {
        &node.host_path
    };
    let (mut kind, mut major, mut minor) = (node.kind.clone(), node.major, node.minor);
    let mut mode = node.file_mode;
    let whole = !kind.is_empty() && (major != 0 || kind == "p");
    match std::fs::symlink_metadata(source) {
        Ok(metadata) => {
            mode = mode.or(Some(metadata.mode() & 0o7777));
            if !whole {
                let found = type_of(&metadata.file_type())
                    .ok_or_else(|| invalid(format!("CDI device {source} is not a device")))?;
                if !kind.is_empty() && kind != found {
                    let message = format!("CDI device {source} is of type {found}, and {kind} is asked for");
                    return Err(invalid(message));
                }
                found.clone_into(&mut kind);
                if major == 0 {
                    major = rustix::fs::major(metadata.rdev()).into();
                    minor = rustix::fs::minor(metadata.rdev()).into();
                }
            }
        }
        // A vendor may say all of it.
        Err(_) if whole => {}
        Err(error) => {
            let message = format!("look at the CDI device {source} of the host");
            return Err(Error::wrap(error, message));
        }
    }
    let user = spec.process.as_ref().map(|process| &process.user);
    let owner = |own: Option<u32>, of: fn(&runtime::User) -> u32| own.or_else(|| user.map(of));
    let made = runtime::Device {
        kind: kind.clone(),
        path: PathBuf::from(&node.path),
        major,
        minor,
        file_mode: mode,
        uid: owner(node.uid, |user| user.uid),
        gid: owner(node.gid, |user| user.gid),
    };
    let linux = spec.linux.get_or_insert_default();
    linux.devices.retain(|device| device.path != made.path);
    linux.devices.push(made);
    let access = match node.permissions.as_str() {
        "" => "rwm",
        some => some,
    };
    if matches!(kind.as_str(), "b" | "c") && access != "none" {
        let resources = linux.resources.get_or_insert_default();
        resources.devices.push(DeviceRule {
            allow: true,
            kind: Some(kind),
            major: Some(major),
            minor: Some(minor),
            access: Some(access.to_owned()),
        });
    }
    Ok(())
}

fn type_of(kind: &std::fs::FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_block_device() => Some("b"),
        kind if kind.is_char_device() => Some("c"),
        kind if kind.is_fifo() => Some("p"),
        _ => None,
    }
}

/// Mounts stand before those below them: sorted by depth, and else as they came.
fn mounts(edits: &Edits, spec: &mut Spec) {
    if edits.mounts.is_empty() {
        return;
    }
    let in_users = has_users(spec.linux.as_ref());
    for mount in &edits.mounts {
        let destination = PathBuf::from(&mount.container_path);
        spec.mounts.retain(|known| known.destination != destination);
        let mut options = mount.options.clone();
        let binds = options
            .iter()
            .find(|option| matches!(option.as_str(), "bind" | "rbind"));
        // Files of the host belong to ids that a user namespace does not have: they keep their looks.
        if let Some(bind) = binds.filter(|_| in_users) {
            let map = if bind == "rbind" { "ridmap" } else { "idmap" };
            if !options
                .iter()
                .any(|option| matches!(option.as_str(), "idmap" | "ridmap"))
            {
                options.push(map.to_owned());
            }
        }
        spec.mounts.push(runtime::Mount {
            destination,
            kind: (!mount.kind.is_empty()).then(|| mount.kind.clone()),
            source: Some(PathBuf::from(&mount.host_path)),
            options,
            ..runtime::Mount::default()
        });
    }
    spec.mounts.sort_by_key(|mount| depth(&mount.destination));
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn has_users(linux: Option<&Linux>) -> bool {
    linux.is_some_and(|linux| linux.namespaces.iter().any(|namespace| namespace.kind == "user"))
}

fn hook(hook: &Hook, hooks: &mut Hooks) {
    let stage = match hook.hook_name {
        Stage::Prestart => &mut hooks.prestart,
        Stage::CreateRuntime => &mut hooks.create_runtime,
        Stage::CreateContainer => &mut hooks.create_container,
        Stage::StartContainer => &mut hooks.start_container,
        Stage::Poststart => &mut hooks.poststart,
        Stage::Poststop => &mut hooks.poststop,
    };
    stage.push(runtime::Hook {
        path: PathBuf::from(&hook.path),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout,
    });
}

fn class(rdt: &IntelRdt) -> runtime::IntelRdt {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    runtime::IntelRdt {
        clos_id: some(&rdt.clos_id),
        schemata: rdt.schemata.clone().unwrap_or_default(),
        l3_cache_schema: some(&rdt.l3_cache_schema),
        mem_bw_schema: some(&rdt.mem_bw_schema),
        enable_monitoring: rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm,
        ..runtime::IntelRdt::default()
    }
}
