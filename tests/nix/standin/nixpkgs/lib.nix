# Stand-in for nixpkgs' lib: the functions that our flake calls, as nixpkgs' manual describes them.
let
  lib = {
    inherit (builtins)
      attrNames
      attrValues
      concatStringsSep
      elemAt
      filter
      length
      listToAttrs
      mapAttrs
      replaceStrings
      ;
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: make: lib.listToAttrs (map (name: lib.nameValuePair name (make name)) names);
    mapAttrsToList = make: set: map (name: make name set.${name}) (lib.attrNames set);
    mapAttrs' = make: set: lib.listToAttrs (lib.mapAttrsToList make set);
    filterAttrs =
      keep: set:
      lib.listToAttrs (
        map (name: lib.nameValuePair name set.${name}) (
          lib.filter (name: keep name set.${name}) (lib.attrNames set)
        )
      );
    optionalAttrs = when: set: if when then set else { };
    optionals = when: list: if when then list else [ ];
    optionalString = when: text: if when then text else "";
    concatMap = builtins.concatMap;
    last = list: lib.elemAt list (lib.length list - 1);
    toInt = builtins.fromJSON;
    literalExpression = text: text;

    # See modules.nix.
    evalModules = import ./modules.nix { inherit lib; };
    mkIf = condition: content: {
      _kind = "when";
      inherit condition content;
    };
    mkMerge = contents: {
      _kind = "merge";
      inherit contents;
    };
    mkDefault = content: {
      _kind = "override";
      priority = 1000;
      inherit content;
    };
    mkOption = option: option // { _kind = "option"; };
    mkEnableOption = _: lib.mkOption { default = false; };
    types = {
      bool = "bool";
      package = "package";
      str = "str";
      nullOr = type: type;
    };

    optional = when: item: if when then [ item ] else [ ];
    fileContents = path: builtins.head (lib.splitString "\n" (builtins.readFile path));
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    hasSuffix =
      suffix: text:
      let
        start = builtins.stringLength text - builtins.stringLength suffix;
      in
      start >= 0 && builtins.substring start (-1) text == suffix;
    splitString = separator: text: lib.filter builtins.isString (builtins.split separator text);
    findFirst =
      wanted: fallback: list:
      let
        found = lib.filter wanted list;
      in
      if found == [ ] then fallback else builtins.head found;
    toUpper = lib.replaceStrings (lib.splitString "" "abcdefghijklmnopqrstuvwxyz") (
      lib.splitString "" "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    );
    licenses = {
      mit = "mit";
      asl20 = "asl20";
    };

    # A file set is a list of paths; a file or folder that is not there is an error, as it is in nixpkgs.
    fileset = {
      unions = map (
        path:
        if builtins.pathExists path then
          path
        else
          throw "lib.fileset.unions: ${toString path} does not exist"
      );
      toSource =
        { root, fileset }:
        builtins.path {
          path = root;
          name = "source";
          filter =
            path: _:
            builtins.any (
              member:
              path == toString member
              || lib.hasPrefix "${toString member}/" path
              || lib.hasPrefix "${path}/" (toString member)
            ) fileset;
        };
    };
  };
in
lib
