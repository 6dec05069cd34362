#!/usr/bin/env bash
# A CycloneDX list of what is in each binary: docker/sbom.sh → dist/ARCH/humidor.cdx.json
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need python3 "docker/setup.sh build installs it (Debian: python3)"
know_source
for arch in $(archs "$@"); do
    binary=$ROOT/dist/$arch/humidor
    [[ -f $binary ]] || die "dist/$arch/humidor is not there" "docker/build.sh $arch makes it"
    grep -qF "$HUMIDOR_REVISION" "$binary" || die "dist/$arch/humidor is not of $HUMIDOR_REVISION" "docker/build.sh $arch makes it anew"
    "$ROOT/docker/sbom.py" "$binary" "$HUMIDOR_REVISION" >"$binary.cdx.json.part"
    mv "$binary.cdx.json.part" "$binary.cdx.json"
    say "dist/$arch/humidor.cdx.json"
done
