# What the recipes of the Justfile need, but an engine.
{
  pkgs,
  toolchain,
  tools,
}:
pkgs.mkShell {
  packages = [
    toolchain
    pkgs.cargo-deny
    pkgs.diffoscopeMinimal
    pkgs.git
    pkgs.hadolint
    pkgs.jq
    pkgs.just
    pkgs.minisign
    pkgs.mosquitto
    pkgs.nixfmt
    pkgs.python3
    pkgs.qemu-user
    pkgs.shellcheck
    pkgs.skopeo
    pkgs.sqlite
  ];
  # Where docker/build.sh finds zig.
  HUMIDOR_TOOLS = tools;
}
