# The kernel's own dht11 driver reads the same waveforms: it is the judge of our decoder.
insmod /industrialio.ko
insmod /dht11.ko
insmod /gpio-dhtsim.ko sensor_line=4 start_min_us=1000 iio=1
device=$(echo /sys/bus/iio/devices/iio:device*)

# kernel: temperature and humidity in thousandths, once the driver manages a reading (it keeps one for 2 s).
kernel() {
    local try
    for try in 1 2 3 4 5 6; do
        sleep 2
        if temperature=$(cat "$device/in_temp_input") && humidity=$(cat "$device/in_humidityrelative_input"); then
            echo "$temperature $humidity"
            return
        fi
    done
    return 1
}
# agree MODEL BYTES…: ours, through the same driver's line, and the kernel's value are the same number.
ours() { humidor read --gpio cdev "$1@gpio-dhtsim:4"; }
agree() {
    local model=$1
    shift
    play "$(wave "$@")"
    theirs=$(kernel) || { echo 'the kernel gives nothing'; return 1; }
    # The line is the driver's: it is unbound for our read and bound again.
    echo dht11 >/sys/bus/platform/drivers/dht11/unbind
    ours "$model" >/scratch/said 2>&1
    echo dht11 >/sys/bus/platform/drivers/dht11/bind
    device=$(echo /sys/bus/iio/devices/iio:device*)
    cat /scratch/said
    echo "kernel: $theirs"
    set -- $theirs
    grep -qF -e "$(thousandths "$1") °C  $(thousandths "$2") %" /scratch/said
}
thousandths() { awk -v n="$1" 'BEGIN { printf "%.1f", n / 1000 }'; }
check 'kernel and humidor agree: DHT22, 35.1 °C' agree dht22 02 8c 01 5f ee
check 'kernel and humidor agree: DHT22 below zero' agree dht22 02 8c 80 65 73
check 'kernel and humidor agree: DHT11, 23 °C' agree dht11 37 00 17 00 4e

play "$(wave 02 8c 01 5f ee)"
by_iio() { exits 0 humidor read --gpio iio dht22@gpio-dhtsim:4 && says '35.1 °C  65.2 %'; }
check 'the backend iio reads through the driver' by_iio
by_auto() { exits 0 humidor read dht22@gpio-dhtsim:4 && says '35.1 °C  65.2 %'; }
check 'auto leaves the line to the driver that has it' by_auto
by_cdev() { exits 69 humidor read --gpio cdev dht22@gpio-dhtsim:4 && says 'in use by `'; }
check 'cdev says that the driver has it' by_cdev
play ''
gone() { exits 69 humidor read --gpio iio dht22@gpio-dhtsim:4 --tries 2 && says 'no-response'; }
check 'no answer to the driver is no-response' gone
