# shellcheck shell=bash
# How the delivery's checks run and are told: one line a check, the output only of those that fail. Sourced, never run.

# Emulated processes on a busy machine.
PATIENCE_SECONDS=90
passed=0 failed=0
checks_output=$(mktemp)

# check NAME COMMAND…: one line a check, the output only of those that fail.
check() {
    local name=$1 since=$SECONDS
    shift
    # A subshell with -e of its own: inside an `if`, bash would go on after a command that failed.
    set +e
    (set -e; "$@") >"$checks_output" 2>&1
    local status=$?
    set -e
    if ((!status)); then
        passed=$((passed + 1))
        echo "ok    $name ($((SECONDS - since)) s)"
    else
        failed=$((failed + 1))
        echo "FAIL  $name"
        sed 's/^/      /' "$checks_output"
    fi
}

# refused WORDS COMMAND…: ends with an error whose message has the words.
refused() {
    local words=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "was not refused: $*"
        return 1
    fi
    [[ $said == *"$words"* ]] || { printf 'refused, but without "%s": %s\n' "$words" "$said"; return 1; }
}

# equal WANTED FOUND
equal() { [[ $1 == "$2" ]] || { printf 'wanted: %s\nfound:  %s\n' "$1" "$2"; return 1; }; }

# until_true COMMAND…
until_true() {
    local deadline=$((SECONDS + PATIENCE_SECONDS))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { echo "waited $PATIENCE_SECONDS s for: $*"; "$@"; return 1; }
        sleep 0.2
    done
}

# verdict: the last line, and the exit code.
verdict() {
    rm -f "$checks_output"
    printf '%s passed, %s failed\n' "$passed" "$failed"
    ((!failed))
}
