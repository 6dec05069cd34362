# services.humidor.broker and services.humidor.node for NixOS: the program without an engine, as confined as in the image.
{ self }:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.humidor;
  inherit (pkgs.stdenv.hostPlatform) system;
  toml = pkgs.formats.toml { };

  settings =
    example:
    lib.mkOption {
      type = toml.type;
      default = { };
      inherit example;
      description = ''
        Settings by their keys in the TOML file, as `humidor config` lists them. They are world-readable in the store.
      '';
    };

  passwordFile =
    whose:
    lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "/run/keys/humidor";
      description = "File with the password of ${whose}. Read by systemd, so it may be root's alone.";
    };

  # What both roles have in common. Nothing in it needs root, and the only thing written is the state folder.
  service = role: {
    description = "humidor ${role}";
    wantedBy = [ "multi-user.target" ];
    wants = [ "network-online.target" ];
    after = [ "network-online.target" ];
    environment = {
      HUMIDOR_DATA = "%S/humidor-${role}";
    }
    // lib.optionalAttrs (cfg.${role}.passwordFile != null) { HUMIDOR_PASSWORD_FILE = "%d/password"; };
    serviceConfig = {
      LoadCredential = lib.optional (
        cfg.${role}.passwordFile != null
      ) "password:${cfg.${role}.passwordFile}";
      ExecStart = "${cfg.package}/bin/humidor ${role} --config ${
        toml.generate "humidor-${role}.toml" cfg.${role}.settings
      }";
      StateDirectory = "humidor-${role}";
      StateDirectoryMode = "0700";
      DynamicUser = true;
      Restart = "on-failure";
      RestartSec = 5;
      # Usage, permission, configuration: the same again does not help.
      RestartPreventExitStatus = "64 77 78";
      # Its own limit on SIGTERM is 10 s.
      TimeoutStopSec = 15;
      UMask = "0077";
      CapabilityBoundingSet = "";
      NoNewPrivileges = true;
      ProtectSystem = "strict";
      ProtectHome = true;
      PrivateTmp = true;
      ProtectControlGroups = true;
      ProtectHostname = true;
      ProtectKernelLogs = true;
      ProtectKernelModules = true;
      ProtectKernelTunables = true;
      ProtectProc = "invisible";
      LockPersonality = true;
      MemoryDenyWriteExecute = true;
      RestrictNamespaces = true;
      RestrictRealtime = lib.mkDefault true;
      RestrictSUIDSGID = true;
      RestrictAddressFamilies = [
        "AF_INET"
        "AF_INET6"
        "AF_UNIX"
      ];
      SystemCallArchitectures = "native";
      # The clock's state is read by adjtimex, which ProtectClock would refuse; setting the clock needs a capability.
      SystemCallFilter = [
        "@system-service"
        "adjtimex"
        "clock_adjtime"
        "clock_adjtime64"
      ];
    };
  };
in
{
  options.services.humidor = {
    package = lib.mkOption {
      type = lib.types.package;
      default =
        (self.packages.${system}
          or (throw "humidor is not built on ${system}: set services.humidor.package, for a 32-bit board to packages.x86_64-linux.bin-armv7")
        ).default;
      defaultText = lib.literalExpression "humidor.packages.\${system}.default";
      description = "The program that both roles run.";
    };
    broker = {
      enable = lib.mkEnableOption "humidor's broker: MQTT, and the log of what it acknowledged";
      # Without a user, and without `anonymous`, it refuses to start where other machines reach its port.
      settings = settings {
        user = "plant";
        logged_filters = "plant/#";
      };
      passwordFile = passwordFile "the user in `settings.user`";
      openFirewall = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether boards may reach the broker at TCP port 1883, the default of `mqtt_listen`.";
      };
    };
    node = {
      enable = lib.mkEnableOption "humidor's board role: sensors on GPIO pins, readings to a broker";
      settings = settings {
        broker = "mqtt://192.168.1.20";
        sensors = "hall=dht22@7";
      };
      passwordFile = passwordFile "the user in the broker's address";
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.broker.enable {
      systemd.services.humidor-broker = lib.mkMerge [
        (service "broker")
        { serviceConfig.PrivateDevices = true; }
      ];
      networking.firewall.allowedTCPPorts = lib.mkIf cfg.broker.openFirewall [ 1883 ];
    })
    (lib.mkIf cfg.node.enable {
      systemd.services.humidor-node = lib.mkMerge [
        (service "node")
        {
          serviceConfig = {
            # A read lasts 25 ms, in which the thread goes first and is not paged out; without capabilities.
            RestrictRealtime = false;
            LimitRTPRIO = 1;
            LimitMEMLOCK = "infinity";
            SupplementaryGroups = [ "gpio" ];
            DevicePolicy = "closed";
            DeviceAllow = [ "char-gpiochip rw" ];
          };
        }
      ];
      # The kernel gives the chips to root alone.
      users.groups.gpio = { };
      services.udev.extraRules = ''
        SUBSYSTEM=="gpio", KERNEL=="gpiochip[0-9]*", GROUP="gpio", MODE="0660"
      '';
    })
  ];
}
