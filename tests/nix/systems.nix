# Systems with the NixOS module in them, for tests/nix/run: what they install, open and start.
{ humidor, nixpkgs }:
let
  inherit (nixpkgs) lib;
  # Packages for a host, made on a builder.
  packages =
    builder: host:
    let
      native = nixpkgs.legacyPackages.${builder} or nixpkgs.legacyPackages.x86_64-linux;
    in
    native
    // {
      stdenv = native.stdenv // {
        buildPlatform.system = builder;
        hostPlatform.system = host;
      };
      buildPackages = native;
      formats.toml = _: {
        type = "toml";
        generate =
          name: settings:
          native.runCommand name {
            text = lib.concatStringsSep "\n" (
              lib.mapAttrsToList (key: value: ''${key} = "${toString value}"'') settings
            );
          } ''printf '%s\n' "$text" >"$out"'';
      };
    };
  system =
    {
      builder ? "x86_64-linux",
      host ? builder,
      module ? humidor.nixosModules.default,
      settings,
      overlay ? false,
    }:
    let
      plain = packages builder host;
      pkgs = if overlay then plain // humidor.overlays.default plain plain else plain;
      config = lib.evalModules [
        module
        settings
      ] { inherit pkgs; };
    in
    {
      package = config.services.humidor.package.name;
      path = builtins.unsafeDiscardStringContext (toString config.services.humidor.package);
      ports = config.networking.firewall.allowedTCPPorts;
      installed = map (package: package.name) config.environment.systemPackages;
      broker = config.systemd.services.humidor-broker.serviceConfig.ExecStart;
      # The broker's configuration, looked at when the system is built.
      checked = plain.buildPackages.runCommand "start" {
        start = config.systemd.services.humidor-broker.serviceConfig.ExecStart;
      } ''printf '%s\n' "$start" >"$out"'';
    };
  broker = settings: {
    services.humidor.broker = {
      enable = true;
    }
    // settings;
  };
in
{
  pc = system { settings = broker { openFirewall = true; }; };
  arm64 = system {
    host = "aarch64-linux";
    settings = broker {
      openFirewall = true;
      openFirewallHttp = true;
      settings = {
        mqtt_listen = "0.0.0.0:1999";
        mqtts_listen = "[::]:8883";
      };
    };
  };
  armv7 = system {
    host = "armv7l-linux";
    settings = broker {
      openFirewall = true;
      openFirewallHttp = true;
      settings = {
        mqtt_listen = "127.0.0.1:1883";
        http_listen = "off";
      };
    };
  };
  by-overlay = system {
    host = "armv7l-linux";
    module = ../nix/module.nix;
    overlay = true;
    settings = broker { };
  };
  alone = system {
    module = ../nix/module.nix;
    settings = broker { };
  };
  unsupported = system {
    host = "riscv64-linux";
    settings = broker { };
  };
  emulated = system {
    builder = "armv7l-linux";
    settings = broker { };
  };
  typo = system { settings = broker { settings.keep_row = "90d"; }; };
  typo-on-a-board = system {
    host = "armv7l-linux";
    settings = broker { settings.keep_raw = "ninety"; };
  };
}
