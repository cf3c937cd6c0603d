#!/usr/bin/env bash
# Does an image become the same tree with us as with others, and do they take our archives and we theirs? Some thirty images with
# everything that unpacking can get wrong (images.py) go through podman, docker and containerd, each with a private store, and
# through each of our forms of layers; trees are compared entry by entry. What podman and docker save, we load, and the other way.
#   conformance/images.sh [podman] [docker] [containerd]      as root; all three when none is named
#   DHOW_BIN names another binary than dist/dhow; CRANE and ORAS, when given, push to and pull from our registry, too
# One line per check; it exits non-zero when one failed.
set -euo pipefail
cd "$(dirname "$0")/.."

DHOW=$(realpath -m "${DHOW_BIN:-dist/dhow}")
[ -x "$DHOW" ] || { echo "images: no binary $DHOW: run cargo xtask dist" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "images: run it as root: it mounts images and starts daemons" >&2; exit 1; }
[ $# -gt 0 ] || set -- podman docker containerd
PATH=$PATH:/usr/sbin:/sbin
need=()
for peer in "$@"; do
    case $peer in
        podman) command -v podman >/dev/null || need+=(podman) ;;
        docker) command -v dockerd >/dev/null || need+=(docker.io) ;;
        containerd) command -v ctr >/dev/null || need+=(containerd) ;;
        *) echo "images: no such peer: $peer" >&2; exit 2 ;;
    esac
done
for tool in python3 skopeo jq; do command -v $tool >/dev/null || need+=("$tool"); done
if [ ${#need[@]} -gt 0 ]; then
    { apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${need[@]}"; } >/dev/null
fi

work=$(mktemp -d /var/tmp/images.XXXXXX) # a disk: overlayfs keeps whiteouts and attributes on it
daemons=()
finish() {
    set +e
    for pid in "${daemons[@]}"; do kill "$pid"; wait "$pid"; done 2>/dev/null
    awk '{print $5}' /proc/self/mountinfo | grep -F "$work/" | tac | while read -r path; do umount -l "$path"; done 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

passed=0 failed=0 skipped=0
skip() { skipped=$((skipped + 1)); echo "skipped $1: $2"; }
check() { # sentence, command...
    local sentence=$1; shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1)); echo "ok      $sentence"
    else
        failed=$((failed + 1)); echo "FAILED  $sentence"; sed 's/^/        /' "$work/log" | tail -n 12
    fi
}
same() { [ -n "$1" ] && { [ "$1" = "$2" ] || { printf 'wanted %s, got %s\n' "$1" "$2"; false; }; }; }
tree() { python3 conformance/images.py tree "$1"; }

dhow() { "$DHOW" --root "$work/dhow-$form" "$@"; }
podman_() { podman --root "$work/podman-$driver" --runroot "$work/podman-run-$driver" --storage-driver "$driver" --events-backend none "$@"; }
driver=overlay
docker_() { DOCKER_HOST=unix://$work/docker.sock docker "$@"; }
ctr_() { ctr -a "$work/containerd.sock" -n images "$@"; }
skopeo_() { skopeo --policy "$work/policy.json" --tmpdir "$work" "$@"; }
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"

# A peer's tree of an image, by a mount: name, archive.
to_docker_archive() { rm -f "$work/$1.docker"; skopeo_ copy -q "oci-archive:$2" "docker-archive:$work/$1.docker:example.test/$1:1" >/dev/null; }
of_podman() {
    local path status driver=overlay
    # Where a layer goes through a link of a lower one, overlay drivers of podman, docker and containerd hide the link by a folder
    # (a `bin` that is no longer `usr/bin`), and the vfs drivers follow it, as we do.
    [[ $1 != through-* ]] || driver=vfs
    to_docker_archive "$@" && podman_ load -q -i "$work/$1.docker" >/dev/null || return 1
    rm "$work/$1.docker"
    path=$(podman_ image mount "example.test/$1:1") && tree "$path"; status=$?
    podman_ image unmount "example.test/$1:1" >/dev/null
    return $status
}
of_docker() {
    local lower status
    to_docker_archive "$@" && docker_ load -q -i "$work/$1.docker" >/dev/null || return 1
    rm "$work/$1.docker"
    lower=$(docker_ image inspect -f '{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}' "example.test/$1:1" | sed 's/:<no value>$//; s/:$//')
    mkdir -p "$work/on" "$work/none"
    mount -t overlay overlay -o "lowerdir=$lower:$work/none" "$work/on" || return 1
    tree "$work/on"; status=$?
    umount "$work/on"
    return $status
}
of_containerd() {
    local status
    # The mount is a snapshot by the name of its folder.
    ctr_ images import "$2" >/dev/null || return 1
    mkdir -p "$work/on-$1"
    ctr_ images mount --rw "example.test/$1:1" "$work/on-$1" >/dev/null || return 1
    tree "$work/on-$1"; status=$?
    umount "$work/on-$1"
    return $status
}

start() { # seconds of patience, command that succeeds when it is up...
    for _ in $(seq $(($1 * 10))); do "${@:2}" >/dev/null 2>&1 && return 0; sleep 0.1; done
    echo "images: not up: ${*:2}" >&2; sed 's/^/        /' "$work/daemon.log" | tail -n 5 >&2; return 1
}
for peer in "$@"; do
    case $peer in
        docker)
            dockerd --data-root "$work/docker" --exec-root "$work/docker-run" --pidfile "$work/docker.pid" -H "unix://$work/docker.sock" \
                --storage-driver overlay2 --bridge none --iptables=false >"$work/daemon.log" 2>&1 &
            daemons+=($!); start 30 docker_ version ;;
        containerd)
            printf 'version = 2\nroot = "%s"\nstate = "%s"\n[grpc]\naddress = "%s"\n[ttrpc]\naddress = "%s"\ndisabled_plugins = []\n' \
                "$work/containerd" "$work/containerd-run" "$work/containerd.sock" "$work/containerd.sock.ttrpc" >"$work/containerd.toml"
            containerd -c "$work/containerd.toml" >"$work/daemon.log" 2>&1 &
            daemons+=($!); start 30 ctr_ version ;;
    esac
done

mkdir "$work/images" "$work/trees"
names=$(python3 conformance/images.py make "$work/images")
for form in directories erofs; do
    dhow system layers "$form" >/dev/null 2>&1 || { echo "skipped $form: $(dhow system layers "$form" 2>&1 | tail -n 1)"; continue; }
    for name in $names; do
        dhow load -q -i "$work/images/$name.tar" >"$work/trees/$form-$name.refused" 2>&1 || continue
        rm "$work/trees/$form-$name.refused"
        tree "$(dhow image mount "example.test/$name:1")" >"$work/trees/$form-$name"
        dhow image unmount "example.test/$name:1" >/dev/null
    done
done
form=directories
for peer in "$@"; do
    for name in $names; do
        if [[ $name == through-* && $peer != podman ]]; then skip "$name: $peer" "it hides the link"; continue; fi
        refused=
        if ! "of_$peer" "$name" "$work/images/$name.tar" >"$work/trees/$peer-$name" 2>"$work/refused"; then
            refused=$(tail -n 1 "$work/refused" | cut -c 1-150)
        fi
        for ours in directories erofs; do
            if [ -n "$refused" ]; then
                if [ -f "$work/trees/$ours-$name.refused" ]; then
                    check "$name: $ours refuse it, as $peer" true
                else
                    skip "$name: $ours have it" "$peer refuses it: $refused"
                fi
                continue
            fi
            [ ! -f "$work/trees/$ours-$name.refused" ] || { check "$name: $ours have it" sh -c "cat '$work/trees/$ours-$name.refused'; false"; continue; }
            [ -f "$work/trees/$ours-$name" ] || continue
            check "$name: $ours have the tree of $peer" python3 conformance/images.py same "$work/trees/$peer-$name" "$work/trees/$ours-$name"
        done
    done
done

# Archives in both directions.
id() { dhow image inspect --format '{{.Id}}' "$1"; }
for name in whiteouts hardlinks xattrs many; do
    image=example.test/$name:1
    dhow save -o "$work/ours.tar" "$image"
    for peer in "$@"; do
        case $peer in
            podman)
                podman_ rmi -f "$image" >/dev/null 2>&1 || true
                check "podman loads what we save: $name" podman_ load -q -i "$work/ours.tar"
                check "podman has our id of $name" same "$(id "$image")" "sha256:$(podman_ image inspect -f '{{.Id}}' "$image")"
                for kind in docker-archive oci-archive; do
                    rm -f "$work/theirs.tar"
                    podman_ save -q --format $kind -o "$work/theirs.tar" "$image" >/dev/null
                    check "we load podman's $kind: $name" "$DHOW" --root "$work/other-$kind" load -q -i "$work/theirs.tar"
                    check "with the same id" same "$(id "$image")" "$("$DHOW" --root "$work/other-$kind" image inspect --format '{{.Id}}' "$image")"
                done ;;
            docker)
                docker_ rmi -f "$image" >/dev/null 2>&1 || true
                check "docker loads what we save: $name" docker_ load -q -i "$work/ours.tar"
                check "docker has our id of $name" same "$(id "$image")" "$(docker_ image inspect -f '{{.Id}}' "$image")"
                docker_ save -o "$work/theirs.tar" "$image"
                check "we load what docker saves: $name" "$DHOW" --root "$work/other-docker" load -q -i "$work/theirs.tar"
                check "with the same id" same "$(id "$image")" "$("$DHOW" --root "$work/other-docker" image inspect --format '{{.Id}}' "$image")" ;;
            containerd)
                ctr_ images rm "$image" >/dev/null 2>&1 || true
                check "containerd imports what we save: $name" ctr_ images import "$work/ours.tar"
                ctr_ images export "$work/theirs.tar" "$image"
                check "we load what containerd exports: $name" "$DHOW" --root "$work/other-containerd" load -q -i "$work/theirs.tar"
                check "with the same id" same "$(id "$image")" "$("$DHOW" --root "$work/other-containerd" image inspect --format '{{.Id}}' "$image")" ;;
        esac
    done
done

# Other clients of our registry.
if [ -n "${CRANE:-}${ORAS:-}" ]; then
    port=$(shuf -i 20000-30000 -n 1)
    "$DHOW" registry serve --root "$work/registry" --listen "127.0.0.1:$port" >"$work/daemon.log" 2>&1 &
    daemons+=($!); start 10 curl -fsS "http://127.0.0.1:$port/v2/"
    for name in whiteouts many; do
        target=127.0.0.1:$port/$name:1
        dhow tag "example.test/$name:1" "$target"; dhow push -q "$target" >/dev/null
        if [ -n "${CRANE:-}" ]; then
            check "crane pulls $name" "$CRANE" pull --insecure "$target" "$work/crane.tar"
            check "crane pushes $name" "$CRANE" push --insecure "$work/crane.tar" "127.0.0.1:$port/crane-$name:1"
            check "we pull it" dhow pull -q "127.0.0.1:$port/crane-$name:1"
            check "with the same id" same "$(id "$target")" "$(id "127.0.0.1:$port/crane-$name:1")"
        fi
        if [ -n "${ORAS:-}" ]; then
            check "oras copies $name" "$ORAS" cp --from-plain-http --to-plain-http "$target" "127.0.0.1:$port/oras-$name:1"
            check "we pull it" dhow pull -q "127.0.0.1:$port/oras-$name:1"
            check "with the same id" same "$(id "$target")" "$(id "127.0.0.1:$port/oras-$name:1")"
        fi
    done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
