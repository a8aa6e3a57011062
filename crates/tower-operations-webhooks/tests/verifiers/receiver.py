"""A receiver with the verifier of Standard Webhooks that is published on PyPI.

The argument is the secret. The receiver prints its port. It answers a webhook with 204 if the
verifier accepts it, and with 400 otherwise. A POST to /sign is answered with a signature of its body.
"""

import sys
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(sys.argv[1])


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        if self.path == "/sign":
            now = datetime.now(tz=timezone.utc)
            signature = WEBHOOK.sign("msg_python", now, body.decode())
            self.send_response(200)
            self.send_header("webhook-id", "msg_python")
            self.send_header("webhook-timestamp", str(int(now.timestamp())))
            self.send_header("webhook-signature", signature)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        try:
            WEBHOOK.verify(body, dict(self.headers))
            status = 204
        except WebhookVerificationError:
            status = 400
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
