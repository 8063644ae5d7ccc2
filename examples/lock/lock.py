"""A lock in Python, by the AWS IoT Device SDK (`pip install awsiotsdk`): it keeps the device contract of
docs/firmware.md. It reaches AWS IoT Core, or any broker that `keywright shadow` serves.

    python3 lock.py --endpoint localhost --port 8883 --ca ca.pem --certificate lock.pem --key lock.key \
        --thing demo-lock-123 --memory lock.json
"""

import argparse
import json
import os
import queue
import time

from awscrt import mqtt
from awsiot import iotshadow, mqtt_connection_builder

REMEMBERED, SLOTS = 32, 100
ASK = object()
# How many seconds it waits before it asks for its entries: always, and after an answer. It answers the same write no sooner.
EVERY, SOON = 300, 5


def arguments():
    parser = argparse.ArgumentParser()
    for name in ["endpoint", "ca", "certificate", "key", "thing", "memory"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, default=8883)
    parser.add_argument("--shadow", default="keys")
    return parser.parse_args()


class Memory:
    """What survives a loss of power: the keys by slot, and how the last writes ended."""

    def __init__(self, path):
        self.path = path
        self.keys, self.settled = {}, []
        if os.path.exists(path):
            with open(path) as file:
                stored = json.load(file)
            self.keys, self.settled = stored["keys"], stored["settled"]

    def keep(self):
        with open(self.path + ".new", "w") as file:
            json.dump({"keys": self.keys, "settled": self.settled}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.path + ".new", self.path)

    def settle(self, write, entry):
        """Writes the key, unless it is done already, and says what came of it."""
        for known, result in self.settled:
            if known == write:
                return result
        slot = entry.get("keyIndexNumber")
        if slot is None:
            # The slot that the key is in already, or a free one.
            held = (int(n) for n, key in self.keys.items() if key == entry["keyUuid"])
            free = (n for n in range(SLOTS) if str(n) not in self.keys)
            slot = next(held, next(free, None))
        if slot is None:
            result = {"status": "FAILED", "reason": "NoSpace"}
        elif slot >= SLOTS:
            result = {"status": "FAILED", "reason": "IndexOutOfRange"}
        else:
            self.keys[str(slot)] = entry["keyUuid"]
            result = {"status": "SUCCEEDED", "keyIndexNumber": slot}
        self.settled = (self.settled + [[write, result]])[-REMEMBERED:]
        self.keep()
        return result


def main():
    args = arguments()
    memory, arrived = Memory(args.memory), queue.Queue()

    def resumed(connection, return_code, session_present, **more):
        # What was published meanwhile may not have been kept, so the lock asks; and a broker that has forgotten
        # the session has forgotten what was subscribed to.
        if session_present:
            arrived.put(ASK)
        else:
            again, _ = connection.resubscribe_existing_topics()
            again.add_done_callback(lambda done: arrived.put(ASK))

    connection = mqtt_connection_builder.mtls_from_path(
        cert_filepath=args.certificate, pri_key_filepath=args.key, ca_filepath=args.ca,
        endpoint=args.endpoint, port=args.port, client_id=args.thing, clean_session=False,
        keep_alive_secs=30, on_connection_resumed=resumed,
    )
    connection.connect().result(30)
    shadows = iotshadow.IotShadowClient(connection)
    shadow = {"thing_name": args.thing, "shadow_name": args.shadow}
    once = mqtt.QoS.AT_LEAST_ONCE
    subscribed, _ = shadows.subscribe_to_named_shadow_delta_updated_events(
        iotshadow.NamedShadowDeltaUpdatedSubscriptionRequest(**shadow), once,
        lambda delta: arrived.put(delta.state))
    subscribed.result(30)
    subscribed, _ = shadows.subscribe_to_get_named_shadow_accepted(
        iotshadow.GetNamedShadowSubscriptionRequest(**shadow), once,
        lambda answer: arrived.put(answer.state.delta))
    subscribed.result(30)
    print("the lock is online", flush=True)
    arrived.put(ASK)
    wait, answered = EVERY, {}
    while True:
        try:
            delta = arrived.get(timeout=wait)
        except queue.Empty:
            delta = ASK
        try:
            if delta is ASK:
                wait = EVERY
                shadows.publish_get_named_shadow(
                    iotshadow.GetNamedShadowRequest(**shadow), once).result(30)
                continue
            # Where nothing is wanted, there is no difference.
            entries = ((delta or {}).get("writeKey") or {}).items()
            for write, entry in sorted(entries, key=lambda item: item[1]["seq"]):
                if entry["expiresAt"] <= time.time():
                    continue
                if time.monotonic() - answered.get(write, -SOON) < SOON:
                    # A delta from before that answer, or one that it did not end. The next get shows which.
                    wait = SOON
                    continue
                result = memory.settle(write, entry)
                # One update reports the result and takes the entry away.
                state = iotshadow.ShadowState(
                    desired={"writeKey": {write: None}},
                    reported={"writeKeyResult": {write: result}})
                shadows.publish_update_named_shadow(
                    iotshadow.UpdateNamedShadowRequest(state=state, **shadow), once).result(30)
                answered = {known: at for known, at in answered.items() if time.monotonic() - at < SOON}
                answered[write] = time.monotonic()
                print(f"{write}: {result}", flush=True)
                # It asks whether the entry is gone; if not, it answers again.
                wait = SOON
        except Exception as error:
            print(f"asking again: {error!r}", flush=True)
            wait = SOON


if __name__ == "__main__":
    main()
