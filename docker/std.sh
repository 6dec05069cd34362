#!/usr/bin/env bash
# The std of the targets for a toolchain that comes without it (Debian's), compiled once per compiler as upstream ships it:
# optimised for speed, with unwinding, debug information and bitcode. Not with upstream's copy of the C runtime, of which
# docker/build.sh takes nothing: zig brings its own. docker/setup.sh build calls this.
#
#   RUSTC=/usr/bin/rustc docker/std.sh [amd64|arm64|armv7|all]…
#
# The compiler's sources must lie where rustup and Debian put them: lib/rustlib/src/rust under its sysroot.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=docker/sealed.sh
. "$ROOT/docker/sealed.sh"

# One target takes about this much while it is compiled, and a sixth of it afterwards.
MEGABYTES_PER_TARGET=600

rustc=${RUSTC:-rustc}
need "$rustc" "docker/setup.sh build installs it"
sysroot=$(cd "$ROOT" && "$rustc" --print sysroot)
source=$sysroot/lib/rustlib/src/rust
[[ -f $source/library/Cargo.lock ]] ||
    die "the sources of $("$rustc" --version) are not in $source" "Debian: apt-get install rust-web-src" "rustup has the finished std: rustup target add"
cargo=$sysroot/bin/cargo
commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')
std=$(std_folder "$rustc")

for arch in $(archs "$@"); do
    read -r _ triple _ < <(target "$arch")
    [[ ! -d $std/lib/rustlib/$triple/lib ]] || continue
    say "$arch: compiling std of $("$rustc" --version) for $triple, once, into $std"
    part=$std/part-$arch
    mkdir -p "$std" 2>/dev/null && [[ -w $std ]] ||
        die "cannot write to $std" "run this as the owner of that folder, or set XDG_CACHE_HOME to a folder of your own"
    free=$(df --output=avail -B 1000000 "$std" | tail -n 1)
    ((free >= MEGABYTES_PER_TARGET)) ||
        die "only $((free)) MB are free in $std; the std of one target takes $MEGABYTES_PER_TARGET MB while it is compiled" "make room, or set XDG_CACHE_HOME to another file system"
    # Of a run that was ended: nothing of it is taken.
    rm -rf "$part"
    mkdir -p "$part/crate/src" "$part/lib/rustlib/$triple/lib"
    : >"$part/crate/src/lib.rs"
    # Upstream's settings for the std that it ships.
    printf '%s\n' '[package]' 'name = "sysroot"' 'edition = "2024"' '[workspace]' '[profile.release]' 'codegen-units = 1' 'debug = 1' 'incremental = false' >"$part/crate/Cargo.toml"
    fetch_crates "$cargo" "$source/library/Cargo.toml" "$source/library/Cargo.lock" "$part/crates"
    # Upstream's names for the places of the sources.
    rust_flags=(
        -C embed-bitcode=yes
        --remap-path-prefix="$source=/rustc/$commit"
        --remap-path-prefix="$(realpath "$source")=/rustc/$commit"
        --remap-path-prefix="$part/crates=/rust/deps"
        --remap-path-prefix="$part=/target"
    )
    # As upstream's own wrapper does: this crate alone is of the other strategy.
    mkdir "$part/bin"
    printf '#!/bin/sh\ncase " $* " in *" --crate-name panic_abort "*) exec "%s" "$@" -C panic=abort ;; esac\nexec "%s" "$@"\n' \
        "$sysroot/bin/rustc" "$sysroot/bin/rustc" >"$part/bin/rustc"
    chmod +x "$part/bin/rustc"
    seal "$part/home" "$part/bin/rustc" "$part/crates"
    # -Z on a stable compiler, for std, which may; no crate of ours uses an unstable feature.
    sealed "$cargo" RUSTC_BOOTSTRAP=1 RUSTFLAGS="${rust_flags[*]}" -- \
        build --quiet --offline --release -Zbuild-std=std,panic_abort --manifest-path "$part/crate/Cargo.toml" --target "$triple" --target-dir "$part/target" ||
        die "the std of $triple could not be compiled" "the reason is above; run this again when it is mended"
    cp "$part/target/$triple"/release/deps/*.rlib "$part/lib/rustlib/$triple/lib/"
    rm -f "$part/lib/rustlib/$triple/lib"/libsysroot-*
    # Moved into place last: a half-made std is not taken for a whole one.
    mkdir -p "$std/lib/rustlib"
    "$rustc" -vV >"$std/compiler"
    rm -rf "${std:?}/lib/rustlib/$triple"
    mv "$part/lib/rustlib/$triple" "$std/lib/rustlib/$triple"
    rm -rf "$part"
done
