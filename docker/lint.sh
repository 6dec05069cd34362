#!/usr/bin/env bash
# Every shell script, the Dockerfiles and Nix's files: shellcheck, hadolint, nixfmt.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
linters=$(tools_folder lint)/bin
# The pinned ones before those of nix develop, which are of another version.
PATH=$linters:$PATH
for linter in shellcheck hadolint nixfmt; do
    need "$linter" "docker/setup.sh lint installs shellcheck, hadolint and nixfmt; nix develop has them"
done
mapfile -t scripts < <(git grep -lE '^#!.*bash|^# shellcheck shell=bash' -- . ':!*.md')
shellcheck --external-sources "${scripts[@]}"
# DL3008, DL3013: Debian's packages are of the base image's release; the wheels are pinned by hash.
hadolint --ignore DL3008 --ignore DL3013 docker/*Dockerfile
mapfile -t nix_files < <(git ls-files '*.nix')
nixfmt --check "${nix_files[@]}" || die "not as nixfmt writes them" "nixfmt ${nix_files[*]}" "docker/setup.sh lint installs it into $linters"
say "${#scripts[@]} scripts, $(git ls-files 'docker/*Dockerfile' | wc -l) Dockerfiles and ${#nix_files[@]} Nix files are clean"
