#!/usr/bin/env bash
# Images on their way, beside podman: pull, push, save, load, import, export, commit and rmi of three images from a registry
# on loopback. As root:
#   benches/pull.sh [rounds]
# deb is a Debian base in one layer, big some 900 MB in 20 layers, small50k 50,000 files in one layer. They are made once and
# kept in $IMAGES (default /var/tmp/dhow-bench-images); PODMAN is the peer's command, DHOW ours, FORMS the forms of layers.
# Every run has a new store and nothing is deleted between runs: ext4 does not reuse inodes freed in the last minutes, so a
# loop of pull and delete would measure the file system. Runs alternate, so that a machine that gets busier slows both. On
# a busy machine only the processor time says something: wall, user + system (all children), peak memory of one process.
set -euo pipefail
if [ -z "${DHOW_BENCH:-}" ]; then exec env DHOW_BENCH=1 unshare -m --propagation private "$0" "$@"; fi
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
cd "$(dirname "$0")/.."
DHOW=${DHOW:-$PWD/dist/dhow}
PODMAN=${PODMAN:-podman}
IMAGES=${IMAGES:-/var/tmp/dhow-bench-images}
FORMS=${FORMS:-directories erofs}
rounds=${1:-3}
port=${PORT:-5078}
registry="127.0.0.1:$port"
work=$(mktemp -d /var/tmp/dhow-bench.XXXXXX)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
command -v podman >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends podman; } >/dev/null
[ -x /usr/bin/time ] || apt-get install -y -q --no-install-recommends time >/dev/null

# A file system of many Debian packages, its files in 20 archives of about the same size.
big_layers() {
    command -v debootstrap >/dev/null || apt-get install -y -q --no-install-recommends debootstrap >/dev/null
    local packages=python3,perl,gcc,g++,git,ruby,nodejs,php-cli,vim,gdb,cmake,clang,golang-go
    debootstrap --variant=minbase --include=$packages bookworm "$work/root" >/dev/null
    (cd "$work/root" && find . \( -path ./dev -o -path ./proc -o -path ./sys \) -prune -o -type f -printf '%s\t%p\n') |
        sort -k2 > "$work/files"
    awk -F'\t' -v to="$work/part" '{all += $1; size[NR] = $1; name[NR] = $2}
        END {if (all > 907e6) all = 907e6
             for (at = 1; at <= NR && sum < all; at++) {printf "%s\n", name[at] > sprintf("%s%02d", to, int(sum / all * 20)); sum += size[at]}}' "$work/files"
    local part
    for part in "$work"/part*; do
        tar -C "$work/root" --no-recursion -T "$part" -cf "$IMAGES/big/${part##*/part}.tar"
    done
}

# 500 folders with 100 files of words each.
small_layer() {
    mkdir -p "$work/small"
    local folder
    for folder in $(seq 500); do
        mkdir "$work/small/$folder"
        head -c 220000 /dev/urandom | base64 -w 76 | split -l 38 -a 2 - "$work/small/$folder/f"
    done
    tar -C "$work/small" -cf "$IMAGES/small50k/00.tar" .
}

# Archives of image $1 become an image in the registry.
publish() {
    { echo FROM scratch; for tar in "$IMAGES/$1"/*.tar; do echo "ADD ${tar##*/} /"; done; } > "$IMAGES/$1/Dockerfile"
    "$DHOW" --root "$work/made" build -q -t "$registry/$1:1" "$IMAGES/$1" >/dev/null
    "$DHOW" --root "$work/made" push -q "$registry/$1:1" >/dev/null
}

make_images() {
    local image
    for image in deb big small50k; do
        [ -e "$IMAGES/$image/done" ] && continue
        mkdir -p "$IMAGES/$image"
        case $image in
            deb) "$DHOW" --root "$work/boot" bootstrap -q -t deb:1 debian:bookworm >/dev/null
                 "$DHOW" --root "$work/boot" create --name deb deb:1 true >/dev/null
                 "$DHOW" --root "$work/boot" export -o "$IMAGES/deb/00.tar" deb ;;
            big) big_layers ;;
            small50k) small_layer ;;
        esac
        touch "$IMAGES/$image/done"
    done
    "$DHOW" registry serve --root "$work/registry" --listen "$registry" >/dev/null 2>&1 & server=$!
    for _ in $(seq 50); do curl -sf "http://$registry/v2/" >/dev/null && break; sleep 0.1; done
    for image in deb big small50k; do publish "$image"; done
}

# Name of the figure, then the command: a line of wall, processor seconds and KiB.
measure() {
    local name=$1; shift
    if /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >/dev/null 2>"$work/err"; then
        awk -v name="$name" '{print name, $1, $2 + $3, $4}' "$work/time" >> "$work/figures"
    else
        echo "does not work: $*" >&2; cat "$work/err" >&2; exit 1
    fi
}

serial=0
fresh() { serial=$((serial + 1)); store="$work/s$serial"; }

ours() {
    local image=$1 form=$2 run
    fresh
    run=("$DHOW" --root "$store")
    "${run[@]}" system layers "$form"
    measure "pull $image dhow-$form" "${run[@]}" pull -q "$registry/$image:1"
    others "dhow-$form" "$image" "${run[@]}"
}

peers() {
    local image=$1 run
    fresh
    run=("$PODMAN" --root "$store" --runroot "$store-run")
    measure "pull $image podman" "${run[@]}" pull -q --tls-verify=false "$registry/$image:1"
    others podman "$image" "${run[@]}"
}

# The verbs after a pull, alike on both sides.
others() {
    local who=$1 image=$2 insecure=; shift 2
    [ "$who" = podman ] && insecure=--tls-verify=false
    measure "save $image $who" "$@" save -q -o "$store.tar" "$registry/$image:1"
    "$@" create --name c "$registry/$image:1" true >/dev/null
    measure "export $image $who" "$@" export -o "$store.flat" c
    measure "commit $image $who" "$@" commit -q c changed:1
    measure "import $image $who" "$@" import -q "$store.flat" imported:1
    "$@" tag imported:1 "$registry/new/$who-$serial:1"
    measure "push $image $who" "$@" push -q $insecure "$registry/new/$who-$serial:1"
    "$@" rm c >/dev/null
    measure "rmi $image $who" "$@" rmi -f "$registry/$image:1" changed:1 imported:1
    fresh
    case $who in
        podman) measure "load $image podman" "$PODMAN" --root "$store" --runroot "$store-run" load -q -i "${store%s*}s$((serial - 1)).tar" ;;
        dhow-*) "$DHOW" --root "$store" system layers "${who#dhow-}"
                measure "load $image $who" "$DHOW" --root "$store" load -q -i "${store%s*}s$((serial - 1)).tar" ;;
    esac
    rm -f "$work"/s*.tar "$work"/s*.flat
}

make_images
for _ in $(seq "$rounds"); do
    for image in deb small50k big; do
        for form in $FORMS; do ours "$image" "$form"; done
        peers "$image"
    done
done
echo "medians of $rounds: seconds, processor seconds, MiB of memory"
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
cut -d ' ' -f 1-3 "$work/figures" | sort -u | while read -r verb image who; do
    line=$(for field in 4 5 6; do
        awk -v verb="$verb" -v image="$image" -v who="$who" -v field="$field" \
            '$1 == verb && $2 == image && $3 == who {print $field}' "$work/figures" | median
    done | tr '\n' ' ')
    awk -v line="$line" -v verb="$verb" -v image="$image" -v who="$who" \
        'BEGIN {split(line, v, " "); printf "%-8s %-9s %-17s %8.2f %8.2f %6.0f\n", verb, image, who, v[1], v[2], v[3] / 1024}'
done
