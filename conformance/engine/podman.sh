#!/usr/bin/env bash
# podman's system tests (bats) on our command line under the name podman. The caller has the checkout; nothing of it is built
# or changed. Every file runs in namespaces of its own: what a test leaves ends with them.
set -uo pipefail
name=podman
# shellcheck source=box.sh
. "$(dirname "$0")/box.sh"

usage() {
    cat >&2 <<USAGE
usage: conformance/engine/$name.sh [--dhow BIN] [--file NAME]... [--only REGEX] [--logs DIR] SUITE
  SUITE         a checkout of podman, or its folder test/system
  --dhow BIN    the binary (default: dist/dhow)
  --file NAME   only this file, as 030 or 030-run; may be given again (default: the files of the verbs that we share)
  --only REGEX  only the tests whose name matches
  --logs DIR    keep the output of every file there
Run it as root.
USAGE
    exit 2
}

# The files about verbs that we share.
shared=(001 005 010 011 020 030 040 045 050 055 065 070 075 085 110 120 125 130 140 160 190 220 500)

# What the tests' own image has in its home: its age, a health check, a program that waits.
fill_home() {
    local home=$1/home/podman
    printf '%s\n' 'ssh 22/tcp' 'domain 53/udp' 'http 80/tcp' >"$1/etc/services"
    echo 20241011 >"$home/testimage-id"
    touch --date=@1600000000 "$home/testimage-id"
    cat >"$home/healthcheck" <<'SCRIPT'
#!/bin/sh
if [ -e /uh-oh ] || [ -e /uh-oh-only-once ]; then
    rm -f /uh-oh-only-once
    echo 'Uh-oh on stdout!'
    echo 'Uh-oh on stderr!' >&2
    exit 1
fi
echo 'Life is Good on stdout'
echo 'Life is Good on stderr' >&2
SCRIPT
    printf '#!/bin/sh\ntrap "exit 0" TERM\necho Confirmed: testimage pause invoked as $0\nwhile :; do sleep 0.1; done\n' >"$home/pause"
    chmod 755 "$home"/{healthcheck,pause}
}

# What the image with a systemd has besides: in its place, a program that runs until it is ended; a time zone. $1 archive.
fill_systemd() {
    local extra=$work/systemd
    mkdir -p "$extra/usr/sbin" "$extra/usr/share/zoneinfo/Europe"
    printf '#!/bin/sh\nwhile :; do sleep 1; done\n' >"$extra/usr/sbin/init"
    chmod 755 "$extra/usr/sbin/init"
    cp -L /usr/share/zoneinfo/Europe/Berlin "$extra/usr/share/zoneinfo/Europe/" 2>/dev/null
    tar -C "$extra" -cf "$1" usr
}

# The tests' own images were made by buildah, years ago: their history has its words, and their age in a list does not change
# while a test looks. $1 archive in, $2 archive out, $3 the day.
as_buildahs() {
    python3 - "$1" "$2" "$3" <<'SCRIPT'
import hashlib, io, json, sys, tarfile
with tarfile.open(sys.argv[1]) as old:
    files = {one.name: old.extractfile(one).read() for one in old if one.isfile()}
manifest = json.loads(files["manifest.json"])
config = json.loads(files.pop(manifest[0]["Config"]))
for line in config["history"]:
    line["created_by"] = "/bin/sh -c #(nop) " + (line.get("created_by") or "ADD rootfs.tar in /")
    line["created"] = sys.argv[3] + "T12:00:00Z"
config["created"] = sys.argv[3] + "T12:00:00Z"
text = json.dumps(config).encode()
manifest[0]["Config"] = hashlib.sha256(text).hexdigest() + ".json"
files[manifest[0]["Config"]], files["manifest.json"] = text, json.dumps(manifest).encode()
kept = {manifest[0]["Config"], "manifest.json", *manifest[0]["Layers"]}
with tarfile.open(sys.argv[2], "w") as new:
    for name in kept:
        entry = tarfile.TarInfo(name)
        entry.size = len(files[name])
        new.addfile(entry, io.BytesIO(files[name]))
SCRIPT
}

# The images under the names that the suite asks for, in a registry of ours. Each name is an image of its own.
make_images() {
    local root=$work/rootfs registry=127.0.0.1:$port kind day=10
    fill_root "$root"
    # The image of Alpine has some eighty files, of which a test counts fifty.
    mkdir -p "$root/usr/share/misc"
    for kind in {10..69}; do echo "$kind" >"$root/usr/share/misc/$kind"; done
    tar -C "$root" -cf "$work/plain.tar" .
    rm -r "$root/usr/share/misc"
    fill_home "$root"
    mkdir -p "$work/image"
    fill_systemd "$work/image/systemd.tar"
    tar -C "$root" -cf "$work/home.tar" .
    # As it is, with the root folder's own mode, which an ADD would not take over.
    "$dhow" --root "$work/maker" import "$work/home.tar" "$registry/libpod/base:1" >/dev/null || return 1
    # By a file of ours, so that they have a history. Each is an image of its own.
    for kind in testimage:20241011 testimage:00000004 testimage:multiimage systemd-image:20240124; do
        cat >"$work/image/Dockerfile" <<DOCKERFILE
FROM $registry/libpod/base:1
LABEL created_by=test/system/build-testimage
LABEL created_at=2024-10-11T12:00:00Z
WORKDIR /home/podman
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/bin/echo", "This container is intended for podman CI testing"]
DOCKERFILE
        [ "$kind" = testimage:20241011 ] || echo "ENV KIND=$kind" >>"$work/image/Dockerfile"
        [[ $kind != systemd-image:* ]] || echo "ADD systemd.tar /" >>"$work/image/Dockerfile"
        "$dhow" --root "$work/maker" build -q -t "$registry/libpod/$kind" "$work/image" >/dev/null || return 1
        "$dhow" --root "$work/maker" save -o "$work/made.tar" "$registry/libpod/$kind" || return 1
        day=$((day + 1))
        as_buildahs "$work/made.tar" "$work/own.tar" "2024-10-$day" || return 1
        "$dhow" --root "$work/maker" load -q -i "$work/own.tar" >/dev/null || return 1
    done
    export DHOW_INSECURE_REGISTRIES=$registry
    "$dhow" --root "$work/maker" import -c 'CMD ["/bin/sh"]' -m alpine "$work/plain.tar" "$registry/libpod/alpine:latest" >/dev/null || return 1
    for kind in testimage:20241011 testimage:00000004 testimage:multiimage systemd-image:20240124 alpine:latest; do
        "$dhow" --root "$work/maker" push -q "$registry/libpod/$kind" >/dev/null || return 1
    done
    unset DHOW_INSECURE_REGISTRIES
}

# Inside the namespaces: devices, the folders that others keep things in, the registry's names.
furnish() {
    local place
    own_machine
    for place in /var/lib/containers /run/containers /run/netns; do
        if mkdir -p "$place" 2>/dev/null; then mount -t tmpfs tmpfs "$place"; fi
    done
    "$dhow" --root "$work/maker" registry serve --listen "127.0.0.1:$port" 2>"$work/registry.log" &
    cat >"$work/registries.conf" <<CONF
[[registry]]
prefix = "quay.io"
location = "127.0.0.1:$port"
insecure = true
[[registry]]
prefix = "docker.io"
location = "127.0.0.1:$port"
insecure = true
CONF
    export CONTAINERS_REGISTRIES_CONF=$work/registries.conf
    mkdir -p "$work/bin" "$work/tmp"
    chmod 1777 "$work/tmp"
    cp --reflink=auto "$dhow" "$work/bin/podman"
    # The suite puts a missing image into podman's storage with skopeo; ours has another.
    cat >"$work/bin/skopeo" <<SCRIPT
#!/bin/sh
for last; do :; done
case \$last in
    containers-storage:*) exec podman pull -q "\${last#containers-storage:}" ;;
    *) exec $(command -v skopeo || echo false) "\$@" ;;
esac
SCRIPT
    # Older ones have no -quiet. The keys that every file makes are for its remote client, which does not run: small ones do.
    cat >"$work/bin/openssl" <<SCRIPT
#!/bin/bash
words=()
for word; do
    case \$word in
        -quiet) openssl req -help 2>&1 | grep -q -- -quiet && words+=("\$word") ;;
        rsa:4096) words+=(rsa:2048) ;;
        *) words+=("\$word") ;;
    esac
done
exec $(command -v openssl) "\${words[@]}"
SCRIPT
    sed -i "s| openssl req -help| $(command -v openssl) req -help|" "$work/bin/openssl"
    chmod 755 "$work/bin/openssl"
    chmod 755 "$work/bin/skopeo"
    export PATH=$work/bin:$PATH PODMAN=$work/bin/podman DHOW_ROOT=$work/r HOME=$work/home TMPDIR=$work/tmp BATS_TMPDIR=$work/tmp
    # Skopeo of Debian 12 looks there and not at the variable.
    mkdir -p "$HOME/.config/containers"
    cp "$CONTAINERS_REGISTRIES_CONF" "$HOME/.config/containers/registries.conf"
    await_registry
}

# note FILE LOG: the counts of a file from its TAP lines.
note() {
    local passed failed skipped planned
    skipped=$(grep -cE '^ok .* # skip' "$2")
    passed=$(($(grep -cE '^ok ' "$2") - skipped))
    # What the suite's own end finds is not one of its tests.
    failed=$(grep -E '^not ok ' "$2" | grep -cv ' teardown_suite')
    planned=$(sed -nE 's/^1\.\.([0-9]+)$/\1/p' "$2" | head -n 1)
    echo "$1 $passed $failed $skipped ${planned:-0}" >>"$work/results"
    printf '%-24s %3d passed, %3d failed, %3d skipped of %s\n' "$1" "$passed" "$failed" "$skipped" "${planned:-?}"
    grep -E '^not ok ' "$2" | sed -E 's/^not ok [0-9]+ /    FAIL /' || true
}

run_file() {
    local base log arguments=()
    base=$(basename "$1" .bats)
    log=$logs/$base.log
    [ -z "$only" ] || arguments=(-f "$only")
    (cd "$suite" && exec timeout -k 10 "$((1200 * patience))" bats -T --tap "${arguments[@]}" "$1") >"$log" 2>&1 </dev/null
    note "$base" "$log"
    podman rm -a -f -t 0 >/dev/null 2>&1
}

inside() {
    local file wanted
    furnish
    # The image that setup expects to find.
    podman pull -q quay.io/libpod/testimage:20241011 >/dev/null || die "no test image from our own registry"
    for wanted in "${files[@]}"; do
        for file in "$suite/$wanted"*.bats; do
            [ -e "$file" ] || die "no file $wanted in $suite"
            run_file "$file"
        done
    done
}

main() {
    local tool
    only='' suite='' keep='' files=() dhow=$(dirname "$0")/../../dist/dhow
    while [ $# -gt 0 ]; do
        case $1 in
            --dhow) dhow=${2:?}; shift 2 ;;
            --file) files+=("${2:?}"); shift 2 ;;
            --only) only=${2:?}; shift 2 ;;
            --logs) keep=$(realpath -m "${2:?}"); shift 2 ;;
            -*) usage ;;
            *) [ -z "$suite" ] || usage; suite=$(realpath "$1"); shift ;;
        esac
    done
    [ -n "$suite" ] || usage
    [ "$(id -u)" = 0 ] || die "run it as root"
    [ ! -d "$suite/test/system" ] || suite=$suite/test/system
    ls "$suite"/*.bats >/dev/null 2>&1 || die "no *.bats in $suite"
    dhow=$(realpath "$dhow")
    [ -x "$dhow" ] || die "no binary $dhow"
    for tool in bats jq busybox python3 ip curl openssl; do command -v "$tool" >/dev/null || die "no $tool"; done
    [ ${#files[@]} -gt 0 ] || files=("${shared[@]}")
    patience=${DHOW_SUITE_PATIENCE:-1}
    port=$(shuf -i 20000-26000 -n 1)
    # Short, since sockets lie below it.
    work=$(mktemp -d /tmp/pb-XXXXXX)
    chmod 755 "$work"
    logs=${keep:-$work/logs}
    mkdir -p "$logs"
    : >"$work/results"
    "$dhow" --root "$work/maker" registry serve --listen "127.0.0.1:$port" 2>/dev/null &
    local registry=$!
    sleep 0.5
    make_images || die "cannot make the images"
    kill "$registry"; wait "$registry" 2>/dev/null
    echo "== $name: $("$dhow" --version) =="
    box furnish run_file note
    awk '{ p += $2; f += $3; s += $4 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$work/results"
    rm -rf --one-file-system "$work" 2>/dev/null || true
}

main "$@"
