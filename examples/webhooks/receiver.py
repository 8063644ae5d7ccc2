"""Receives webhooks, verifies their signatures and ignores repetitions: python3 receiver.py PORT. The secret is in WEBHOOK_SECRET.

It needs Python 3.9 and nothing besides. It prints the id and the type of each new event.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ.get("WEBHOOK_SECRET", "").removeprefix("whsec_"))
if len(KEY) < 24:
    sys.exit("set WEBHOOK_SECRET to the secret of the webhook, which begins with whsec_")
TOLERANCE = 300  # seconds
MAX_BODY = 256 * 1024
seen = set()  # Use a table with a unique key, so that it outlives the process.


def is_valid(headers, body):
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    signed = f"{headers.get('webhook-id', '')}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest())
    signatures = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(signature, expected) for signature in signatures)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if length > MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_valid(self.headers, body):
            return self.answer(401)
        event = json.loads(body)
        if event["id"] not in seen:
            print(event["id"], event["detail-type"], flush=True)
            seen.add(event["id"])  # Only what is processed: an event that was not is delivered again.
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
print("ready", server.server_port, flush=True)
server.serve_forever()
