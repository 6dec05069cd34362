#!/usr/bin/env bash
# One file for a plant without the internet, from dist/humidor.oci.tar:
#
#   docker/bundle.sh             → dist/humidor-VERSION-bundle.tar
#
# In it: the image of all platforms as pushed (for a registry), one image a platform for docker load, the Debian packages,
# compose files, checksums, and an installer that picks the platform.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

archive=$ROOT/dist/humidor.oci.tar
need skopeo "docker/setup.sh engine installs it (Debian: skopeo)"
[[ -f $archive ]] || die "dist/humidor.oci.tar is not there" "docker/image.sh makes it"
know_source

version=$(version) name=humidor-$(version)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/$name"
cp "$archive" "$ROOT/docker/compose.yaml" "$ROOT/docker/compose.node.yaml" "$work/$name/"
install -m 755 "$ROOT/docker/install.sh" "$work/$name/"
# Boards without an engine. Of the binaries in dist/, which image.sh took too.
"$ROOT/docker/deb.sh" all
cp "$ROOT/dist/humidor_$version"_*.deb "$work/$name/"
# For the next bundle; that of this one has to come another way.
[[ ! -f $ROOT/docker/humidor.pub ]] || cp "$ROOT/docker/humidor.pub" "$work/$name/"
while read -r arch _ platform _; do
    IFS=/ read -r os architecture variant <<<"$platform"
    skopeo copy --quiet --override-os "$os" --override-arch "$architecture" ${variant:+--override-variant "$variant"} \
        "oci-archive:$archive" "docker-archive:$work/$name/humidor-$arch.docker.tar:humidor:$version"
done < <(targets)
# Of the image, not of this work tree: that is what the bundle carries.
archive_digest "$archive" >"$work/$name/DIGEST"
printf '%s\n' "$version" >"$work/$name/VERSION"
(cd "$work/$name" && sha256sum -- * >SHA256SUMS)
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf "$ROOT/dist/$name-bundle.tar.part" "$name"
mv "$ROOT/dist/$name-bundle.tar.part" "$ROOT/dist/$name-bundle.tar"
say "dist/$name-bundle.tar: $(stat -c %s "$ROOT/dist/$name-bundle.tar") bytes; on the board: tar -xf, then $name/install.sh"
