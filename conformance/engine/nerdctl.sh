#!/usr/bin/env bash
# The tests of nerdctl that also fit docker (`-test.target=docker`), with our program as docker. The caller has the built test
# programs; nothing of them is built or changed. Every program runs in a box of its own: what a test leaves ends with it.
set -uo pipefail
name=nerdctl
# shellcheck source=box.sh
. "$(dirname "$0")/box.sh"

usage() {
    cat >&2 <<USAGE
usage: conformance/engine/$name.sh [--dhow BIN] [--peer DOCKER] [--file NAME]... [--only REGEX] [--sources DIR] [--logs DIR] SUITE
  SUITE          the folder of the test programs, each called as its package: container.test, image.test...
  --dhow BIN     the binary (default: dist/dhow)
  --peer DOCKER  run this docker instead, whose daemon runs already, here and without a box: for the other column. The daemon
                 must go to 127.0.0.1:80 for ghcr.io (a name in /etc/hosts and --insecure-registry ghcr.io) and for docker.io
                 (--registry-mirror)
  --file NAME    only this program, as container; may be given again (default: all that there are)
  --only REGEX   only the tests whose name matches
  --sources DIR  the sources, for tests that read files beside them
  --logs DIR     keep the output of every program there
Run it as root.
USAGE
    exit 2
}

# Images that the tests ask for by name: name, program, text of a web page.
stand_ins=(
    ghcr.io/stargz-containers/alpine:3.13-org
    ghcr.io/containerd/busybox:1.36
    ghcr.io/stargz-containers/nginx:1.19-alpine-org
    docker.io/library/alpine:latest
    docker.io/library/busybox:latest
    docker.io/library/hello-world:latest
)

# One archive with every image, each an image of its own.
make_images() {
    local root=$work/rootfs image command
    fill_root "$root"
    mkdir -p "$root/usr/share/nginx/html"
    echo '<title>Welcome to nginx!</title>' >"$root/usr/share/nginx/html/index.html"
    tar -C "$root" -cf "$work/root.tar" .
    export DHOW_INSECURE_REGISTRIES=127.0.0.1:$port
    for image in "${stand_ins[@]}"; do
        case $image in
            *nginx*) command='["httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"]' ;;
            *hello-world*) command='["echo", "Hello from Docker!"]' ;;
            *) command='["/bin/sh"]' ;;
        esac
        "$dhow" --root "$work/maker" import -m "$image" -c "CMD $command" \
            -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/root.tar" "$image" >/dev/null || return 1
        "$dhow" --root "$work/maker" tag "$image" "127.0.0.1:$port/${image#*/}" || return 1
        "$dhow" --root "$work/maker" push -q "127.0.0.1:$port/${image#*/}" >/dev/null || return 1
    done
    "$dhow" --root "$work/maker" save -o "$work/images.tar" "${stand_ins[@]}"
}

# Inside the box: our program as docker, and the registry's names.
furnish() {
    own_machine
    "$dhow" --root "$work/maker" registry serve --listen "127.0.0.1:$port" 2>"$work/registry.log" &
    mkdir -p /etc/containers
    mount -t tmpfs tmpfs /etc/containers
    local prefix
    for prefix in ghcr.io docker.io; do
        printf '[[registry]]\nprefix = "%s"\nlocation = "127.0.0.1:%s"\ninsecure = true\n' $prefix "$port"
    done >/etc/containers/registries.conf
    mkdir -p "$work/bin" "$work/tmp" "$work/home"
    # Tests run their programs with few variables; and they want to see a compose.
    cat >"$work/bin/docker" <<SCRIPT
#!/bin/bash
case "\$1 \$2" in "compose version") echo 'no compose yet'; exit ;; esac
DHOW_ROOT=$work/r exec -a docker $dhow "\$@"
SCRIPT
    chmod 755 "$work/bin/docker"
    export PATH=$work/bin:$PATH HOME=$work/home TMPDIR=$work/tmp
    await_registry
}

run_file() {
    local log=$logs/$1.log place=$suite arguments=(-test.v -test.target=docker -test.timeout "$((1200 * patience))s")
    [ -z "$only" ] || arguments+=(-test.run "$only")
    [ -z "$sources" ] || place=$sources/cmd/nerdctl/${1#root}
    (cd "$place" && exec "$suite/$1.test" "${arguments[@]}") >"$log" 2>&1 </dev/null
    note_go "$1" "$log"
}

inside() {
    local file
    if [ -n "$peer" ]; then
        "$dhow" --root "$work/maker" registry serve --listen 127.0.0.1:80 2>"$work/registry.log" &
        sleep 1
    else
        furnish
    fi
    docker load -q -i "$work/images.tar" >/dev/null || die "the images do not load"
    for file in "${files[@]}"; do run_file "$file"; done
}

main() {
    local tool
    only='' suite='' keep='' peer='' sources='' files=() dhow=$(dirname "$0")/../../dist/dhow
    while [ $# -gt 0 ]; do
        case $1 in
            --dhow) dhow=${2:?}; shift 2 ;;
            --peer) peer=$(realpath "${2:?}"); shift 2 ;;
            --file) files+=("${2:?}"); shift 2 ;;
            --only) only=${2:?}; shift 2 ;;
            --sources) sources=$(realpath "${2:?}"); shift 2 ;;
            --logs) keep=$(realpath -m "${2:?}"); shift 2 ;;
            -*) usage ;;
            *) [ -z "$suite" ] || usage; suite=$(realpath "$1"); shift ;;
        esac
    done
    [ -n "$suite" ] || usage
    [ "$(id -u)" = 0 ] || die "run it as root"
    ls "$suite"/*.test >/dev/null 2>&1 || die "no *.test in $suite"
    dhow=$(realpath "$dhow")
    [ -x "$dhow" ] || die "no binary $dhow"
    for tool in busybox python3 ip; do command -v "$tool" >/dev/null || die "no $tool"; done
    if [ ${#files[@]} = 0 ]; then
        for tool in "$suite"/*.test; do files+=("$(basename "$tool" .test)"); done
    fi
    patience=${DHOW_SUITE_PATIENCE:-1}
    port=$(shuf -i 20000-26000 -n 1)
    # Not below /tmp, which tests look for in lists of mounts.
    work=$(mktemp -d /var/lib/nc-XXXXXX)
    chmod 755 "$work"
    logs=${keep:-$work/logs}
    mkdir -p "$logs"
    : >"$work/results"
    "$dhow" --root "$work/maker" registry serve --listen "127.0.0.1:$port" 2>/dev/null &
    local registry=$!
    sleep 0.5
    make_images || die "cannot make the images"
    kill "$registry"; wait "$registry" 2>/dev/null
    inside_box_or_beside furnish run_file
}

main "$@"
