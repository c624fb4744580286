"""A site that shares no code with Heron: the standard library, Redis's own protocol, plain HTTP.

Run as `python foreign_site.py REDIS_PORT`; it announces itself every second and answers the OpenAI API. It
ignores every header, knows no power, and says the least that a SiteReport must.
"""

import http.server
import json
import socket
import sys
import threading
import time


def redis(port, *words):
    with socket.create_connection(("127.0.0.1", port)) as link:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        link.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
        return link.recv(4096)


class OpenAI(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if request.get("stream"):
            chunks = [
                {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
                for word in ("Hello ", "there")
            ]
            chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            head = {"id": "x-1", "object": "chat.completion.chunk", "created": 1, "model": request["model"]}
            events = [json.dumps({**head, **chunk}) for chunk in chunks] + ["[DONE]"]
            body = "".join(f"data: {event}\n\n" for event in events).encode()
            self.answer(body, "text/event-stream")
        else:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there"},
                "finish_reason": "stop",
            }
            head = {"id": "x-1", "object": "chat.completion", "created": 1, "model": request["model"]}
            self.answer(json.dumps({**head, "choices": [choice]}).encode(), "application/json")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenAI)
threading.Thread(target=server.serve_forever, daemon=True).start()
sequence = int(time.time() * 1000)
while True:
    sequence += 1
    report = {
        "schema_version": "1.0",
        "agent_id": "somebody-else",
        "sequence": sequence,
        "site_id": "foreign",
        "observed_at_unix_seconds": time.time(),
        "ingress_url": f"http://127.0.0.1:{server.server_port}",
        "state": "serving",
        "models": [{"model": "foreign-model"}],
        "colour": "green",
    }
    record = json.dumps(report).encode()
    redis(int(sys.argv[1]), "SET", "heron:default:site:foreign", record, "EX", 60)
    redis(int(sys.argv[1]), "ZADD", "heron:default:sites", time.time(), "foreign")
    redis(int(sys.argv[1]), "PUBLISH", "heron:default:events:site", record)
    time.sleep(1)
