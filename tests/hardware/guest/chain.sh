# A board and a broker in one machine: from the line to the row.
insmod /gpio-dhtsim.ko sensor_line=4 start_min_us=1000
play "$(wave 02 8c 80 65 73)"
humidor broker --data /scratch/broker --mqtt-listen 127.0.0.1:1883 >/scratch/broker.log 2>&1 &
broker=$!
until_true 20 humidor health --mqtt-listen 127.0.0.1:1883
humidor node --node board --broker mqtt://127.0.0.1 --data /scratch/node --interval 2s \
    --sensors hall=dht22@gpio-dhtsim:4 >/scratch/node.log 2>&1 &
node=$!
stored() { humidor export --data /scratch/broker | grep -q '^board,hall,.*,-10.1,65.2$'; }
row() { until_true 60 stored || { cat /scratch/node.log /scratch/broker.log; humidor export --data /scratch/broker; return 1; }; }
check 'humidor node to humidor broker: the row is in the log with the right values' row
chosen() { grep -q 'sensor by cdev' /scratch/node.log; }
check 'the log says which way was chosen' chosen
claimed() { humidor gpio list | grep -q 'gpio-dhtsim.*:4 .*humidor:hall'; }
check 'humidor gpio list says who has the line' claimed
stops() { kill $node && wait $node && kill $broker && wait $broker; }
check 'both end with 0 at SIGTERM' stops
