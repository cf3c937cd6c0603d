#!/usr/bin/env bash
# Builds beside podman's, and docker's where a daemon answers: all cached, one file changed, the price of a RUN, a context of
# 100,000 files, forty stages. Each round runs every builder once, in turn; medians of all rounds, in milliseconds. As root:
#   benches/build.sh [rounds]
# FILES, STAGES and DHOW (the binary) may be set; CASES="cached changed" runs only those.
set -euo pipefail
# crun refuses a machine that has both versions of control groups.
if [ -z "${DHOW_BENCH:-}" ]; then exec env DHOW_BENCH=1 unshare -m --propagation private "$0" "$@"; fi
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
cd "$(dirname "$0")/.."
DHOW=${DHOW:-$PWD/dist/dhow}
FILES=${FILES:-100000}
STAGES=${STAGES:-40}
CASES=${CASES:-cached changed run files stages}
rounds=${1:-7}
work=$(mktemp -d /var/tmp/dhow-bench.XXXXXX)
builders=dhow
if command -v podman >/dev/null; then builders="$builders podman"; fi
if docker info >/dev/null 2>&1; then builders="$builders docker"; fi
finish() {
    "$DHOW" --root "$work/store" system teardown >/dev/null 2>&1 || true
    if [[ $builders == *podman* ]]; then podman --root "$work/p" --runroot "$work/pr" rmi -af >/dev/null 2>&1 || true; fi
    if [[ $builders == *docker* ]]; then docker image rm -f dhow-bench-base dhow-bench-out >/dev/null 2>&1 || true; fi
    rm -rf "$work"
}
trap finish EXIT

engine() {
    case $1 in
        dhow) shift; "$DHOW" --root "$work/store" "$@" ;;
        podman) shift; podman --root "$work/p" --runroot "$work/pr" "$@" ;;
        docker) shift; docker "$@" ;;
    esac
}
build() {
    local builder=$1 context=$2; shift 2
    case $builder in
        dhow) engine dhow build -q --network none -t dhow-bench-out "$@" "$context" ;;
        podman) engine podman build -q --layers --network none --isolation oci -t dhow-bench-out "$@" "$context" ;;
        docker) engine docker build -q --network none -t dhow-bench-out "$@" "$context" ;;
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
    local name=$1 before=$2 context=$3 builder line; shift 3
    for builder in $builders; do : > "$work/$builder.ms"; build "$builder" "$context" "$@" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; exit 1; }; done
    for _ in $(seq "$rounds"); do
        for builder in $builders; do
            "$before" "$builder"
            milliseconds build "$builder" "$context" "$@" >> "$work/$builder.ms"
        done
    done
    line="$name:"
    for builder in $builders; do line="$line $builder $(median < "$work/$builder.ms") ms;"; done
    echo "${line%;}"
}
nothing() { :; }

mkdir -p "$work/base/bin" "$work/base/tmp"
cp "$(command -v busybox)" "$work/base/bin/busybox"
for applet in sh true echo cat; do ln -s busybox "$work/base/bin/$applet"; done
tar -C "$work/base" -cf "$work/base.tar" .
for builder in $builders; do engine "$builder" import "$work/base.tar" dhow-bench-base >/dev/null 2>&1; done
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
