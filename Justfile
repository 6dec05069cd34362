# Recipes for people and for CI. `just` alone lists them.

# Nothing here may fetch a toolchain behind the user's back.
export RUSTUP_AUTO_INSTALL := "0"

[private]
default:
    @just --list --unsorted

# Broker, dashboard of lines and three simulated boards; end with Ctrl-C
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Everything that needs no root, no network and no engine
test:
    cargo test

# What CI checks of the source: format, lints, dependencies
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo deny check bans licenses sources

# Real MQTT clients and a full disk (root: installs Debian packages, mounts a tmpfs)
test-clients:
    tests/clients/run

# What a node announces, read by Home Assistant's own code (root: gives it a root of Debian 13 with a newer Python)
test-home-assistant:
    tests/clients/home-assistant

# The page in headless Chromium, the API by schemathesis, metrics by promtool (root: installs Debian packages)
test-web:
    tests/web/run

# Sensors on stock ARM kernels in QEMU (root installs what is missing); or some: just test-hardware arm64/sensor
test-hardware *CHECKS:
    tests/hardware/run {{CHECKS}}

# Power cuts and failing writes under ext4 and xfs (root, /dev/fuse, loop devices); a minute of them: just test-power short
test-power *HOW:
    tests/power/run {{HOW}}

# The manifests of deploy/: schemas, pod security, settings, Podman's units (root installs what is missing)
test-manifests:
    tests/kubernetes/run

# The manifests on a real kubelet, built from Debian's source at first (root; five minutes and 4 GB); IMAGE is dist/humidor.oci.tar or a static binary; with `two` two brokers on two machines
test-kubernetes IMAGE='dist/humidor.oci.tar' *HOW:
    #!/usr/bin/env bash
    set -euo pipefail
    docker/setup.sh kubernetes kubelet
    . docker/lib.sh
    kubelet=${XDG_CACHE_HOME:-$HOME/.cache}/humidor/kubelet-1.20.2
    tests/kubernetes/build-kubelet "$kubelet"
    KUBECTL=$(tools_folder kubernetes)/bin/kubectl tests/kubernetes/kubelet "$kubelet" '{{IMAGE}}' {{HOW}}

# With PostgreSQL: TLS, faults, kills, restored data, a cluster under Patroni (root: installs Debian packages); a minute of it: just test-upstream short
test-upstream *HOW:
    tests/upstream/run {{HOW}}

# Figures beside other brokers on this machine, one line of JSON each; or some: just bench --bench throughput -- 900x4
bench *ARGS:
    SERIES_DAYS="${SERIES_DAYS:-90}" cargo bench {{ARGS}}

# Each fuzz target for so many seconds (nightly; docker/setup.sh fuzz; cargo install --locked cargo-fuzz). What it finds stays in fuzz/artifacts
fuzz SECONDS='60':
    #!/usr/bin/env bash
    set -euo pipefail
    for target in packet payload topic config decode; do
        mkdir -p fuzz/corpus/$target
        cargo +nightly fuzz run $target fuzz/corpus/$target fuzz/seeds/$target -- -max_total_time={{SECONDS}} -max_len=4096 -print_final_stats=1
    done

# Mutated MQTT frames, each judged by two codecs; needs no nightly
fuzz-frames COUNT='1000000':
    cargo run --release --manifest-path fuzz/Cargo.toml --bin mutate -- {{COUNT}}

# Known vulnerabilities of the dependencies (needs the internet)
audit:
    cargo deny check advisories

# Static binaries: just build arm64 armv7, or all → dist/ARCH/humidor (tools: docker/setup.sh build)
[group('delivery')]
build *ARCH='all':
    docker/build.sh {{ARCH}}

# The image of three platforms → dist/humidor.oci.tar; `just image prebuilt` takes the binaries of `just build`
[group('delivery')]
image *ARGS:
    docker/image.sh {{ARGS}}

# Push that image, byte for byte: just push registry.example.org/plant/humidor
[group('delivery')]
push REPOSITORY:
    docker/push.sh {{REPOSITORY}}

# Platforms and digests of a pushed image
[group('delivery')]
inspect IMAGE:
    @docker buildx version >/dev/null || { echo 'docker with buildx is not there: docker/setup.sh engine installs it' >&2; exit 1; }
    docker buildx imagetools inspect {{IMAGE}}

# Build, push, pull and run each platform on a private engine and registry (root; installs what it needs)
[group('delivery')]
smoke:
    tests/delivery/run

# Debian packages around the binaries of `just build` → dist/humidor_X.Y.Z_{amd64,arm64,armhf}.deb
[group('delivery')]
deb *ARCH='all':
    docker/deb.sh {{ARCH}}

# Debian packages in roots of Debian 12 and 13 under emulation (root; after `just build`; installs what it needs)
[group('delivery')]
test-deb *ROOTS='bookworm:armv7 trixie:arm64':
    docker/setup.sh engine emulate rig deb
    tests/delivery/with-engine tests/delivery/packages {{ROOTS}}

# One tar for a plant without the internet
[group('delivery')]
bundle:
    docker/bundle.sh

# What is in each binary, as CycloneDX → dist/ARCH/humidor.cdx.json
[group('delivery')]
sbom:
    docker/sbom.sh

# Build again by every way this machine has, and compare; or a release: just verify 0.1.0. The exit code is the verdict
[group('delivery')]
verify *VERSION_OR_WAYS:
    docker/verify.sh {{VERSION_OR_WAYS}}

# The flake without nixpkgs, through a stand-in (root; installs what it needs); `just test-nix rebuild` compiles all twice
[group('delivery')]
test-nix *HOW:
    tests/nix/run {{HOW}}

# Detached signatures of the bundle and the digests, by a plain key (docker/setup.sh sign)
[group('delivery')]
sign *FILES:
    docker/sign.sh {{FILES}}

# What a release needs, and whether it is so: just release 0.1.0
[group('delivery')]
release VERSION:
    docker/release.sh {{VERSION}}

# Newer pins: the wheels of zig and cargo-zigbuild, flake.lock (internet); docs/RELEASE.md says what to run afterwards
[group('delivery')]
renew *WHEEL:
    docker/renew.sh {{WHEEL}}

# Scripts and Dockerfiles by shellcheck and hadolint
[group('delivery')]
lint:
    docker/lint.sh

# Remove what the recipes of this group made
[group('delivery')]
clean:
    rm -rf dist
