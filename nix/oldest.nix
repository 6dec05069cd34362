# The oldest Nix that evaluates nixpkgs and this flake: nixpkgs' own lib/minver.nix. docker/verify.sh reads it too.
"2.18"
