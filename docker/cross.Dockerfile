# The image in which cross builds: the Dockerfile's toolchain stage, with a cargo that leaves releases to build.sh.

# As in Dockerfile; tests/delivery.rs holds the two together.
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm
FROM ${RUST_IMAGE}
WORKDIR /humidor
# cross runs as the user who called it, whose home is not here.
ENV XDG_CACHE_HOME=/opt
COPY rust-toolchain.toml ./
COPY docker/setup.sh docker/lib.sh docker/std.sh docker/sealed.sh docker/targets docker/zig-requirements.txt docker/auditable.lock docker/
RUN docker/setup.sh build
COPY docker/cross-cargo /opt/cross/cargo
ENV PATH=/opt/cross:$PATH
