#!/bin/sh
# Builds docs/Dockerfile with buildah and tries the image, as root: `make test-container`. No registry is asked: the base
# is a Debian 12 that mmdebstrap makes from this machine's mirror. The last line is `N passed, N failed, N skipped`.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}/container
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
proxy=127.0.0.1:${PORT:-18080} api=127.0.0.1:9080
passed=0 failed=0

check() { # name command...
    name=$1; shift
    if "$@" >"$build/check.log" 2>&1; then passed=$((passed + 1)); echo "ok   $name"
    else failed=$((failed + 1)); echo "FAIL $name"; sed 's/^/     | /' "$build/check.log" | tail -n 20; fi
}
finish() {
    for name in $(buildah containers -q 2>/dev/null); do buildah rm "$name" >/dev/null 2>&1; done
    echo "$passed passed, $failed failed, 0 skipped"
    [ "$failed" -eq 0 ]
    exit
}
make_base() {
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | sort -u | grep '/debian/$' | head -n 1)
    [ -n "$mirror" ] || { echo "apt knows no mirror of Debian 12"; return 1; }
    [ -e "$build/base.tar" ] || mmdebstrap --mode=root --variant=minbase --components=main bookworm "$build/base.tar" \
        "deb $mirror bookworm main" || return 1
    base=$(buildah from scratch) && buildah add -q "$base" "$build/base.tar" / && buildah commit -q "$base" localhost/debian:12
}
image() { buildah bud --format docker --network host --build-arg BASE=localhost/debian:12 -f docs/Dockerfile -t sluice .; }
start() { # log buildah-from-options...
    log=$1; shift
    container=$(buildah from "$@" localhost/sluice) || return 1
    buildah run --isolation chroot "$container" -- sluice -l "$proxy" --block-outbound loopback,multicast,local --drain 5 \
        --api "$api" >"$log" 2>&1 &
    i=0
    while [ $i -lt 100 ] && ! grep -q "listening on\|io_uring" "$log"; do sleep 0.1; i=$((i + 1)); done
}
process() { # the program itself, by the listener that nobody else has
    for folder in /proc/[0-9]*; do
        tr '\0' ' ' <"$folder/cmdline" 2>/dev/null | grep -q "bin/sluice -l $proxy " && basename "$folder" && return
    done
    return 1
}
healthy() { buildah run --isolation chroot "$container" -- curl -fsS -o /dev/null "http://$api/healthy"; }
refused() { # what inner networks are to clients
    out=$(curl -sS -m 5 -x "socks5h://$proxy" "http://127.0.0.1:9/" 2>&1); echo "$out"; echo "$out" | grep -q '(2)'
}
stops() { kill "$1" && i=0 && while [ -e "/proc/$1" ] && [ $i -lt 80 ]; do sleep 0.1; i=$((i + 1)); done; [ ! -e "/proc/$1" ]; }

mkdir -p "$build"
check "a base image" make_base
check "docs/Dockerfile builds" image
[ "$failed" -eq 0 ] || finish
start "$build/run.log" --security-opt "seccomp=$PWD/docs/seccomp.json"
pid=$(process)
check "it runs under docs/seccomp.json" grep "listening on $proxy" "$build/run.log"
check "the health check" healthy
check "inner networks are closed" refused
check "it stops before docker's 10 s" stops "${pid:-0}"
start "$build/default.log"
check "the default profile is named" grep "docs/seccomp.json" "$build/default.log"
finish
