# shellcheck shell=bash
# What the delivery scripts share: messages, the table of targets, where the tools are, which source this is.
# Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '==> %s\n' "$*" >&2; }

# die WHAT [WHAT TO DO]
die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    (($# < 2)) || printf '  -> %s\n' "${@:2}" >&2
    exit 1
}

# The table without its comments, single spaces between its columns: arch triple platform zig qemu binary packed deb.
targets() { sed -e '/^#/d' -e '/^$/d' -e 's/[[:space:]]\{1,\}/ /g' "$ROOT/docker/targets"; }

# target ARCH|PLATFORM|TRIPLE: its line of the table.
target() {
    local line
    while read -r line; do
        case " $line " in *" $1 "*) printf '%s\n' "$line" && return ;; esac
    done < <(targets)
    die "there is no target $1" "the targets are: $(targets | cut -d' ' -f1 | tr '\n' ' ')and all (docker/targets)"
}

# archs [NAME…]: the archs that are meant; none or `all` means all.
archs() {
    local name line names=("$@")
    if ((!$#)) || [[ $* == all ]]; then mapfile -t names < <(targets | cut -d' ' -f1); fi
    for name in "${names[@]}"; do
        line=$(target "$name") || exit
        printf '%s\n' "${line%% *}"
    done
}

# need COMMAND HOW-TO-GET-IT
need() { command -v "$1" >/dev/null || die "$1 is not there" "$2"; }

# Named after what is in the requirements file: another version gets another folder, and work trees share one.
tools_folder() { printf '%s/humidor/%s-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$1" "$(sha256sum "$ROOT/docker/$1-requirements.txt" | cut -c-12)"; }
# Nix has them in its store and says where.
# shellcheck disable=SC2034 # used by those who source this
TOOLS=${HUMIDOR_TOOLS:-$(tools_folder zig)}

# std_folder RUSTC: the sysroot in which docker/std.sh leaves the std of the targets. One for each compiler, and for each
# way to compile it.
std_folder() {
    local compiler release commit
    compiler=$(cd "$ROOT" && "$1" -vV)
    release=$(sed -n 's/^release: //p' <<<"$compiler")
    commit=$(sed -n 's/^commit-hash: //p' <<<"$compiler")
    printf '%s/humidor/std-%s-%s-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$release" "${commit:0:9}" "$(cat "$ROOT"/docker/{std,sealed}.sh | sha256sum | cut -c-12)"
}

# Where docker/setup.sh puts a Nix, on a Debian whose own is too old.
# shellcheck disable=SC2034 # used by those who source this
NIX_FOLDER=${XDG_CACHE_HOME:-$HOME/.cache}/humidor/nix-of-debian-13

# Which source this is: commit, and -dirty when files differ from it. Where there is no git (inside the Dockerfile) both
# are handed in.
know_source() {
    if [[ -n ${HUMIDOR_REVISION:-} && -n ${SOURCE_DATE_EPOCH:-} ]]; then
        export HUMIDOR_REVISION SOURCE_DATE_EPOCH
        return
    fi
    git -C "$ROOT" rev-parse HEAD >/dev/null 2>&1 ||
        die "$ROOT is no git work tree" "set HUMIDOR_REVISION and SOURCE_DATE_EPOCH (Unix seconds of the commit)"
    local dirty=
    [[ -z $(git -C "$ROOT" status --porcelain) ]] || dirty=-dirty
    HUMIDOR_REVISION=$(git -C "$ROOT" rev-parse HEAD)$dirty
    SOURCE_DATE_EPOCH=$(git -C "$ROOT" log -1 --format=%ct)
    export HUMIDOR_REVISION SOURCE_DATE_EPOCH
}

# The version of cargo-auditable, which writes the list of crates into the binary, where scanners of images look for it.
auditable_version() { sed -n '/^name = "cargo-auditable"$/{n;s/^version = "\(.*\)"$/\1/p}' "$ROOT/docker/auditable.lock"; }

# The crate's version.
version() { sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1; }

# archive_digest FILE: of the image index in an OCI archive; what a registry will call it.
archive_digest() { tar -xOf "$1" index.json | jq -r '.manifests[0].digest'; }
# archive_blob FILE DIGEST
archive_blob() { tar -xOf "$1" "blobs/${2/://}"; }
# archive_platform FILE PLATFORM: the digest of its manifest.
archive_platform() {
    archive_blob "$1" "$(archive_digest "$1")" |
        jq -r --arg p "$2" '.manifests[] | select([.platform.os, .platform.architecture, .platform.variant // empty] | join("/") == $p).digest'
}
# archive_revision FILE: the commit that its images say they are of.
archive_revision() {
    archive_blob "$1" "$(archive_blob "$1" "$(archive_platform "$1" linux/amd64)" | jq -r .config.digest)" |
        jq -r '.config.Labels["org.opencontainers.image.revision"]'
}
