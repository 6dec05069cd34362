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

# Known vulnerabilities of the dependencies (needs the internet)
audit:
    cargo deny check advisories
