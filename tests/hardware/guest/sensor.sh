# DHT22 and DHT11 through /dev/gpiochipN, good frames and each way to be bad.
at=gpio-dhtsim:4
read_dht() { model=$1; shift; humidor read "$model@$at" "$@"; }

# good MODEL COUNT LINE: COUNT readings, every one in the first try.
good() {
    exits 0 read_dht "$1" --count "$2" --tries 1 && [ "$(grep -cF -e "$3" /scratch/said)" = "$2" ] &&
        [ "$(grep -c refused /scratch/said)" = 0 ]
}
# refused CODE CAUSE [MODEL]: no reading, but its cause.
refused() {
    exits "$1" read_dht "${3:-dht22}" --tries 3 && says "refused, $2:" &&
        ! grep -q '°C' /scratch/said
}

nowhere() { unshare -m sh -c 'mount -t tmpfs none /dev && exec humidor read dht22@'$at; }
no_chip_at_all() { exits 66 nowhere && says 'no /dev/gpiochip' 'HUMIDOR_GPIO=sim'; }
check 'no gpiochip: exit 66' no_chip_at_all

insmod /gpio-dhtsim.ko sensor_line=4 start_min_us=1000

play "$(wave 02 8c 01 5f ee)"
check 'DHT22: 20 of 20 frames' good dht22 20 '35.1 °C  65.2 %  [02 8c 01 5f ee]'
play "$(wave 02 8c 80 65 73)"
check 'DHT22 below zero, sign and magnitude' good dht22 3 '-10.1 °C  65.2 %'
play "$(wave 01 b9 ff fa b3)"
check 'DHT22 below zero, two'"'"'s complement of 16 bits' good dht22 3 '-0.6 °C  44.1 %'
play "$(wave 02 8c 0f 9b 38)"
check 'DHT22 below zero, two'"'"'s complement of 12 bits' good dht22 3 '-10.1 °C  65.2 %'

echo 18000 >/sys/module/gpio_dhtsim/parameters/start_min_us
play "$(wave 37 00 17 06 54)"
check 'DHT11: 20 of 20 frames, after a start signal of 18 ms' good dht11 20 '23.6 °C  55.0 %  [37 00 17 06 54]'
check 'a DHT22 start signal does not wake a DHT11' refused 69 no-response
echo 1000 >/sys/module/gpio_dhtsim/parameters/start_min_us

play "$(wave 02 8c 01 5f ef)"
check 'a wrong checksum is no reading' refused 65 checksum
# Two edges close together, seen as none: the high of the third bit is gone.
play "30000 80000 80000 $(bits 02 | cut -d' ' -f1-4) 126000 $(bits 02 8c 01 5f ee | cut -d' ' -f7-) 50000"
check 'a missing pulse is no reading' refused 65 short
play "30000 80000 80000 $(bits 02 8c 01 5f ee | cut -d' ' -f3-) 50000"
check 'a frame without its first bit is no reading' refused 65 short
play "30000 80000 80000 50000 26000 $(bits 02 8c 01 5f ee) 50000"
check 'a frame shifted by an extra bit is no reading' refused 65 long
play "30000 80000 80000 $(bits 02 8c 01 5f ee | cut -d' ' -f3-) 50000 26000 50000"
check 'a frame shifted by one bit, 40 bits long, is no reading' refused 65 checksum
play "$(wave 00 00 00 00 00)"
check 'a frame of zeros is no reading' refused 65 all-zero
play ''
check 'an absent sensor: no-response, exit 69' refused 69 no-response
pull 4 0
check 'a line that is stuck low: stuck-low, exit 69' refused 69 stuck-low
pull 4 1

raw() { exits 0 read_dht dht22 --raw && says 'low ' 'high ' '00000010 10001100 00000001 01011111 11101110'; }
play "$(wave 02 8c 01 5f ee)"
check 'read --raw shows pulses and bits' raw
released() { line_is 4 i1; }
check 'after a read the line is released' released

in_use() {
    humidor read "dht22@$at" --count 30 >/dev/null 2>&1 &
    reader=$!
    until_true 10 sh -c 'humidor gpio list | grep -q humidor:sensor'
    exits 69 read_dht dht22 && says 'in use by `humidor:sensor`'
    outcome=$?
    kill $reader
    wait $reader
    return $outcome
}
check 'a line that another program has: by whom' in_use
unknown_chip() { exits 66 humidor read dht22@pinctrl-bcm2711:4 && says '9030000.pl061' 'gpio-dhtsim'; }
check 'no chip of that label: which there are' unknown_chip
beyond() { exits 78 humidor read dht22@gpio-dhtsim:99 && says 'lines 0 to 31'; }
check 'a line beyond the chip' beyond
no_board() { exits 78 humidor read dht22@7 && says 'HUMIDOR_BOARD' 'orange-pi-zero'; }
check 'a header pin on an unknown board: what to set' no_board
twice() {
    exits 78 humidor node --node box --broker mqtt://127.0.0.1 --data /scratch/twice \
        --board orange-pi-zero --sensors hall=dht22@7,press=dht11@PA6 && says 'hall@7' 'press@PA6'
}
check 'one line under two names' twice

# As nobody: busybox's start-stop-daemon changes user and group and then is the program.
nobody() { start-stop-daemon -S -q -c "humidor:$1" -x /humidor -- read dht22@$at; }
chgrp 997 /dev/gpiochip1
chmod 660 /dev/gpiochip1
with_group() { exits 0 nobody 997 && says '35.1 °C'; }
check 'as uid 65532 with the device'"'"'s group: a reading' with_group
without_group() { exits 77 nobody 65532 && says '--device /dev/gpiochip1 --group-add 997'; }
chmod 600 /dev/gpiochip0
check 'as uid 65532 without it: exit 77 and what to add' without_group
doctor_nobody() {
    exits 77 start-stop-daemon -S -q -c humidor:65532 -x /humidor -- doctor --node guest --data /tmp \
        --sensors hall=dht22@$at && says 'WRONG  gpio:' '--device /dev/gpiochip'
}
check 'humidor doctor says the same' doctor_nobody
chmod 777 /tmp
doctor_root() { exits 0 humidor doctor --node guest --data /scratch --sensors hall=dht22@$at && says "hall@$at is line $at, free"; }
check 'humidor doctor as root: nothing is wrong' doctor_root
