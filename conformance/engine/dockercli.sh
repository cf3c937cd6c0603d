#!/usr/bin/env bash
# The end-to-end tests of docker's own command line, with our program in docker's place. The caller has the built test programs;
# nothing of them is built or changed. Every program runs in a box of its own.
set -uo pipefail
name=dockercli
# shellcheck source=box.sh
. "$(dirname "$0")/box.sh"

usage() {
    cat >&2 <<USAGE
usage: conformance/engine/$name.sh [--dhow BIN] [--peer DOCKER] [--file NAME]... [--only REGEX] [--plugins DIR] [--logs DIR] --sources DIR SUITE
  SUITE          the folder of the test programs, each called after its package: e2e-container.test, e2e-image.test...
  --sources DIR  the checkout, for files beside the tests
  --dhow BIN     the binary (default: dist/dhow)
  --peer DOCKER  run this docker instead, whose daemon runs already, here and without a box: for the other column. The name
                 registry must lead to 127.0.0.1
  --file NAME    only this program, as container; may be given again (default: all that there are)
  --only REGEX   only the tests whose name matches
  --plugins DIR  the folder of the plugins that the program cli-plugins runs: docker-helloworld, docker-badmeta...
  --logs DIR     keep the output of every program there
Run it as root.
USAGE
    exit 2
}

make_images() {
    local root=$work/rootfs image
    fill_root "$root"
    tar -C "$root" -cf "$work/root.tar" .
    for image in alpine:frozen busybox:frozen; do
        "$dhow" --root "$work/maker" import -m "$image" -c 'CMD ["/bin/sh"]' \
            -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/root.tar" "registry:5000/$image" >/dev/null || return 1
        "$dhow" --root "$work/maker" tag "registry:5000/$image" "${image%%:*}:latest" || return 1
    done
    "$dhow" --root "$work/maker" save -o "$work/images.tar" registry:5000/{alpine,busybox}:frozen {alpine,busybox}:latest
}

# Inside the box: our program as docker, and the names of the suite's registry.
furnish() {
    own_machine
    printf '127.0.0.1 localhost box registry\n' >"$work/hosts"
    mount --bind "$work/hosts" /etc/hosts
    mkdir -p "$work/bin" "$work/tmp" "$work/home"
    printf '#!/bin/bash\nDHOW_ROOT=%s DHOW_INSECURE_REGISTRIES=registry:5000 exec -a docker %s "$@"\n' "$work/r" "$dhow" >"$work/bin/docker"
    chmod 755 "$work/bin/docker"
    export PATH=$work/bin:$PATH HOME=$work/home TMPDIR=$work/tmp
}

inside() {
    local file arguments=(-test.v -test.timeout "$((600 * patience))s")
    [ -n "$peer" ] || furnish
    "$dhow" --root "$work/maker" registry serve --listen 127.0.0.1:5000 2>"$work/registry.log" &
    sleep 1
    docker load -q -i "$work/images.tar" >/dev/null || die "the images do not load"
    for file in alpine busybox; do docker push "registry:5000/$file:frozen" >/dev/null 2>&1; done
    export TEST_DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock} TEST_SKIP_PLUGIN_TESTS=1
    [ -z "$only" ] || arguments+=(-test.run "$only")
    for file in "${files[@]}"; do
        (cd "$sources/e2e/$file" && exec "$suite/e2e-$file.test" "${arguments[@]}") >"$logs/$file.log" 2>&1 </dev/null
        note_go "$file" "$logs/$file.log"
    done
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
            --plugins) DOCKER_CLI_E2E_PLUGINS_EXTRA_DIRS=$(realpath "${2:?}"); export DOCKER_CLI_E2E_PLUGINS_EXTRA_DIRS; shift 2 ;;
            --logs) keep=$(realpath -m "${2:?}"); shift 2 ;;
            -*) usage ;;
            *) [ -z "$suite" ] || usage; suite=$(realpath "$1"); shift ;;
        esac
    done
    [ -n "$suite" ] && [ -n "$sources" ] || usage
    [ "$(id -u)" = 0 ] || die "run it as root"
    ls "$suite"/e2e-*.test >/dev/null 2>&1 || die "no e2e-*.test in $suite"
    dhow=$(realpath "$dhow")
    [ -x "$dhow" ] || die "no binary $dhow"
    for tool in busybox python3 ip; do command -v "$tool" >/dev/null || die "no $tool"; done
    if [ ${#files[@]} = 0 ]; then
        for tool in "$suite"/e2e-*.test; do
            tool=$(basename "$tool" .test)
            files+=("${tool#e2e-}")
        done
    fi
    patience=${DHOW_SUITE_PATIENCE:-1}
    port=5000
    work=$(mktemp -d /tmp/dc-XXXXXX)
    chmod 755 "$work"
    logs=${keep:-$work/logs}
    mkdir -p "$logs"
    : >"$work/results"
    make_images || die "cannot make the images"
    inside_box_or_beside furnish
}

main "$@"
