"""Publishes readings with Eclipse paho over WebSocket, waits for each PUBACK, and hears them by another subscription."""

import sys
import threading

import paho.mqtt.client as mqtt

COUNT = 50
READING = '{"boot":"w","seq":%d,"at":1760000000123,"clock":"synced","mono":5,"temperature":21.5,"humidity":57.1}'


def connect(client_id, **callbacks):
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=mqtt.MQTTv5,
        transport="websockets",
    )
    client.ws_set_options(path="/mqtt")
    # Before its thread runs: an answer may come at once.
    for name, callback in callbacks.items():
        setattr(client, name, callback)
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    return client


heard, subscribed, complete = [], threading.Event(), threading.Event()


def on_message(client, userdata, message):
    heard.append(message.payload.decode())
    if len(heard) == COUNT:
        complete.set()


listener = connect(
    "listener",
    on_connect=lambda client, *_: client.subscribe("humidor/tablet/#", qos=1),
    on_subscribe=lambda *_: subscribed.set(),
    on_message=on_message,
)
assert subscribed.wait(20), "no SUBACK"

acknowledged = set()
tablet = connect("tablet", on_publish=lambda client, userdata, mid, reason, properties: acknowledged.add(mid))
readings = [READING % seq for seq in range(1, COUNT + 1)]
sent = [tablet.publish("humidor/tablet/sensor/hall", reading, qos=1) for reading in readings]
for message in sent:
    message.wait_for_publish(timeout=30)
complete.wait(20)
for client in (tablet, listener):
    client.disconnect()
    client.loop_stop()
print(f"{len(acknowledged)} of {COUNT} acknowledged, {len(heard)} heard")
sys.exit(0 if len(acknowledged) == COUNT and heard == readings else 1)
