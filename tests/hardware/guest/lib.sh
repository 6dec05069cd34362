# What the checks share. busybox's shell.
sim=/sys/devices/platform/gpio-dhtsim

# check NAME COMMAND…: one line a check; what the command said follows a failure.
check() {
    local name=$1
    shift
    if "$@" >/scratch/output 2>&1; then
        echo "ok    $name"
    else
        echo "FAIL  $name"
        sed 's/^/      /' /scratch/output | tail -n 40
    fi
}

# until_true SECONDS COMMAND…: waits for a condition.
until_true() {
    local limit=$1 end
    shift
    end=$(($(date +%s) + limit))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || { echo "waited $limit s for: $*"; return 1; }
        usleep 20000
    done
}

# wave BYTE…: the nominal waveform of a frame, bytes in hexadecimal, in ns from the host's release.
wave() { echo "30000 80000 80000 $(bits "$@") 50000"; }
bits() {
    local byte bit
    for byte in "$@"; do
        for bit in 7 6 5 4 3 2 1 0; do
            if [ $(((0x$byte >> bit) & 1)) = 1 ]; then printf '50000 70000 '; else printf '50000 26000 '; fi
        done
    done
}
play() { echo "$*" >$sim/wave_ns; }
pull() { echo "$1 $2" >$sim/pull; }
# line N: o1, i0, …: who drives it and its level.
line() { tr ' ' '\n' <$sim/state | sed -n "s/^$1=//p"; }
line_is() { [ "$(line "$1")" = "$2" ]; }

# exits CODE COMMAND…: the command's exit code, and what it says.
exits() {
    local expected=$1 code=0
    shift
    "$@" >/scratch/said 2>&1 || code=$?
    cat /scratch/said
    [ $code = "$expected" ] || { echo "exit code $code instead of $expected"; return 1; }
}
# says TEXT…: each of them is in what the last command said.
says() {
    local text
    for text in "$@"; do grep -qF -- "$text" /scratch/said || { echo "does not say: $text"; return 1; }; done
}
