# The compiler of rust-toolchain.toml with the std of every target, as rustup would install it: upstream's own files, of
# which nothing is compiled.
{
  lib,
  targets,
  rust-bin,
}:
(rust-bin.fromRustupToolchainFile ../rust-toolchain.toml).override {
  targets = lib.mapAttrsToList (_: target: target.triple) targets;
}
