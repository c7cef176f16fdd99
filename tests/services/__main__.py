"""`make services`: a real Kafka and an MQTT broker (mosquitto where it is found) on loopback until Ctrl-C.

`python -m tests.services [--kafka-port N] [--mqtt-port N] [--folder DIR]`. DIR (default: a temporary folder,
removed at the end) keeps topics and messages from one run to the next.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from flows.broker import is_free, start_broker
from tests.services.kafka import KafkaBroker, why_not


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("--kafka-port", type=int, default=9092)
    parser.add_argument("--mqtt-port", type=int, default=1883)
    parser.add_argument("--folder", type=Path, help="keep what the services store")
    chosen = parser.parse_args()
    lacking = why_not()
    if lacking:
        print(f"{lacking}; a Kafka needs both (openjdk-17-jre-headless, maven)", file=sys.stderr)
        return 3
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        folder = chosen.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-services-"))
        )
        for port in (chosen.kafka_port, chosen.mqtt_port):
            if not is_free(port):
                print(f"127.0.0.1:{port} is in use; choose another port", file=sys.stderr)
                return 3
        print("starting Kafka (the first time its jars are fetched, 44 MB)", flush=True)
        kafka = KafkaBroker(folder / "kafka", port=chosen.kafka_port)
        kafka.start()
        stack.callback(kafka.stop)
        settings = f"KAFKA={kafka.address}"
        print(f"Kafka  {kafka.address}", flush=True)
        mqtt = start_broker(folder / "mqtt", chosen.mqtt_port)
        stack.callback(mqtt.stop)
        settings = f"MQTT_PORT={chosen.mqtt_port} {settings}"
        print(f"MQTT   127.0.0.1:{chosen.mqtt_port} ({mqtt.kind})", flush=True)
        print(
            "\nthe example plant on them, devices for it, and what comes out:\n"
            f"  {settings} .venv/bin/penstock run examples/press-line\n"
            f"  {settings} .venv/bin/penstock simulate examples/press-line\n"
            f"  .venv/bin/python examples/alarm-consumer/consumer.py --bootstrap {kafka.address}\n"
            "\nCtrl-C stops them",
            flush=True,
        )
        stop.wait()
        print("stopping", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
