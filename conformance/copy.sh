#!/usr/bin/env bash
# Is `dhow copy` what skopeo's is? Images of several platforms go through both, in both directions; every folder, archive and
# repository is compared by the digests of its bytes.
#   conformance/copy.sh        DHOW_BIN names another binary than dist/dhow, SKOPEO and PODMAN other programs
set -euo pipefail
cd "$(dirname "$0")/.."

DHOW=${DHOW_BIN:-$PWD/dist/dhow}
[ -x "$DHOW" ] || { echo "copy: no binary $DHOW: run cargo xtask dist" >&2; exit 1; }
SKOPEO=${SKOPEO:-skopeo} PODMAN=${PODMAN:-podman}
for tool in "$SKOPEO" "$PODMAN" curl jq; do
    command -v "$tool" >/dev/null || { echo "copy: it needs $tool" >&2; exit 1; }
done

. conformance/beside.bash
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"

skopeo_() { "$SKOPEO" --policy "$work/policy.json" --tmpdir "$work" "$@"; }
podman_() { "$PODMAN" --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs --cgroup-manager cgroupfs --events-backend none "$@"; }


ACCEPT='Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json'
sum() { sha256sum | cut -d ' ' -f 1; }
# Everything that a name leads to, as digests of real bytes, sorted.
tree() { # repository reference
    local body; body=$(curl -fsS -H "$ACCEPT" "http://$registry/v2/$1/manifests/$2"; echo x); body=${body%x}
    printf %s "$body" | sum
    local digest
    for digest in $(printf %s "$body" | jq -r '.manifests[]?.digest'); do tree "$1" "$digest"; done
    for digest in $(printf %s "$body" | jq -r '.config.digest // empty, .layers[]?.digest'); do
        curl -fsS "http://$registry/v2/$1/blobs/$digest" | sum
    done
}
content() { tree "$1" "$2" | sort -u; }
# The same of the blobs of a layout, or of one in a tar.
blobs() { (cd "$1/blobs/sha256" && sha256sum -- * | cut -d ' ' -f 1 | sort); }
untar() { rm -rf "$work/untar"; mkdir "$work/untar"; tar -C "$work/untar" -xf "$1"; }
archived() { untar "$1"; blobs "$work/untar"; }

echo "dhow:   $("$DHOW" --version)"
echo "skopeo: $("$SKOPEO" --version)"
echo "podman: $("$PODMAN" --version)"
echo

serve

# Two platforms, made here; the second has a layer of the first.
for platform in amd64 arm64; do
    mkdir -p "$work/fs-$platform"
    head -c 300000 /dev/urandom >"$work/fs-$platform/noise"; echo "$platform" >"$work/fs-$platform/name"
    tar -C "$work/fs-$platform" -c . | dhow import --platform "linux/$platform" - "$registry/src/app:$platform" >/dev/null
    dhow push -q "$registry/src/app:$platform" >/dev/null
done
check "a list of two platforms is made" dhow manifest create "$registry/src/app:all" "$registry/src/app:amd64" "$registry/src/app:arm64"
check "and pushed" dhow manifest push "$registry/src/app:all"
source="docker://$registry/src/app:all"

check "skopeo reads the list" skopeo_ inspect --raw --tls-verify=false "$source"
check "dhow copies all of it to a layout" dhow copy -q --all "$source" "oci:$work/ours:1"
check "skopeo copies all of it to a layout" skopeo_ copy -q --all --src-tls-verify=false "$source" "oci:$work/theirs:1"
check "both layouts have the same blobs" same "$(blobs "$work/ours")" "$(blobs "$work/theirs")"
check "skopeo pushes dhow's layout" skopeo_ copy -q --all --dest-tls-verify=false "oci:$work/ours:1" "docker://$registry/skopeo/app:1"
check "that is what there was" same "$(content src/app all)" "$(content skopeo/app 1)"
check "dhow pushes skopeo's layout" dhow copy -q --all "oci:$work/theirs:1" "docker://$registry/dhow/app:1"
check "that is what there was, too" same "$(content src/app all)" "$(content dhow/app 1)"
check "dhow copies within the registry" dhow copy -q --all "$source" "docker://$registry/mounted/app:1"
check "and that, too" same "$(content src/app all)" "$(content mounted/app 1)"

check "dhow copies all of it to an archive" dhow copy -q --all "$source" "oci-archive:$work/ours.tar:1"
check "the archive has the same blobs" same "$(blobs "$work/ours")" "$(archived "$work/ours.tar")"
check "skopeo pushes the archive" skopeo_ copy -q --all --dest-tls-verify=false "oci-archive:$work/ours.tar:1" "docker://$registry/skopeo/archive:1"
check "that is what there was" same "$(content src/app all)" "$(content skopeo/archive 1)"
check "skopeo makes an archive" skopeo_ copy -q --all --src-tls-verify=false "$source" "oci-archive:$work/theirs.tar:1"
check "dhow pushes it" dhow copy -q --all "oci-archive:$work/theirs.tar:1" "docker://$registry/dhow/archive:1"
check "that is what there was" same "$(content src/app all)" "$(content dhow/archive 1)"

for platform in amd64 arm64; do
    check "dhow takes $platform out of the list" dhow copy -q --platform "linux/$platform" "$source" "docker://$registry/dhow/one:$platform"
    check "that is the image of $platform" same "$(content src/app "$platform")" "$(content dhow/one "$platform")"
done

check "dhow makes a docker archive" dhow copy -q "$source" "docker-archive:$work/ours-docker.tar:shop:1"
check "podman loads it" podman_ load -i "$work/ours-docker.tar"
config=$(curl -fsS -H "$ACCEPT" "http://$registry/v2/src/app/manifests/amd64" | jq -r .config.digest)
check "with the same id" same "$config" "sha256:$(podman_ image inspect --format '{{.Id}}' shop:1)"
check "skopeo reads it" skopeo_ copy -q --dest-tls-verify=false "docker-archive:$work/ours-docker.tar:shop:1" "docker://$registry/skopeo/docker:1"
check "with the same config" same "$config" "$(curl -fsS -H "$ACCEPT" "http://$registry/v2/skopeo/docker/manifests/1" | jq -r .config.digest)"
check "skopeo makes a docker archive" skopeo_ copy -q --override-arch amd64 --src-tls-verify=false "$source" "docker-archive:$work/theirs-docker.tar:shop:2"
check "dhow reads it" dhow copy -q "docker-archive:$work/theirs-docker.tar:shop:2" "docker://$registry/dhow/docker:1"
check "with the same config" same "$config" "$(curl -fsS -H "$ACCEPT" "http://$registry/v2/dhow/docker/manifests/1" | jq -r .config.digest)"
check "podman pulls that" podman_ pull -q --tls-verify=false "$registry/dhow/docker:1"
podman_ save -q -o "$work/podman.tar" shop:1 || true
check "dhow reads what podman saves" dhow copy -q "docker-archive:$work/podman.tar:shop:1" "docker://$registry/dhow/podman:1"

cp -r "$work/ours" "$work/damaged"
victim=$(find "$work/damaged/blobs/sha256" -size +100k | head -n 1)
printf x | dd of="$victim" bs=1 seek=5000 conv=notrunc status=none
check "a damaged layout is not copied" bash -c "! '$DHOW' copy -q --all 'oci:$work/damaged:1' 'docker://$registry/damaged/app:1'"
check "and gets no name" bash -c "! curl -fsS 'http://$registry/v2/damaged/app/manifests/1'"
check "skopeo writes beside dhow's image in one layout" skopeo_ copy -q --all --src-tls-verify=false "$source" "oci:$work/ours:2"
check "dhow finds both" bash -c "'$DHOW' copy -q --all 'oci:$work/ours:1' 'docker://$registry/both/app:1' && '$DHOW' copy -q --all 'oci:$work/ours:2' 'docker://$registry/both/app:2'"

echo
result
