"""Receives the feed of all stores into an SQLite file, and acknowledges it as an archive of its own.

In: a broker, a certificate whose common name is the archive. Out: the file. README.md says how to run it.
"""

import argparse
import queue
import re
import signal
import sys
import time

from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from archive import Archive

TOPIC = re.compile(r"tw1/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/(birth|sum|evt)")
# Between network and archive. When it is full the network waits, and the broker with it.
ARRIVALS_MAX = 1_024
BATCH_MAX = 256
COMMIT_EVERY_S = 0.2
# What the broker may have under way to us.
RECEIVE_MAX = 256
CONNECTED = object()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--broker", default="localhost:8883", help="HOST:PORT, with TLS")
    parser.add_argument("--ca", required=True, help="the authority of broker and stores")
    parser.add_argument("--certificate", required=True, help="with the archive's name as its common name")
    parser.add_argument("--key", required=True)
    parser.add_argument("--archive", required=True, help="its name, also in `archives` of the agents' settings")
    parser.add_argument("--database", default="feed.sqlite")
    parser.add_argument("--no-ack", action="store_true", help="only read along; what comes while it is away is missed")
    return parser.parse_args()


def connect(settings, arrivals):
    """A client whose thread reads the network; it connects again for ever."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=settings.archive, protocol=mqtt.MQTTv5)
    client.tls_set(settings.ca, settings.certificate, settings.key)
    client.reconnect_delay_set(1, 30)

    def on_connect(client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            return print(f"the broker refuses the connection: {reason}", file=sys.stderr)
        client.subscribe([(f"tw1/+/+/{leaf}", mqtt.SubscribeOptions(qos=1)) for leaf in ("birth", "sum", "evt")])

    def on_subscribe(_client, _userdata, _mid, reasons, _properties):
        for reason in reasons:
            if reason.is_failure:
                print(f"the broker refuses a subscription: {reason}", file=sys.stderr)
        arrivals.put(CONNECTED)

    client.on_connect, client.on_subscribe = on_connect, on_subscribe
    # The PUBACK goes out when this returns. It is no promise: that is the acknowledgement after the commit.
    client.on_message = lambda _client, _userdata, message: arrivals.put(message)
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = RECEIVE_MAX
    host, _, port = settings.broker.rpartition(":")
    client.connect_async(host, int(port), keepalive=30, clean_start=True, properties=properties)
    client.loop_start()
    return client


def batch(arrivals):
    """What arrives within a commit's time."""
    until, found = time.monotonic() + COMMIT_EVERY_S, []
    while len(found) < BATCH_MAX:
        try:
            found.append(arrivals.get(timeout=max(0.0, until - time.monotonic())))
        except queue.Empty:
            break
    return found


def take(archive, arrived):
    if arrived is CONNECTED:
        return archive.restarted()
    topic = TOPIC.fullmatch(arrived.topic)
    if topic:
        shard, site, leaf = topic.groups()
        archive.take(shard, site, leaf, arrived.payload)


def main():
    settings, arrivals, told = arguments(), queue.Queue(ARRIVALS_MAX), []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    archive = Archive(settings.database, settings.archive)
    client = connect(settings, arrivals)
    print("ready", flush=True)
    while not told:
        for arrived in batch(arrivals):
            take(archive, arrived)
        archive.commit()
        if client.is_connected() and not settings.no_ack:
            for topic, payload in archive.acks(time.monotonic()):
                client.publish(topic, payload, qos=1, retain=True)
    client.disconnect()


if __name__ == "__main__":
    main()
