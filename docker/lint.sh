#!/usr/bin/env bash
# Every shell script, the Dockerfiles and Nix's files: shellcheck, hadolint, nixfmt.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
linters=$(tools_folder lint)/bin
[[ -x $linters/hadolint && -x $linters/nixfmt ]] || die "shellcheck, hadolint or nixfmt is not there" "docker/setup.sh lint installs them"
mapfile -t scripts < <(git grep -lE '^#!.*bash|^# shellcheck shell=bash' -- . ':!*.md')
"$linters/shellcheck" --external-sources "${scripts[@]}"
# DL3008, DL3013: Debian's packages are of the base image's release; the wheels are pinned by hash.
"$linters/hadolint" --ignore DL3008 --ignore DL3013 docker/*Dockerfile
mapfile -t nix_files < <(git ls-files '*.nix')
"$linters/nixfmt" --check "${nix_files[@]}" || die "not as nixfmt writes them" "$linters/nixfmt ${nix_files[*]}"
say "${#scripts[@]} scripts, $(git ls-files 'docker/*Dockerfile' | wc -l) Dockerfiles and ${#nix_files[@]} Nix files are clean"
