# Inputs and outputs over MQTT. The guest has no MQTT client, so the few packets are written by hand.
insmod /gpio-dhtsim.ko sensor_line=4 start_min_us=1000

# octal BYTE…: as printf takes them.
octal() { for byte in "$@"; do printf '\\%03o' "$byte"; done; }
# publish TOPIC PAYLOAD [retain]: CONNECT, PUBLISH at QoS 0, DISCONNECT (MQTT 3.1.1 §3.1, §3.3, §3.14).
publish() {
    local head=48
    [ "${3:-}" != retain ] || head=49
    {
        printf '\020\015\000\004MQTT\004\002\000\074\000\001t'
        printf "$(octal $head $((2 + ${#1} + ${#2})) 0 ${#1})"
        printf '%s%s' "$1" "$2"
        printf '\340\000'
        usleep 100000
    } | nc 127.0.0.1 1883 >/dev/null
}
# subscribe ID TOPIC FILE: what is published there, as it comes. The id, one character, must be unique.
subscribe() {
    local id=$1
    shift
    {
        printf '\020\015\000\004MQTT\004\002\000\000\000\001%s' "$id"
        printf "$(octal 130 $((5 + ${#1})) 0 1 0 ${#1})"
        printf '%s\000' "$1"
        exec sleep 3600
    } | nc 127.0.0.1 1883 >"$2" &
}
serve() {
    humidor broker --data /scratch/broker --mqtt-listen 127.0.0.1:1883 >>/scratch/broker.log 2>&1 &
    broker=$!
    until_true 20 humidor health --mqtt-listen 127.0.0.1:1883
}
start() {
    humidor node --node box --broker mqtt://127.0.0.1 --data /scratch/node \
        --outputs fan=gpio-dhtsim:10:safe=off:away=5s,lamp=gpio-dhtsim:11:safe=on \
        --inputs door=gpio-dhtsim:20:debounce=50ms >/scratch/node.log 2>&1 &
    node=$!
}
connected() { [ "$(grep -c ' connected' /scratch/node.log)" -ge "$1" ]; }
set=humidor/box/output/fan/set

serve
publish $set ON retain
start
check 'outputs start at their safe level' until_true 20 line_is 10 o0
check 'whichever that is' until_true 5 line_is 11 o1
until_true 20 connected 1
ignored() { until_true 10 grep -q 'a retained command is not carried out' /scratch/node.log && line_is 10 o0; }
check 'a retained command from before the start is not carried out' ignored
subscribe f humidor/box/output/fan /scratch/fan
subscribe d humidor/box/input/door /scratch/door

on() { publish $set ON && until_true 5 line_is 10 o1 && until_true 5 grep -q 'fan.*ON' /scratch/fan; }
check 'ON over MQTT: the line is driven, the state is echoed' on
toggle() { publish $set TOGGLE && until_true 5 line_is 10 o0 && until_true 5 grep -q 'fan.*OFF' /scratch/fan; }
check 'TOGGLE' toggle
pulse() {
    publish $set '{"state":"ON","for_ms":700}'
    until_true 5 line_is 10 o1 && until_true 5 line_is 10 o0
}
check 'for_ms: on, and off again by itself' pulse
refused() {
    publish $set '{"state":"ON","for_ms":0}' && publish $set nonsense &&
        until_true 5 grep -q 'for_ms. is 0; it can be 1 to' /scratch/node.log && line_is 10 o0
}
check 'for_ms out of range and nonsense: refused' refused

# The retained state comes at once; what comes after it is counted from here.
door() { grep -o 'input/door[OF]*' /scratch/door | wc -l; }
until_true 5 grep -q 'input/door' /scratch/door
known=$(door)
changed() { [ "$(door)" -gt "$known" ]; }
fast() {
    # A hundredth of a second resolution, from the pull to what a subscriber got.
    local from to
    from=$(cut -d' ' -f1 /proc/uptime | tr -d .)
    pull 20 0
    to=$from
    until changed || [ $((to - from)) -gt 300 ]; do to=$(cut -d' ' -f1 /proc/uptime | tr -d .); done
    echo "      published after $(((to - from) * 10)) ms" >/dev/console
    [ $((to - from)) -le 10 ]
}
check 'an input is published within 100 ms' fast
known=$(door)
bounce() {
    for level in 1 0 1 0 1 0 1; do pull 20 $level; done
    until_true 5 changed
    sleep 1
    [ "$(door)" = $((known + 1)) ] || { echo "$(($(door) - known)) publications"; return 1; }
}
check 'a bouncing input is published once' bounce
known=$(door)
glitch() { pull 20 0; pull 20 1; sleep 1; [ "$(door)" = "$known" ]; }
check 'a glitch is not published' glitch

publish $set ON
until_true 5 line_is 10 o1
kill -9 $broker
wait $broker
gone() {
    local from=$(date +%s)
    until_true 8 line_is 10 o0 || return 1
    echo "      safe after $(($(date +%s) - from)) s" >/dev/console
    [ $(($(date +%s) - from)) -ge 2 ]
}
check 'the broker is gone: the output is safe within its limit of 5 s' gone
serve
# The node does not say `connected` each time.
back() { publish $set ON && until_true 1 line_is 10 o1; }
check 'the broker is back: commands work again' until_true 90 back
terminated() { kill $node && until_true 2 line_is 10 o0 && wait $node; }
check 'SIGTERM: the output is safe at once, exit 0' terminated
rmmod gpio-dhtsim
# A bank without interrupts: the same by polling.
insmod /gpio-dhtsim.ko sensor_line=4 irqs=0
start
until_true 20 connected 1
polled() { grep -q 'no interrupts' /scratch/node.log; }
check 'an input without interrupts is polled' polled
subscribe e humidor/box/input/door /scratch/door
until_true 5 grep -q 'input/door' /scratch/door
known=$(door)
check 'and published within 100 ms too' fast
