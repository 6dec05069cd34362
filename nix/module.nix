# services.humidor.broker and services.humidor.node for NixOS: the program without an engine, as confined as in the image.
# A module of its own: who imports this file without the flake sets services.humidor.package, or has the overlay.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.humidor;
  toml = pkgs.formats.toml { };

  # The file of a role's settings, looked at by the program itself while the system is built: a mistake ends the build with
  # the program's own words.
  settingsFile =
    role:
    let
      file = toml.generate "humidor-${role}.toml" cfg.${role}.settings;
    in
    if cfg.checkedBy == null then
      file
    else
      pkgs.buildPackages.runCommand "humidor-${role}-checked.toml" { } ''
        export HUMIDOR_DATA=/var/lib/humidor-${role} ${
          lib.optionalString (cfg.${role}.passwordFile != null) "HUMIDOR_PASSWORD=unknown-here"
        }
        ${cfg.checkedBy}/bin/humidor config --config ${file} >shown || {
          echo 'services.humidor.${role}.settings: see above' >&2
          exit 1
        }
        cp ${file} "$out"
      '';

  # The port of an address, or none: where it is off or this machine's alone.
  ports =
    address:
    let
      parts = lib.splitString ":" address;
    in
    lib.optional (address != "off" && !lib.hasPrefix "127." address && !lib.hasPrefix "[::1]" address) (
      lib.toInt (lib.last parts)
    );
  listens = key: fallback: cfg.broker.settings.${key} or fallback;

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
      # Ready when the log or the outbox is open; to migrate a large log takes minutes.
      Type = "notify";
      TimeoutStartSec = "infinity";
      WatchdogSec = 60;
      LoadCredential = lib.optional (
        cfg.${role}.passwordFile != null
      ) "password:${cfg.${role}.passwordFile}";
      ExecStart = "${cfg.package}/bin/humidor ${role} --config ${settingsFile role}";
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
        pkgs.humidor
          or (throw "set services.humidor.package, or take humidor.nixosModules.default or humidor.overlays.default of the flake");
      defaultText = lib.literalExpression "pkgs.humidor";
      description = "The program that both roles run, for the machine that runs this system.";
    };
    checkedBy = lib.mkOption {
      type = lib.types.nullOr lib.types.package;
      default =
        if pkgs.stdenv.buildPlatform.system == pkgs.stdenv.hostPlatform.system then cfg.package else null;
      defaultText = lib.literalExpression "config.services.humidor.package, unless the system is cross-built";
      description = ''
        The program for the machine that builds this system, which checks the settings there. With null only the
        board checks them, when the service starts.
      '';
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
        description = "Whether other machines may reach the ports of `mqtt_listen` and `mqtts_listen`.";
      };
      openFirewallHttp = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether other machines may reach the page and the API, at the port of `http_listen`.";
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
    (lib.mkIf (cfg.broker.enable || cfg.node.enable) {
      # humidor doctor, tail, export.
      environment.systemPackages = [ cfg.package ];
    })
    (lib.mkIf cfg.broker.enable {
      systemd.services.humidor-broker = lib.mkMerge [
        (service "broker")
        { serviceConfig.PrivateDevices = true; }
      ];
      networking.firewall.allowedTCPPorts =
        lib.optionals cfg.broker.openFirewall (
          ports (listens "mqtt_listen" "0.0.0.0:1883") ++ ports (listens "mqtts_listen" "off")
        )
        ++ lib.optionals cfg.broker.openFirewallHttp (ports (listens "http_listen" "0.0.0.0:8080"));
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
