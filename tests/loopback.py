"""A server on the loopback address, which gives a file well or badly, for the tests of downloads."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

BODY = np.random.default_rng(0).bytes(3_500_000)  # more than one chunk, and several megabytes of progress


class Server:
    """Serves `body` on the loopback address, as `behaviour` says, and counts the whole files asked for."""

    def __init__(self):
        self.body, self.behaviour, self.cut_after, self.asked = BODY, "well", 2_200_000, 0
        self.given = 0  # bytes
        self.ranges = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if outer.behaviour == "elsewhere" and self.path != "/elsewhere":
                    self.send_response(302)
                    self.send_header("Location", "/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                outer.asked += 1
                if outer.behaviour in ("404", "202"):
                    self.send_response(int(outer.behaviour))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                asked_for = self.headers.get("Range")
                outer.ranges.append(asked_for)
                start = int(asked_for.removeprefix("bytes=").removesuffix("-")) if asked_for else 0
                if outer.behaviour in ("no range", "wrong range"):
                    start = 0
                if start >= len(outer.body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(outer.body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                partial = start or (asked_for and outer.behaviour == "wrong range")
                self.send_response(206 if partial else 200)
                if partial:
                    last = len(outer.body) - 1
                    self.send_header("Content-Range", f"bytes {start}-{last}/{len(outer.body)}")
                if outer.behaviour not in ("no length", "endless"):
                    self.send_header("Content-Length", str(len(outer.body) - start))
                if outer.behaviour == "x-gzip":
                    self.send_header("Content-Encoding", "x-gzip")
                self.end_headers()
                end = start + outer.cut_after if outer.behaviour == "cut" else None
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(outer.body[start:end])
                    outer.given += len(outer.body[start:end])
                    while outer.behaviour == "endless":
                        outer.given += self.wfile.write(bytes(10**5))

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/numbers.bin"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
