"""A file server on this machine that answers as told: whole, cut short, slow, or with an error."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server sends for a path.

    Attributes:
        body: the bytes of the answer.
        status: the HTTP status.
        announced: the Content-Length; None takes the body's.
        chunked: send the body as one chunk of a stream that has no end.
        pause: seconds to wait in the middle of the body.
    """

    body: bytes
    status: int = 200
    announced: int | None = None
    chunked: bool = False
    pause: float = 0.0


@dataclass
class WeightServer:
    """A running server: its address, its answers by path, and the paths that were asked for."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.send_response(answer.status)
    if answer.chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    else:
        announced = len(answer.body) if answer.announced is None else answer.announced
        handler.send_header("Content-Length", str(announced))
    handler.end_headers()
    half = len(answer.body) // 2
    if answer.chunked:
        handler.wfile.write(f"{len(answer.body):x}\r\n".encode())
    handler.wfile.write(answer.body[:half])
    handler.wfile.flush()
    time.sleep(answer.pause)
    handler.wfile.write(answer.body[half:])
    handler.close_connection = True


@contextlib.contextmanager
def serve() -> Iterator[WeightServer]:
    """Run a server on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.asked.append(self.path)
            with contextlib.suppress(OSError):  # the client may have been killed
                _send(self, told.answers.get(self.path, Answer(b"nothing here", status=404)))

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = WeightServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
