#!/bin/sh
# Loads humidor's image for this machine from the bundle that this script came in; needs no network.
set -eu
cd "$(dirname "$0")"

stop() {
    printf 'install.sh: %s\n  -> %s\n' "$1" "$2" >&2
    exit 1
}

command -v docker >/dev/null || stop "docker is not there" "install it first (Debian, Raspberry Pi OS, Armbian: apt-get install docker.io)"
sha256sum --quiet -c SHA256SUMS || stop "the bundle is damaged" "copy it again"
# The engine's word, not the kernel's: a board may run 32-bit programs on a 64-bit kernel.
engine=$(docker version --format '{{.Server.Arch}}') || stop "the Docker engine does not answer" "start it, or run this as root or in group docker"
case $engine in
amd64) arch=amd64 ;;
arm64) arch=arm64 ;;
arm)
    arch=armv7
    # Raspberry Pi Zero and 1 have no ARMv7.
    case $(uname -m) in armv6*) stop "this board is ARMv6" "humidor needs ARMv7 or 64 bits" ;; esac
    ;;
*) stop "there is no image for $engine" "there is one for amd64, arm64 and ARMv7" ;;
esac
docker load --quiet --input "humidor-$arch.docker.tar"
version=$(cat VERSION)
docker tag "humidor:$version" humidor:latest
docker run --rm "humidor:$version" --version
echo "Next: compose.yaml (a broker) or compose.node.yaml (a board); both say how at their head."
