#!/usr/bin/env bash
# Pulling a Debian image from a registry on loopback beside podman, and a build of which every step is cached. As root:
#   benches/images.sh [rounds]
# Every pull gets a new store and nothing is deleted between them: ext4 does not reuse inodes freed in the last minutes, so a
# loop of pull and delete would measure the file system.
set -euo pipefail
if [ -z "${DHOW_BENCH:-}" ]; then exec env DHOW_BENCH=1 unshare -m --propagation private "$0" "$@"; fi
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
cd "$(dirname "$0")/.."
DHOW=${DHOW:-$PWD/dist/dhow}
rounds=${1:-5}
port=${PORT:-5077}
work=$(mktemp -d /var/tmp/dhow-bench.XXXXXX)
registry=
trap '[ -z "$registry" ] || kill "$registry"; "$DHOW" --root "$work/store" system teardown >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
command -v podman >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends podman; } >/dev/null

"$DHOW" --root "$work/store" bootstrap -q -t "127.0.0.1:$port/debian:bookworm-slim" debian:bookworm-slim >/dev/null
"$DHOW" registry serve --root "$work/registry" --listen "127.0.0.1:$port" >/dev/null 2>&1 & registry=$!
for _ in $(seq 50); do "$DHOW" --root "$work/store" push -q "127.0.0.1:$port/debian:bookworm-slim" >/dev/null 2>&1 && break; sleep 0.2; done

milliseconds() { local from to; from=$(date +%s%N); "$@" >/dev/null 2>&1; to=$(date +%s%N); echo $(( (to - from) / 1000000 )); }
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
for round in $(seq "$rounds"); do
    milliseconds "$DHOW" --root "$work/d$round" pull -q "127.0.0.1:$port/debian:bookworm-slim" >> "$work/dhow.ms"
    milliseconds podman --root "$work/p$round" --runroot "$work/pr$round" pull -q --tls-verify=false "127.0.0.1:$port/debian:bookworm-slim" >> "$work/podman.ms"
done
dhow=$(median < "$work/dhow.ms"); podman=$(median < "$work/podman.ms")
echo "pull of debian:bookworm-slim, new store, median of $rounds: dhow $dhow ms, podman $podman ms, ratio $(awk "BEGIN {printf \"%.2f\", $podman / $dhow}") (goal >= 2)"

mkdir "$work/context"
for number in $(seq 50); do head -c 2000 /dev/urandom > "$work/context/file$number"; done
cat > "$work/context/Dockerfile" <<DOCKERFILE
FROM 127.0.0.1:$port/debian:bookworm-slim AS one
WORKDIR /src
COPY . .
RUN echo 1 > a
RUN echo 2 > b
RUN echo 3 > c
RUN echo 4 > d
FROM 127.0.0.1:$port/debian:bookworm-slim
WORKDIR /app
COPY --from=one /src /app
RUN echo 5 > e
RUN echo 6 > f
COPY file1 /etc/one
RUN echo 7 > g
CMD ["cat", "/app/e"]
DOCKERFILE
cold=$(milliseconds "$DHOW" --root "$work/store" build -q --network none -t twelve "$work/context")
for _ in $(seq 20); do milliseconds "$DHOW" --root "$work/store" build -q --network none -t twelve "$work/context" >> "$work/cached.ms"; done
echo "build of 12 steps in two stages: $cold ms cold, $(median < "$work/cached.ms") ms all cached, median of 20 (goal <= 40)"
