#!/usr/bin/env bash
# Builds beside podman's and buildah's, and docker's where a daemon answers (BuildKit, and as `classic` the builder before it): all
# cached, nothing cached, one file changed, the price of a RUN, a context of 100,000 files, forty stages, Dhow itself. Each
# round runs every builder once, in turn; medians of all rounds, in milliseconds, and ours as a part of the best peer's. As root:
#   benches/build.sh [rounds]
# FILES, STAGES, DHOW (the binary) and BUILDERS ("dhow docker") may be set; PODMAN, BUILDAH and DOCKER are commands, which may have
# words before the program (`chroot /newer docker`); CASES="cached changed" runs only those. `self` is none of the usual cases:
# it compiles the runtime (SELF="-p dhow" says otherwise) with this machine's toolchain, which takes minutes for each.
set -euo pipefail
# crun refuses a machine that has both versions of control groups.
if [ -z "${DHOW_BENCH:-}" ]; then exec env DHOW_BENCH=1 unshare -m --propagation private "$0" "$@"; fi
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
cd "$(dirname "$0")/.."
DHOW=${DHOW:-$PWD/dist/dhow}
FILES=${FILES:-100000}
STAGES=${STAGES:-40}
CASES=${CASES:-cached cold changed run files stages}
SELF=${SELF:--p dhow-runc --example runc}
read -ra PODMAN <<< "${PODMAN:-podman}"
read -ra BUILDAH <<< "${BUILDAH:-buildah}"
read -ra DOCKER <<< "${DOCKER:-docker}"
rounds=${1:-7}
work=$(mktemp -d /var/tmp/dhow-bench.XXXXXX)
builders=${BUILDERS:-}
if [ -z "$builders" ]; then
    builders=dhow
    if command -v podman >/dev/null; then builders+=" podman"; fi
    if command -v buildah >/dev/null; then builders+=" buildah"; fi
    if "${DOCKER[@]}" info >/dev/null 2>&1; then builders+=" docker classic"; fi
fi
finish() {
    "$DHOW" --root "$work/store" system teardown >/dev/null 2>&1 || true
    for builder in $builders; do
        case $builder in
            podman | buildah) engine "$builder" rmi -af >/dev/null 2>&1 || true ;;
            docker) "${DOCKER[@]}" image rm -f dhow-bench-base dhow-bench-self dhow-bench-out >/dev/null 2>&1 || true ;;
        esac
    done
    rm -rf "$work"
}
trap finish EXIT

engine() {
    local builder=$1; shift
    case $builder in
        dhow) "$DHOW" --root "$work/store" "$@" ;;
        podman) "${PODMAN[@]}" --root "$work/p" --runroot "$work/pr" "$@" ;;
        buildah) "${BUILDAH[@]}" --root "$work/b" --runroot "$work/br" "$@" ;;
        docker) "${DOCKER[@]}" "$@" ;;
        classic) DOCKER_BUILDKIT=0 "${DOCKER[@]}" "$@" ;;
    esac
}
# bring BUILDER ARCHIVE NAME: the archive of a root as an image; classic has docker's.
bring() {
    case $1 in
        classic) ;;
        buildah) printf 'FROM scratch\nADD %s /\n' "$(basename "$2")" | engine buildah build -q -t "$3" -f - "$(dirname "$2")" ;;
        *) engine "$1" import "$2" "$3" ;;
    esac
}
build() {
    local builder=$1 context=$2; shift 2
    case $builder in
        podman | buildah) engine "$builder" build -q --layers --network none --isolation oci -t dhow-bench-out "$@" "$context" ;;
        *) engine "$builder" build -q --network none -t dhow-bench-out "$@" "$context" ;;
    esac
}
milliseconds() {
    local from to
    from=$(date +%s%N)
    "$@" >"$work/out" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
    to=$(date +%s%N)
    echo $(( (to - from) / 1000 )) | awk '{printf "%.1f\n", $1 / 1000}'
}
median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

# Name, what to do before each run (a function of the builder), context, flags.
measure() {
    local name=$1 before=$2 context=$3 builder line took ours best; shift 3
    for builder in $builders; do : > "$work/$builder.ms"; build "$builder" "$context" "$@" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; exit 1; }; done
    for _ in $(seq "$rounds"); do
        for builder in $builders; do
            "$before" "$builder"
            milliseconds build "$builder" "$context" "$@" >> "$work/$builder.ms"
        done
    done
    line="$name:"
    best=
    for builder in $builders; do
        took=$(median < "$work/$builder.ms")
        line="$line $builder $took ms;"
        if [ "$builder" = dhow ]; then ours=$took
        elif [ -z "$best" ] || awk -v took="$took" -v best="$best" 'BEGIN {exit !(took < best)}'; then best=$took; fi
    done
    [ -z "$best" ] || line="$line $(awk -v ours="$ours" -v best="$best" 'BEGIN {printf "%.3f", ours / best}') of the best"
    echo "${line%;}"
}
nothing() { :; }

mkdir -p "$work/base/bin" "$work/base/tmp"
cp "$(command -v busybox)" "$work/base/bin/busybox"
for applet in sh true echo cat; do ln -s busybox "$work/base/bin/$applet"; done
tar -C "$work/base" -cf "$work/base.tar" .
for builder in $builders; do bring "$builder" "$work/base.tar" dhow-bench-base >/dev/null; done
base=dhow-bench-base:latest

twelve="$work/twelve"
mkdir "$twelve"
for number in $(seq 50); do head -c 2000 /dev/urandom > "$twelve/file$number"; done
cat > "$twelve/Dockerfile" <<DOCKERFILE
FROM $base AS one
WORKDIR /src
COPY . .
RUN echo 1 > a
RUN echo 2 > b
RUN echo 3 > c
RUN echo 4 > d
FROM $base
WORKDIR /app
COPY --from=one /src /app
RUN echo 5 > e
RUN echo 6 > f
COPY file1 /etc/one
RUN echo 7 > g
CMD ["cat", "/app/e"]
DOCKERFILE
if [[ " $CASES " == *" cached "* ]]; then measure "12 steps in two stages, all cached" nothing "$twelve"; fi
if [[ " $CASES " == *" cold "* ]]; then measure "the same, nothing cached" nothing "$twelve" --no-cache; fi

one="$work/one"
mkdir "$one"
for number in $(seq 50); do head -c 2000 /dev/urandom > "$one/file$number"; done
printf 'FROM %s\nCOPY . /src\nRUN true\n' "$base" > "$one/Dockerfile"
change() { head -c 2000 /dev/urandom > "$one/file7"; }
if [[ " $CASES " == *" changed "* ]]; then measure "one of 50 files changed, COPY and RUN true" change "$one"; fi

if [[ " $CASES " == *" run "* ]]; then
    mkdir "$work/run"
    { echo "FROM $base"; for number in $(seq 10); do echo "RUN echo $number > /$number"; done; } > "$work/run/Dockerfile"
    measure "10 RUN without the cache (a tenth is the price of one, the command included)" nothing "$work/run" --no-cache
fi

if [[ " $CASES " == *" files "* ]]; then
    mkdir "$work/files"
    (cd "$work/files" && for folder in $(seq $(( FILES / 1000 ))); do
        mkdir "d$folder"
        for number in $(seq 1000); do echo "$folder $number" > "d$folder/f$number"; done
    done)
    printf 'FROM %s\nCOPY . /src\n' "$base" > "$work/files/Dockerfile"
    measure "a context of $FILES files, nothing changed" nothing "$work/files"
fi

if [[ " $CASES " == *" stages "* ]]; then
    mkdir "$work/stages"
    {
        echo "FROM $base AS top"
        for stage in $(seq "$STAGES"); do printf 'FROM top AS s%s\nRUN i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo %s > /r%s\n' "$stage" "$stage" "$stage"; done
        echo "FROM $base"
        for stage in $(seq "$STAGES"); do echo "COPY --from=s$stage /r$stage /"; done
    } > "$work/stages/Dockerfile"
    measure "$STAGES stages that one needs, without the cache" nothing "$work/stages" --no-cache
fi

if [[ " $CASES " == *" self "* ]]; then
    engine dhow bootstrap -q --include gcc --include libc6-dev -t dhow-bench-debian debian:bookworm-slim >/dev/null
    engine dhow create -q --name self dhow-bench-debian true >/dev/null
    # Through a folder: docker's import refuses an archive that names a folder twice.
    mkdir "$work/root"
    engine dhow export self | tar -C "$work/root" -x
    toolchain=$(rustc --print sysroot)
    cp -a "$toolchain/bin" "$toolchain/lib" "$work/root/usr/local/"
    tar -C "$work/root" -cf "$work/self.tar" .
    rm -rf "$work/root"
    for builder in $builders; do bring "$builder" "$work/self.tar" dhow-bench-self >/dev/null; done
    rm "$work/self.tar"
    mkdir "$work/self"
    git archive HEAD | tar -C "$work/self" -x
    (cd "$work/self" && cargo vendor --locked --quiet vendor >/dev/null)
    mkdir -p "$work/self/.cargo"
    printf '[source.crates-io]\nreplace-with = "vendor"\n[source.vendor]\ndirectory = "vendor"\n' >> "$work/self/.cargo/config.toml"
    printf 'FROM dhow-bench-self:latest\nWORKDIR /src\nCOPY . .\nRUN cargo build --offline --locked %s\n' "$SELF" > "$work/self/Dockerfile"
    printf '.git\n' > "$work/self/.dockerignore"
    measure "Dhow's own: cargo build $SELF, without the cache" nothing "$work/self" --no-cache
fi
