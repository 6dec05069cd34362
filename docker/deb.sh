#!/usr/bin/env bash
# Debian packages around the binaries of docker/build.sh, for boards without a container engine (Raspberry Pi OS, Armbian,
# Debian):
#
#   docker/deb.sh [amd64|arm64|armv7|all]…     → dist/humidor_VERSION_{amd64,arm64,armhf}.deb
#
# docker/deb/ has what is in them besides the program. The same bytes from the same source, wherever and whenever.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need dpkg-deb "Debian's dpkg packs them (elsewhere too: nix-shell -p dpkg, or brew install dpkg)"
know_source
umask 022
version=$(version) files=$ROOT/docker/deb
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One at a time, whatever the number of processors: xz's blocks are in the bytes.
export DPKG_DEB_THREADS_MAX=1 LC_ALL=C

# put MODE FILE PATH: into the package.
put() { install -D -m "$1" "$2" "$root/$3"; }

for arch in $(archs "$@"); do
    read -r _ _ _ _ _ _ _ debian < <(target "$arch")
    binary=$ROOT/dist/$arch/humidor package=$ROOT/dist/humidor_${version}_$debian.deb
    [[ -f $binary ]] || die "dist/$arch/humidor is not there" "docker/build.sh $arch makes it"
    grep -qF "$HUMIDOR_REVISION" "$binary" || die "dist/$arch/humidor is not of $HUMIDOR_REVISION" "docker/build.sh $arch makes it anew"
    root=$work/$arch
    put 755 "$binary" usr/bin/humidor
    for role in broker node; do
        put 644 "$files/humidor-$role.service" usr/lib/systemd/system/humidor-$role.service
        put 644 "$files/$role.toml" etc/humidor/$role.toml
    done
    put 644 "$files/sysusers.conf" usr/lib/sysusers.d/humidor.conf
    put 644 "$files/udev.rules" usr/lib/udev/rules.d/60-humidor.rules
    put 644 "$files/lintian-overrides" usr/share/lintian/overrides/humidor
    put 644 "$files/copyright" usr/share/doc/humidor/copyright
    # The licence's text, as that file wants it.
    sed -e '1,/^$/d' -e 's/^$/./' -e 's/^/ /' "$ROOT/LICENSE-MIT" >>"$root/usr/share/doc/humidor/copyright"
    printf 'humidor (%s) unstable; urgency=medium\n\n  * Commit %s.\n    What has changed is in CHANGELOG.md of the source.\n\n -- humidor maintainers <maintainers@humidor.example>  %s\n' \
        "$version" "$HUMIDOR_REVISION" "$(date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')" | gzip -9n >"$root/usr/share/doc/humidor/changelog.gz"
    mkdir "$root/DEBIAN"
    sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$debian/" -e "s/@KILOBYTES@/$(du -sk --apparent-size "$root" | cut -f1)/" "$files/control" >"$root/DEBIAN/control"
    printf '/etc/humidor/%s.toml\n' broker node >"$root/DEBIAN/conffiles"
    install -m 644 "$files/templates" "$root/DEBIAN/templates"
    install -m 755 "$files/postinst" "$files/prerm" "$files/postrm" "$root/DEBIAN/"
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    find "$root" -exec touch --no-dereference -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$root" "$package.part" >/dev/null
    mv "$package.part" "$package"
    say "dist/$(basename "$package"): $(stat -c %s "$package") bytes, sha256 $(sha256sum "$package" | cut -d' ' -f1)"
done
