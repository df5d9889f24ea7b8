"""A local web page: drop a photo, see its parts, read their names, download the label map.

    schnet serve --weights schnet_lip.safetensors

No request leaves the machine, and nothing is kept: photos and results go when the server ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import FrameType

from schnet.errors import InputError

# Read by Gradio and by huggingface_hub, which it brings along, when they are imported.
_PRIVATE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
# How long open pages are waited for at the end.
_LAST_SECONDS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--weights",
        required=True,
        help="a run's output folder, a checkpoint, or an export of it (.safetensors)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve on; others than 127.0.0.1 let other machines in",
    )
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Returns:
        The exit code, 0.

    Raises:
        InputError: Gradio is not installed, the address cannot be served on, or the weights cannot
            be used.
    """
    if importlib.util.find_spec("gradio") is None:
        raise InputError(
            "the web page needs Gradio, which is not installed: pip install 'schnet[serve]', or "
            "`make env-extras` in the repository"
        )
    with listen(args.host, args.port) as sock:
        from schnet.inference import Parser

        parser = Parser.load(args.weights, device=args.device, dtype=args.dtype)
        with tempfile.TemporaryDirectory(prefix="schnet-serve-") as folder:
            # Where Gradio keeps what is uploaded, too.
            os.environ.update(_PRIVATE, GRADIO_TEMP_DIR=folder)
            from schnet.web.app import build_app

            port = sock.getsockname()[1]
            _serve(build_app(parser, Path(folder), args.host, port), sock, args.host)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """Bind the address, before the model is loaded.

    Raises:
        InputError: it is taken, not this machine's, or no address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:  # the last of a name such as a..b
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}:{port} cannot be served on ({reason}): give another --port, or --host"
        ) from None
    return sock


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serve(app: object, sock: socket.socket, host: str) -> None:
    import uvicorn

    def end(signum: int, frame: FrameType | None) -> None:
        sys.exit(0)

    server = uvicorn.Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_level="warning",
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
    )
    if not is_local(host):
        print(f"note: whoever reaches {host} can use this page, which asks for no password")
    shown = f"[{host}]" if ":" in host else host
    print(f"open http://{shown}:{sock.getsockname()[1]} in a browser; Ctrl-C ends it", flush=True)
    # Uvicorn ends at SIGTERM, and then raises it again: the folder of photos must still go.
    before = signal.signal(signal.SIGTERM, end)
    try:
        server.run(sockets=[sock])
    except (KeyboardInterrupt, SystemExit):
        # Both are how a server is ended.
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
