#!/usr/bin/env bash
# The image of all platforms as one OCI archive:
#
#   docker/image.sh              the whole Dockerfile, compiling inside it       → dist/humidor.oci.tar
#   docker/image.sh prebuilt     the same image around what docker/build.sh left in dist/
#
# Further arguments go to docker buildx build (--no-cache, …). The digest depends on the commit and the toolchain only.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

know_source
need docker "docker/setup.sh engine installs an engine with buildx; or take Docker's own packages"
docker buildx version >/dev/null 2>&1 || die "docker has no buildx" "docker/setup.sh engine installs it (Debian: docker-buildx)"
docker version >/dev/null 2>&1 || die "no Docker engine answers at ${DOCKER_HOST:-the default socket}" \
    "start one, or name it in DOCKER_HOST; tests/delivery/with-engine COMMAND lends a private one"
[[ $(docker info --format '{{json .DriverStatus}}') == *containerd.snapshotter* || $(docker buildx inspect | sed -n 's/^Driver: *//p') != docker ]] ||
    die "this engine's own builder makes images of one platform only" \
        'set "features": {"containerd-snapshotter": true} in its daemon.json, or say docker buildx create --use'

contexts=()
if [[ ${1:-} == prebuilt ]]; then
    shift
    for arch in $(archs all); do
        [[ -x $ROOT/dist/$arch/humidor ]] || die "dist/$arch/humidor is not there" "docker/build.sh $arch makes it"
    done
    prebuilt=$(mktemp -d)
    trap 'rm -rf "$prebuilt"' EXIT
    mkdir "$prebuilt/empty"
    for arch in $(archs all); do
        # The revision is in the binary: one of another commit would get a wrong label here.
        grep -qF "$HUMIDOR_REVISION" "$ROOT/dist/$arch/humidor" ||
            die "dist/$arch/humidor is not of $HUMIDOR_REVISION" "docker/build.sh $arch makes it anew"
        mkdir "$prebuilt/$arch"
        cp "$ROOT/dist/$arch/humidor" "$prebuilt/$arch/"
    done
    # The first stage too, or buildx asks a registry for its base image.
    contexts=(--build-context "build=$prebuilt" --build-context "toolchain=$prebuilt")
fi

mkdir -p "$ROOT/dist"
docker buildx build --file "$ROOT/docker/Dockerfile" \
    --platform "$(targets | cut -d' ' -f3 | paste -sd,)" \
    --build-arg SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
    --build-arg HUMIDOR_REVISION="$HUMIDOR_REVISION" \
    --build-arg HUMIDOR_VERSION="$(version)" \
    --build-arg HUMIDOR_CREATED="$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
    ${RUST_IMAGE:+--build-arg RUST_IMAGE="$RUST_IMAGE"} ${HUMIDOR_RUST:+--build-arg HUMIDOR_RUST="$HUMIDOR_RUST"} \
    --provenance=false --sbom=false \
    --output "type=oci,dest=$ROOT/dist/humidor.oci.tar,rewrite-timestamp=true" \
    "${contexts[@]}" "$@" "$ROOT"
say "dist/humidor.oci.tar: $HUMIDOR_REVISION, index $(archive_digest "$ROOT/dist/humidor.oci.tar")"
