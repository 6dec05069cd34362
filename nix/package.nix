# The package for a system: of all that the flake builds, the binary for the machine that runs the system, made on the
# machine that builds it. A board's system that is cross-built on a PC takes the PC's, and nothing is emulated.
{ packages }:
pkgs:
let
  inherit (pkgs.stdenv) buildPlatform hostPlatform;
  archs = {
    x86_64-linux = "amd64";
    aarch64-linux = "arm64";
    armv7l-linux = "armv7";
  };
  arch =
    archs.${hostPlatform.system}
      or (throw "humidor runs on ${toString (builtins.attrNames archs)}, not on ${hostPlatform.system}");
  builders = builtins.attrNames packages;
  made =
    packages.${buildPlatform.system}
      or (throw "humidor is built on ${toString builders}, not on ${buildPlatform.system}: cross-build the system there (nixpkgs.buildPlatform), or set services.humidor.package to packages.x86_64-linux.bin-${arch}");
in
{
  package = made."bin-${arch}";
  # For the machine that builds.
  builders = made.default;
}
