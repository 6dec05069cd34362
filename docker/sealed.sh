# shellcheck shell=bash
# Cargo, shut off from everything of this machine that could reach the compiler: its environment is a list, its
# configuration is the repository's, its crates are unpacked from archives with the checksums of the lock file. Sourced by
# build.sh and std.sh, never run.

# locked LOCK: name, version and checksum of each crate that comes from a registry.
locked() {
    sed -n -e 's/^name = "\(.*\)"$/\1/p' -e 's/^version = "\(.*\)"$/\1/p' -e 's/^checksum = "\(.*\)"$/\1/p' -e 's/^\[\[package\]\]$/\n/p' "$1" |
        awk 'BEGIN { RS = "" } NF == 3 { print $1, $2, $3 }'
}

# network_only COMMAND…: with those of the user's settings for cargo that know the way to a registry or its mirror.
network_only() {
    local name drop=()
    while read -r name; do
        case $name in
        CARGO_HOME | CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTR* | CARGO_SOURCE_*) ;;
        CARGO_* | RUSTC* | RUSTFLAGS | RUSTDOCFLAGS) drop+=(-u "$name") ;;
        esac
    done < <(compgen -e)
    # Empty: neither those of the user's configuration.
    env "${drop[@]}" RUSTC_WRAPPER= RUSTC_WORKSPACE_WRAPPER= "$@"
}

# fetch_crates CARGO MANIFEST LOCK FOLDER: unpacks the crates of the lock into the folder, as a source that cargo takes
# instead of the registry. Fetches those that are not here. Nothing to do where the folder is.
fetch_crates() {
    local cargo=$1 manifest=$2 lock=$3 folder=$4 part=$4.part-$BASHPID name version checksum archives=${CARGO_HOME:-$HOME/.cargo}/registry/cache
    [[ ! -d $folder ]] || return 0
    # std's manifest has what stable cargo does not take.
    (cd "$(dirname "$manifest")" && network_only RUSTC="$(dirname "$cargo")/rustc" RUSTC_BOOTSTRAP=1 "$cargo" fetch --quiet --locked --manifest-path "$manifest") ||
        die "the crates of $lock cannot be fetched" "the reason is above" "without a network: HUMIDOR_CRATES names a folder that cargo vendor has filled"
    rm -rf "$folder".part-*
    mkdir -p "$part"
    local -A found=()
    while read -r checksum name; do found[$checksum]=${name#\*}; done < <(
        locked "$lock" | while read -r name version _; do printf '%s\0' "$archives"/*/"$name-$version.crate"; done | xargs -0 sha256sum 2>/dev/null
    )
    while read -r name version checksum; do
        [[ -n ${found[$checksum]:-} ]] ||
            die "there is no $name $version with sha256 $checksum in $archives" "remove what is there of it and try again" "HUMIDOR_CRATES names a folder that cargo vendor has filled"
        tar -xzf "${found[$checksum]}" -C "$part"
        printf '{"files":{},"package":"%s"}' "$checksum" >"$part/$name-$version/.cargo-checksum.json"
    done < <(locked "$lock")
    # Another build may have been quicker.
    mv -T "$part" "$folder" 2>/dev/null || rm -rf "$part"
    [[ -d $folder ]] || die "cannot write to $(dirname "$folder")"
}

# The host that cargo is told, whichever it is: cargo hashes that line into the names of symbols, by way of the crates that
# run on the builder.
ONE_HOST=x86_64-unknown-linux-gnu

# seal HOME RUSTC CRATES [CONFIGURATION]: makes a home for cargo, with a compiler in it that has the one host.
seal() {
    sealed_home=$1
    mkdir -p "$1/bin" "$1/cargo"
    # Left as they are where they are right: cargo takes a newer compiler for another.
    write "$1/bin/rustc" "$(printf '#!/bin/sh\n# %s, with the same host line on every builder.\ncase $* in -vV | -Vv) "%s" -vV | sed "s/^host: .*/host: %s/" && exit ;; esac\nexec "%s" "$@"' \
        "$("$2" --version)" "$2" "$ONE_HOST" "$2")"
    chmod +x "$1/bin/rustc"
    write "$1/cargo/config.toml" "$([[ -z ${4:-} ]] || cat "$4"
        printf '[source.crates-io]\nreplace-with = "unpacked"\n[source.unpacked]\ndirectory = "%s"\n' "$3")"
}
write() { [[ -f $1 && $(cat "$1") == "$2" ]] || printf '%s\n' "$2" >"$1"; }

# sealed CARGO [NAME=VALUE…] -- ARGUMENT…: after `seal`. At /, since cargo reads the configuration of every folder above.
# What is handed on of this machine: where programs and scratch space are, and how many jobs at a time.
sealed() {
    local cargo=$1 variables=()
    shift
    while [[ $1 != -- ]]; do variables+=("$1") && shift; done
    shift
    (
        cd /
        exec env -i PATH="$PATH" ${TMPDIR:+TMPDIR="$TMPDIR"} ${CARGO_BUILD_JOBS:+CARGO_BUILD_JOBS="$CARGO_BUILD_JOBS"} LC_ALL=C \
            HOME="$sealed_home" CARGO_HOME="$sealed_home/cargo" RUSTC="$sealed_home/bin/rustc" "${variables[@]}" "$cargo" "$@"
    )
}
