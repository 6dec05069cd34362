"""Publishes 500 readings at QoS 1 with Eclipse paho and waits for each PUBACK."""

import sys

import paho.mqtt.client as mqtt

COUNT = 500
READING = '{"boot":"b","seq":%d,"at":1760000000123,"clock":"synced","mono":5,"temperature":21.5,"humidity":57.1}'

acknowledged = set()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho")
client.on_publish = lambda client, userdata, mid, reason, properties: acknowledged.add(mid)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
sent = [client.publish("humidor/paho/sensor/s", READING % seq, qos=1) for seq in range(1, COUNT + 1)]
for message in sent:
    message.wait_for_publish(timeout=30)
client.disconnect()
client.loop_stop()
print(f"{len(acknowledged)} of {COUNT} acknowledged")
sys.exit(0 if len(acknowledged) == COUNT else 1)
