"""A cloud that costs little, beside what `scripts/bench overload` measures: it keeps nothing and promises everything.

Results get their receipts, so that the device's sync works as it does in a shop. Frames get what the function of the
day gives: each line on standard input names it ("answers", "hangs", "500", "429"). The first line on standard output
is the address of the API. Arguments: port and password file of the broker's listener for the cloud.
"""

import contextlib
import json
import random
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from wire import envelope, mqtt, topics
from wire.records import Receipt, Span

FUNCTION_S = 0.05
HANG_S = 60.0


class Api(BaseHTTPRequestHandler):
    """Answers as it was told last."""

    protocol_version = "HTTP/1.1"
    mood = "answers"

    def do_PUT(self) -> None:
        """Take a frame."""
        self.rfile.read(int(self.headers["Content-Length"]))
        if Api.mood == "hangs":
            time.sleep(HANG_S)
        time.sleep(FUNCTION_S)
        status = 200 if Api.mood == "answers" else int(Api.mood) if Api.mood.isdigit() else 504
        body = json.dumps({"state": "answered", "usd": 0.000002, "billed_ms": 50}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(OSError):  # the device has given up waiting
            self.end_headers()
            self.wfile.write(body)

    do_POST = do_PUT  # noqa: N815 - as http.server names them

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def give_receipts(port: int, password: str) -> None:
    """Say of everything that comes that it was committed."""
    wanted = tuple((topics.every_device(rest), 1) for rest in (topics.RESULTS, topics.ALERTS))
    options = mqtt.Options(
        host="127.0.0.1", port=port, client_id="bench-cloud", username="cloud", password=password, subscriptions=wanted
    )
    session = mqtt.Session(options, random.Random(1))
    session.start()
    while True:
        event = session.next_event(1.0)
        if not isinstance(event, mqtt.Message):
            continue
        device, _ = topics.split(event.topic)
        told = json.loads(event.payload)
        keys = [(record["run"], record["seq"]) for record in told["data"]["records"]]
        spans = tuple(Span(run=run, first=seq, last=seq) for run, seq in keys)
        receipt = Receipt(envelope=told["id"], committed=spans)
        payload = envelope.seal_message("receipt", envelope.CLOUD_SOURCE, receipt, datetime.now(UTC))
        session.publish(topics.topic(device, topics.RECEIPTS_DOWN), payload, correlation=told["id"].encode())


def main() -> None:
    """Serve until standard input ends."""
    port, password = int(sys.argv[1]), Path(sys.argv[2]).read_text("utf-8").strip()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=give_receipts, args=(port, password), daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    for line in sys.stdin:
        Api.mood = line.strip()


if __name__ == "__main__":
    main()
