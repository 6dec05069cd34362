# A stand-in for nixpkgs where it cannot be reached: as much of it as our flake calls, over the host's own tools. What it
# proves and what it hides is in tests/nix/README.md.
{
  outputs = _: {
    lib = import ./lib.nix;
    legacyPackages = (import ./lib.nix).genAttrs [ "x86_64-linux" "aarch64-linux" ] (import ./pkgs.nix);
  };
}
