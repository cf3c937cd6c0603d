#!/usr/bin/env bash
# Do others understand our registry, and do we understand them? podman and skopeo of the distribution pull what dhow
# pushed and push it back; dhow pulls that; manifests and blobs are compared byte for byte.
#   conformance/interop.sh        as root; DHOW_BIN names another binary than dist/dhow
set -euo pipefail
cd "$(dirname "$0")/.."

DHOW=${DHOW_BIN:-$PWD/dist/dhow}
[ -x "$DHOW" ] || { echo "interop: no binary $DHOW: run cargo xtask dist" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "interop: run it as root: it installs packages and makes images" >&2; exit 1; }
need=()
for tool in podman skopeo curl jq; do command -v "$tool" >/dev/null || need+=("$tool"); done
[ -x /bin/busybox ] || need+=(busybox-static)
if [ ${#need[@]} -gt 0 ]; then
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${need[@]}" >/dev/null
fi

. conformance/beside.bash
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"

podman_() { podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs --cgroup-manager cgroupfs --events-backend none "$@"; }
skopeo_() { skopeo --policy "$work/policy.json" "$@"; }


ACCEPT='Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json'
digest() { curl -fsSI -H "$ACCEPT" "http://$registry/v2/$1/manifests/$2" | tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: //p'; }
# Everything that a tag leads to: the manifest and each blob as sha256 of its real bytes, sorted by role.
content() {
    local manifest blob
    manifest=$(curl -fsS -H "$ACCEPT" "http://$registry/v2/$1/manifests/$2" | tee "$work/manifest" | sha256sum)
    echo "manifest $manifest"
    for blob in $(jq -r '.config.digest, .layers[].digest' "$work/manifest"); do
        echo "$blob $(curl -fsS "http://$registry/v2/$1/blobs/$blob" | sha256sum)"
    done
}
true_digests() { content "$1" "$2" | tail -n +2 | while read -r name sum _; do [ "$name" = "sha256:$sum" ] || exit 1; done; }
image_id() { dhow image inspect --format '{{.Id}}' "$1"; }
layers() { dhow image inspect --format '{{json .RootFS.Layers}}' "$1"; }

echo "dhow:   $("$DHOW" --version)"
echo "podman: $(podman --version)"
echo "skopeo: $(skopeo --version)"
echo

serve

# An image of two layers with what tends to be lost: links, modes, owners, an empty folder, a removed file.
mkdir -p "$work/fs/bin" "$work/fs/empty"
cp /bin/busybox "$work/fs/bin/busybox"
ln -s busybox "$work/fs/bin/sh"; ln "$work/fs/bin/busybox" "$work/fs/bin/cat"
echo one >"$work/fs/one"; chown 12:34 "$work/fs/one"; chmod 4750 "$work/fs/one"; echo gone >"$work/fs/gone"
tar -C "$work/fs" -c . | dhow import -c 'CMD ["/bin/sh", "-c", "cat /two"]' - base:1 >/dev/null
mkdir "$work/context"
printf 'FROM base:1\nCOPY two /two\nLABEL by=dhow\n' >"$work/context/Dockerfile"; echo "two of dhow" >"$work/context/two"
dhow build -q -t ours:1 "$work/context" >/dev/null

dhow tag ours:1 "$registry/dhow/ours:1"
check "dhow pushes" dhow push "$registry/dhow/ours:1"
check "every blob in the registry has the digest of its bytes" true_digests dhow/ours 1

check "skopeo inspects what dhow pushed" skopeo_ inspect --tls-verify=false "docker://$registry/dhow/ours:1"
check "skopeo copies it to a folder" skopeo_ copy --src-tls-verify=false "docker://$registry/dhow/ours:1" "dir:$work/dir"
check "skopeo copies it back" skopeo_ copy --dest-tls-verify=false "dir:$work/dir" "docker://$registry/skopeo/ours:1"
check "that is byte for byte what dhow pushed" same "$(content dhow/ours 1)" "$(content skopeo/ours 1)"
check "skopeo copies between repositories of the registry" skopeo_ copy --src-tls-verify=false --dest-tls-verify=false "docker://$registry/dhow/ours:1" "docker://$registry/skopeo/mounted:1"
check "and that is the same, too" same "$(content dhow/ours 1)" "$(content skopeo/mounted 1)"
check "dhow pulls what skopeo pushed" dhow pull "$registry/skopeo/ours:1"
check "it is the same image" same "$(image_id ours:1)" "$(image_id "$registry/skopeo/ours:1")"

check "podman pulls what dhow pushed" podman_ pull --tls-verify=false "$registry/dhow/ours:1"
check "it has the same id there" same "$(image_id ours:1)" "sha256:$(podman_ image inspect --format '{{.Id}}' "$registry/dhow/ours:1")"
check "and the same manifest digest" same "$(digest dhow/ours 1)" "$(podman_ image inspect --format '{{.Digest}}' "$registry/dhow/ours:1")"
check "podman sees the same files" same "two of dhow 4750 12:34" "$(
    at=$(podman_ image mount "$registry/dhow/ours:1") && echo "$(cat "$at/two") $(stat -c '%a %u:%g' "$at/one")"
    podman_ image umount "$registry/dhow/ours:1" >/dev/null)"
podman_ tag "$registry/dhow/ours:1" "$registry/podman/ours:1"
check "podman pushes it back" podman_ push --tls-verify=false "$registry/podman/ours:1"
check "the config is byte for byte the same" same "$(content dhow/ours 1 | sed -n 2p)" "$(content podman/ours 1 | sed -n 2p)"
check "every blob that podman pushed has the digest of its bytes" true_digests podman/ours 1
check "dhow pulls what podman pushed" dhow pull "$registry/podman/ours:1"
check "it is the same image" same "$(image_id ours:1)" "$(image_id "$registry/podman/ours:1")"
check "with the same layers" same "$(layers ours:1)" "$(layers "$registry/podman/ours:1")"

# The other way: an image that podman made.
printf 'FROM %s/dhow/ours:1\nCOPY two /three\nENV MADE=podman\n' "$registry" >"$work/context/Dockerfile"
check "podman builds on it" podman_ build --tls-verify=false --isolation chroot -q -t "$registry/podman/theirs:1" "$work/context"
for format in oci v2s2; do
    check "podman pushes its own as $format" podman_ push --tls-verify=false --format "$format" "$registry/podman/theirs:1" "docker://$registry/podman/theirs:$format"
    check "dhow pulls it" dhow pull "$registry/podman/theirs:$format"
    check "dhow runs it" same "two of dhow" "$(dhow run --rm --network none "$registry/podman/theirs:$format" /bin/cat /three 2>&1)"
    dhow tag "$registry/podman/theirs:$format" "$registry/dhow/theirs:$format" || true
    check "dhow pushes it on" dhow push "$registry/dhow/theirs:$format"
    check "that is byte for byte what podman pushed" same "$(content podman/theirs "$format")" "$(content dhow/theirs "$format")"
done
check "podman pulls that" podman_ pull --tls-verify=false "$registry/dhow/theirs:oci"

# Archives.
check "podman loads what dhow saves" bash -c "'$DHOW' --root '$work/dhow' save ours:1 | podman --root '$work/podman' --runroot '$work/podman-run' --storage-driver vfs load"
podman_ save -q -o "$work/podman.tar" "$registry/podman/theirs:1" || true
podman_ save -q --format oci-archive -o "$work/podman-oci.tar" "$registry/podman/theirs:1" || true
check "dhow loads what podman saves" dhow load -i "$work/podman.tar"
check "dhow loads what podman saves as an OCI archive" dhow load -i "$work/podman-oci.tar"
check "the store is whole" dhow system check

echo
result
