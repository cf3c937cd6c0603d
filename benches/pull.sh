#!/usr/bin/env bash
# Images on their way, beside podman, containerd and docker: pull, first run, push, save, load, import, export, commit and rmi of
# three images from a registry on loopback. As root:
#   benches/pull.sh [rounds]
# deb is a Debian base in one layer, big some 900 MB in 20 layers, small50k 50,000 files in one layer. They are made once
# and kept in $IMAGES (default /var/tmp/dhow-bench-images). DHOW is our binary, FORMS the forms of layers, PEERS those to
# measure beside it (default: those of podman, containerd and docker that are installed); PODMAN, CONTAINERD, CTR, DOCKERD
# and DOCKER are their commands, which may have words before the program (`chroot /newer podman`). ONLY=pull leaves the
# other verbs out, WHAT names the images.
#
# Every run has a new store and nothing is deleted between runs: ext4 does not reuse inodes freed in the last minutes, so a
# loop of pull and delete would measure the file system. Some 8 GB of disk for each round, forms and podman; $WORK says
# where (default /var/tmp). Runs alternate, so that a machine that gets busier slows both, and what one has written is
# on the disk before the next begins. On a busy machine only the processor time says something: wall, user + system (all
# children, and the peer's daemon), peak memory of the largest process.
set -euo pipefail
if [ -z "${DHOW_BENCH:-}" ]; then exec env DHOW_BENCH=1 unshare -m --propagation private "$0" "$@"; fi
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
cd "$(dirname "$0")/.."
DHOW=${DHOW:-$PWD/dist/dhow}
read -ra PODMAN <<< "${PODMAN:-podman}"
read -ra CONTAINERD <<< "${CONTAINERD:-containerd}"
read -ra CTR <<< "${CTR:-ctr}"
read -ra DOCKERD <<< "${DOCKERD:-dockerd}"
read -ra DOCKER <<< "${DOCKER:-docker}"
IMAGES=${IMAGES:-/var/tmp/dhow-bench-images}
FORMS=${FORMS-directories erofs}
ONLY=${ONLY:-}
WHAT=${WHAT:-deb small50k big}
rounds=${1:-3}
port=${PORT:-5078}
registry="127.0.0.1:$port"
# Has no layer of the images: what is pushed there is compressed and sent.
empty="127.0.0.1:$((port + 1))"
work=$(mktemp -d "${WORK:-/var/tmp}/dhow-bench.XXXXXX")
once=(run --rm --network none -v /bin/busybox:/busybox:ro)
program=(/busybox true)
servers=()
daemon=
trap 'for pid in $daemon "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
if [ -z "${PEERS+set}" ]; then
    PEERS=
    if command -v podman >/dev/null; then PEERS+=" podman"; fi
    if command -v containerd >/dev/null && command -v ctr >/dev/null; then PEERS+=" containerd"; fi
    if command -v dockerd >/dev/null && command -v docker >/dev/null; then PEERS+=" docker"; fi
fi
[ -x /bin/busybox ] || apt-get install -y -q --no-install-recommends busybox-static >/dev/null
[ -x /usr/bin/time ] || apt-get install -y -q --no-install-recommends time >/dev/null

# A file system of many Debian packages, its files in 20 archives of about the same size.
big_layers() {
    command -v debootstrap >/dev/null || apt-get install -y -q --no-install-recommends debootstrap >/dev/null
    local packages=python3,perl,gcc,g++,git,ruby,nodejs,php-cli,vim,gdb,cmake,clang,golang-go
    debootstrap --variant=minbase --include=$packages bookworm "$work/root" >"$work/err" || { tail -n 5 "$work/err" >&2; exit 1; }
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
    for image in $WHAT; do
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
    local at
    for at in "$registry" "$empty"; do
        "$DHOW" registry serve --root "$work/registry-$at" --listen "$at" >/dev/null 2>&1 & servers+=($!)
        wait_for curl -sf "http://$at/v2/"
    done
    for image in $WHAT; do publish "$image"; done
}

# Until a command works.
wait_for() {
    for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    echo "does not come up: $*" >&2
    exit 1
}

# Processor seconds of the daemon and the children it has waited for; 0 without one.
spent() { [ -n "$daemon" ] && awk -v hz="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); print ($12 + $13 + $14 + $15) / hz}' "/proc/$daemon/stat" || echo 0; }
# KiB that it had at most.
peak() { [ -n "$daemon" ] && awk '/^VmHWM/ {print $2}' "/proc/$daemon/status" || echo 0; }

# Name of the figure, then the command: a line of wall, processor seconds and KiB.
measure() {
    local name=$1 before; shift
    sync
    if [ -n "$daemon" ]; then echo 5 > "/proc/$daemon/clear_refs"; fi
    before=$(spent)
    if /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >/dev/null 2>"$work/err"; then
        awk -v name="$name" -v daemon="$(spent) $before" -v peak="$(peak)" \
            '{split(daemon, at, " "); print name, $1, $2 + $3 + at[1] - at[2], (peak > $4 ? peak : $4)}' "$work/time" >> "$work/figures"
    else
        echo "does not work: $*" >&2; cat "$work/err" >&2; exit 1
    fi
}

# The first run, and both together.
first() {
    local image=$1 who=$2; shift 2
    measure "run $image $who" "$@"
    tail -n 2 "$work/figures" | awk -v name="first $image $who" \
        '{wall += $4; spent += $5; if ($6 > peak) peak = $6} END {print name, wall, spent, peak}' >> "$work/figures"
}

serial=0
fresh() { serial=$((serial + 1)); store="$work/s$serial"; mkdir "$store"; }

with_dhow() {
    local image=$1 form=$2 run
    fresh
    run=("$DHOW" --root "$store")
    "${run[@]}" system layers "$form"
    measure "pull $image dhow-$form" "${run[@]}" pull -q "$registry/$image:1"
    first "$image" "dhow-$form" "${run[@]}" "${once[@]}" "$registry/$image:1" "${program[@]}"
    [ "$ONLY" = pull ] || others "dhow-$form" "$image" "${run[@]}"
}

with_podman() {
    local image=$1 run
    fresh
    run=("${PODMAN[@]}" --root "$store" --runroot "$store-run")
    measure "pull $image podman" "${run[@]}" pull -q --tls-verify=false "$registry/$image:1"
    first "$image" podman "${run[@]}" "${once[@]}" "$registry/$image:1" "${program[@]}"
    [ "$ONLY" = pull ] || others podman "$image" "${run[@]}"
}

# Fetches and unpacks, as the others do.
with_containerd() {
    local image=$1 run
    fresh
    mkdir "$store/run"
    "${CONTAINERD[@]}" --root "$store/root" --state "$store/run" --address "$store/run/c.sock" >/dev/null 2>"$work/err" & daemon=$!
    run=("${CTR[@]}" --address "$store/run/c.sock")
    wait_for "${run[@]}" version
    measure "pull $image containerd" "${run[@]}" image pull --plain-http "$registry/$image:1"
    first "$image" containerd "${run[@]}" run --rm --mount "type=bind,src=/bin/busybox,dst=/busybox,options=rbind:ro" \
        "$registry/$image:1" "first-$serial" "${program[@]}"
    stop
}

with_docker() {
    local image=$1 run
    fresh
    echo '{}' > "$store/config"
    "${DOCKERD[@]}" --config-file "$store/config" --data-root "$store/root" --exec-root "$store/run" -p "$store/pid" \
        -H "unix://$store/d.sock" --bridge none --iptables=false --ip6tables=false >/dev/null 2>"$work/err" & daemon=$!
    run=("${DOCKER[@]}" -H "unix://$store/d.sock")
    wait_for "${run[@]}" info
    measure "pull $image docker" "${run[@]}" pull -q "$registry/$image:1"
    first "$image" docker "${run[@]}" "${once[@]}" "$registry/$image:1" "${program[@]}"
    [ "$ONLY" = pull ] || others docker "$image" "${run[@]}"
    stop
}

stop() { kill "$daemon"; wait "$daemon" 2>/dev/null || true; daemon=; }

# The verbs after a pull, alike on all sides.
others() {
    local who=$1 image=$2 archive=$store; shift 2
    local -a insecure=() quiet=() loader
    if [ "$who" = podman ]; then insecure=(--tls-verify=false) quiet=(-q); fi
    measure "save $image $who" "$@" save "${quiet[@]}" -o "$archive.tar" "$registry/$image:1"
    "$@" create --name cc "$registry/$image:1" true >/dev/null
    measure "export $image $who" "$@" export -o "$archive.flat" cc
    measure "commit $image $who" "$@" commit "${quiet[@]}" cc changed:1
    measure "import $image $who" "$@" import "${quiet[@]}" "$archive.flat" imported:1
    "$@" tag "$registry/$image:1" "$empty/$who-$serial:1"
    measure "push $image $who" "$@" push -q "${insecure[@]}" "$empty/$who-$serial:1"
    "$@" rm cc >/dev/null
    measure "rmi $image $who" "$@" rmi -f "$registry/$image:1" changed:1 imported:1 "$empty/$who-$serial:1"
    case $who in
        podman) fresh; loader=("${PODMAN[@]}" --root "$store" --runroot "$store-run") ;;
        # Nothing is in its store any more.
        docker) loader=("$@") ;;
        dhow-*) fresh; loader=("$DHOW" --root "$store"); "${loader[@]}" system layers "${who#dhow-}" ;;
    esac
    measure "load $image $who" "${loader[@]}" load -q -i "$archive.tar"
    rm -f "$archive.tar" "$archive.flat"
}

make_images
for _ in $(seq "$rounds"); do
    for image in $WHAT; do
        for form in $FORMS; do with_dhow "$image" "$form"; done
        for peer in $PEERS; do "with_$peer" "$image"; done
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
