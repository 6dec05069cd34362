# The real sunxi pinctrl driver with the Orange Pi Zero's device tree. QEMU has the registers' addresses and
# nothing behind them: every line reads 0, which is a line that stays low.
header() { exits 0 humidor gpio header && says 'Orange Pi Zero' 'PA6' 'xunlong,orangepi-zero'; }
check 'the board is recognised' header
silent() { exits 69 humidor read "$1" --tries 1 && says 'refused, stuck-low: no response from the sensor'; }
check 'a read on header pin 7: no response from the sensor, with the cause' silent dht22@7
check 'the same line as PA6' silent dht22@PA6
check 'the same line as chip and offset' silent dht22@1c20800.pinctrl:6
twice() {
    exits 78 humidor node --node box --broker mqtt://127.0.0.1 --data /scratch/twice \
        --sensors hall=dht22@7,press=dht11@PA6 && says '1c20800.pinctrl:6'
}
check 'header pin 7 and PA6 are the same line' twice
near() { exits 78 humidor read dht22@9 && says 'ground' '8 (PG6)' '10 (PG7)'; }
check 'a ground pin: which pins are near' near
led() { exits 69 humidor read dht22@PA17 --tries 1 && says 'red status LED'; }
check 'a reserved line: why' led
# Bank PC of the H2+ has no interrupts; PA has.
inputs() {
    humidor node --node box --broker mqtt://127.0.0.1 --data /scratch/inputs \
        --inputs door=1c20800.pinctrl:64,gate=PA1 >/scratch/said 2>&1 &
    node=$!
    until_true 20 grep -q 'outbox open' /scratch/said
    kill $node
    wait $node
    cat /scratch/said
    grep 'no interrupts' /scratch/said | grep -q 'input=door' && ! grep 'no interrupts' /scratch/said | grep -q 'input=gate'
}
check 'an input on a bank without interrupts is polled, others have events' inputs
