"""A webhook on loopback that keeps what it is sent and can be told to fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Inbox:
    """What came, and what to answer: statuses in turn, then 204; ``delay_s`` before each answer."""

    address: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    attempts: int = 0
    delay_s: float = 0.0


@contextmanager
def webhook() -> Iterator[Inbox]:
    """Serve until the block ends."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.attempts += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(inbox.delay_s)
            status = inbox.statuses.pop(0) if inbox.statuses else 204
            if status == 204:
                inbox.received.append(body)
            try:
                self.send_response(status)
                self.end_headers()
            except OSError:
                pass  # the caller has given up

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inbox.address = f"http://127.0.0.1:{server.server_port}/secret-path"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield inbox
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
