# Makes what the lab boots: kernel, first file system in memory, root file system. Sourced by `run`.
# Everything is kept in $cache, each of the two root file systems in $cache/$image; what is there and has the same recipe is
# not made again.

# The guest's packages beside the base. Small, for the profile without systemd: it is made in a tenth of the time.
packages_small=(apparmor libseccomp2 python3 kmod iproute2 nftables procps util-linux busybox-static debian-archive-keyring)
# Full. Both security modules: the kernel's command line chooses. The last line is what public suites ask for.
packages_full=(
    "${packages_small[@]}"
    systemd systemd-sysv dbus dbus-user-session libpam-systemd
    selinux-policy-default policycoreutils selinux-utils
    uidmap passt fuse-overlayfs slirp4netns podman crun iptables
    skopeo gpgv bsdutils mount strace
    bats jq gawk gcc libc6-dev file xz-utils criu
)
# What the kernel cannot mount its root without.
boot_modules=(virtio_pci virtio_blk virtio_console ext4 crc32c_generic)
# Drivers of hardware that no guest has.
left_out=(gpu media net/wireless net/ethernet infiniband staging iio hid scsi ata usb sound isdn mtd hwmon input video leds)

# Installs what this machine lacks, where that is possible.
install_tools() {
    local need=()
    command -v qemu-system-x86_64 >/dev/null || need+=(qemu-system-x86 seabios)
    command -v mke2fs >/dev/null || need+=(e2fsprogs)
    command -v xz >/dev/null || need+=(xz-utils)
    command -v strip >/dev/null || need+=(binutils)
    [ -x /bin/busybox ] || need+=(busybox-static)
    [ ${#need[@]} = 0 ] && return
    step "Installing ${need[*]}"
    apt-get -o Acquire::Retries=5 update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=5 install -y -q --no-install-recommends "${need[@]}" >/dev/null
}

# Debian's stock kernel, unpacked to $cache/kernel, and not installed on this machine.
make_kernel() {
    [ -e "$cache/kernel/version" ] && return
    local name
    rm -rf "$cache/kernel" "$cache/download"
    mkdir -p "$cache/download" "$cache/kernel"
    # Lists may be missing, or older than what they list.
    download_kernel || { apt-get -o Acquire::Retries=5 update -q >/dev/null && download_kernel; } || fail "cannot download linux-image-amd64 by apt-get"
    dpkg-deb --extract "$cache/download/$name"_*.deb "$cache/kernel"
    for driver in "${left_out[@]}"; do rm -rf "$cache"/kernel/lib/modules/*/kernel/{drivers/$driver,$driver}; done
    rm -rf "$cache/download"
    unpack_kernel "$cache"/kernel/boot/vmlinuz-* "$cache/kernel/vmlinux"
    echo "${name#linux-image-}" > "$cache/kernel/version"
}

# The package that linux-image-amd64 stands for, as $name, to $cache/download.
download_kernel() {
    name=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
    [ -n "$name" ] || return
    step "Downloading $name"
    (cd "$cache/download" && apt-get -o Acquire::Retries=5 download -q "$name" >/dev/null 2>&1)
}

# unpack_kernel VMLINUZ VMLINUX: the kernel without its own decompression, which takes a third of the boot when emulated.
unpack_kernel() {
    local offset
    offset=$(LC_ALL=C grep -aobP '\xfd7zXZ\x00' "$1" | head -1 | cut -d: -f1)
    [ -n "$offset" ] || fail "$1 is not compressed by xz"
    # What follows the stream is not of xz, and it says so.
    tail -c "+$((offset + 1))" "$1" | xz --decompress --stdout --single-stream > "$2" 2>/dev/null || true
    [ "$(head -c 4 "$2" | tail -c 3)" = ELF ] || fail "cannot unpack $1"
}

# The root file system, made by our own bootstrap; its tree stays, since only small things in it change.
make_tree() {
    local -n packages=packages_$image
    local key
    key=$(printf '%s\n' "${packages[@]}" "$(cat "$cache/kernel/version")" | sha256sum)
    [ "$(cat "$made/tree.key" 2>/dev/null)" = "$key" ] && return
    step "Bootstrapping debian:bookworm-slim with ${#packages[@]} packages"
    local dhow=("$DHOW_BIN" --root "$cache/store") container
    rm -rf "$made"
    mkdir -p "$made/tree"
    "${dhow[@]}" bootstrap debian:bookworm-slim -t lab:root --include "$(IFS=,; echo "${packages[*]}")" >"$made/bootstrap.log" 2>&1 \
        || { tail -20 "$made/bootstrap.log" >&2; fail "the bootstrap failed"; }
    container=$("${dhow[@]}" create lab:root true)
    "${dhow[@]}" export "$container" | tar --xattrs --xattrs-include='*' --numeric-owner -xpf - -C "$made/tree"
    "${dhow[@]}" rm "$container" >/dev/null
    cp -a "$cache"/kernel/lib/modules "$made/tree/usr/lib/"
    chroot "$made/tree" depmod "$(cat "$cache/kernel/version")"
    echo "$key" > "$made/tree.key"
}

# make_image PAYLOAD NAME "PACKAGE PACKAGE": an image lab:NAME of Debian with these packages, as an archive in the payload: the
# guest has no network to make one with.
make_image() {
    local archive=$cache/images/$2.tar recipe=$cache/images/$2.key
    local dhow=("$DHOW_BIN" --root "$cache/store")
    mkdir -p "$cache/images" "$1/images"
    if [ "$(cat "$recipe" 2>/dev/null)" != "$3" ]; then
        step "Bootstrapping debian:bookworm-slim with $3"
        "${dhow[@]}" bootstrap debian:bookworm-slim -t "lab:$2" --include "${3// /,}" >"$cache/images/$2.log" 2>&1 \
            || { tail -20 "$cache/images/$2.log" >&2; fail "the bootstrap failed"; }
        "${dhow[@]}" save -o "$archive" "lab:$2"
        echo "$3" > "$recipe"
    fi
    # A hard link, since it may be large and is only read.
    ln -f "$archive" "$1/images/$2.tar"
}

# Settings of the guest: its host name, its user, its service, its security policy.
furnish_tree() {
    local tree=$made/tree
    echo lab > "$tree/etc/hostname"
    printf '127.0.0.1 localhost lab\n::1 localhost\n' > "$tree/etc/hosts"
    rm -f "$tree/usr/sbin/policy-rc.d"
    chroot "$tree" id lab >/dev/null 2>&1 || chroot "$tree" useradd --create-home --shell /bin/bash lab
    echo lab:100000:65536 | tee "$tree/etc/subuid" > "$tree/etc/subgid"
    mkdir -p "$tree/etc/systemd/system/user@.service.d"
    printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > "$tree/etc/systemd/system/user@.service.d/delegate.conf"
    install -m 755 "$here/guest/start" "$tree/usr/local/sbin/lab-start"
    install -m 755 "$here/guest/quick" "$tree/usr/local/sbin/lab-quick"
    install -m 644 "$here/guest/dhow-lab.service" "$tree/etc/systemd/system/"
    mkdir -p "$tree/etc/systemd/system/multi-user.target.wants" "$tree/etc/apt/apt.conf.d"
    ln -sf ../dhow-lab.service "$tree/etc/systemd/system/multi-user.target.wants/dhow-lab.service"
    # Nothing of the guest runs by a clock, and nobody logs in.
    rm -f "$tree"/etc/systemd/system/timers.target.wants/* "$tree"/etc/systemd/system/getty.target.wants/*
    rm -f "$tree"/etc/systemd/system/{default,multi-user}.target.wants/podman*
    for unit in systemd-{timesyncd,firstboot,update-utmp,update-utmp-runlevel,journal-flush,binfmt,pstore,repart,random-seed,machine-id-commit} \
        apt-daily e2scrub_reap getty@tty1 serial-getty@ttyS0; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit.service"
    done
    # As after a first boot: else caches of libraries, users and catalogs are made again, each time.
    touch "$tree/etc/.updated" "$tree/var/.updated"
    echo 00000000000000000000000000000001 > "$tree/etc/machine-id"
    if [ "$image" = full ]; then furnish_selinux; fi
}

furnish_selinux() {
    local tree=$made/tree
    printf 'SELINUX=enforcing\nSELINUXTYPE=default\n' > "$tree/etc/selinux/config"
    if ! cmp -s "$here/guest/lab.cil" "$tree/usr/share/selinux/lab.installed"; then
        step "Compiling the security policy"
        install -m 644 "$here/guest/lab.cil" "$tree/usr/share/selinux/lab.cil"
        within "$tree" semodule --noreload --store default --install /usr/share/selinux/lab.cil >"$made/policy.log" 2>&1 \
            || fail "cannot install the policy module: $made/policy.log"
        mv "$tree/usr/share/selinux/lab.cil" "$tree/usr/share/selinux/lab.installed"
    fi
    # The type of a systemd in a container, as container-selinux names it.
    local contexts=$tree/etc/selinux/default/contexts/lxc_contexts
    grep -q ^init_process "$contexts" || echo 'init_process = "system_u:system_r:container_init_t:s0"' >>"$contexts"
    within "$tree" setfiles -F -e /proc /etc/selinux/default/contexts/files/file_contexts / >"$made/setfiles.log" 2>&1 \
        || fail "cannot label the root file system: $made/setfiles.log"
}

# within TREE COMMAND...: in the tree, with /proc, whose mount is gone with its namespace.
within() {
    local tree=$1; shift
    unshare --mount --propagation private sh -c 'mount --bind /proc "$0/proc" && exec chroot "$0" "$@"' "$tree" "$@"
}

# The tree as a disk.
make_root() {
    local key
    key=$(cat "$made/tree.key" "$here/image.sh" "$here"/guest/* | sha256sum)
    [ "$(cat "$made/root.key" 2>/dev/null)" = "$key" ] && return
    furnish_tree
    step "Making the disk"
    disk "$made/root.ext4" "$made/tree" 4G
    make_initramfs
    echo "$key" > "$made/root.key"
}

# disk FILE FOLDER SIZE: an ext4 image of a folder, without a mount.
disk() {
    rm -f "$1"
    mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -d "$2" "$1" "$3" >/dev/null || fail "cannot make $1"
}

# Busybox, `init`, and the modules in the order in which they load.
make_initramfs() {
    local work=$made/initramfs version path
    version=$(cat "$cache/kernel/version")
    rm -rf "$work"
    mkdir -p "$work/bin" "$work/modules"
    cp /bin/busybox "$work/bin/busybox"
    install -m 755 "$here/guest/init" "$work/init"
    chroot "$made/tree" modprobe --set-version "$version" --show-depends --all "${boot_modules[@]}" \
        | awk '/^insmod/ && !seen[$2]++ {print $2}' | while read -r path; do
        cp "$made/tree$path" "$work/modules/"
        basename "$path"
    done > "$work/modules/order"
    (cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > "$made/initramfs.gz"
    rm -rf "$work"
}
