# A board a quarter as fast: readings, with the tries that the sampler has anyway.
insmod /gpio-dhtsim.ko sensor_line=4 start_min_us=1000
play "$(wave 02 8c 01 5f ee)"
readings=40
slow() {
    humidor read dht22@gpio-dhtsim:4 --count $readings >/scratch/said 2>&1
    good=$(grep -cF '35.1 °C  65.2 %' /scratch/said)
    echo "      $good of $readings readings, $(grep -c refused /scratch/said) frames refused" >/dev/console
    sed -n 's/.*refused, \([a-z-]*\):.*/\1/p' /scratch/said | sort | uniq -c
    tail -n 3 /scratch/said
    [ $((good * 100)) -ge $((readings * 95)) ]
}
check 'four times slower: at least 95 % of readings' slow
