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
    optional = when: item: if when then [ item ] else [ ];
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
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
