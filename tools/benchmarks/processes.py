"""A session in a process of its own: with other switches, or with memory that nothing else took."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

TOOLS = Path(__file__).resolve().parents[1]
_END_OF_ERRORS = 2000
_ALLOCATOR = re.compile(r"MALLOC_\w+|GLIBC_TUNABLES")


class SessionProcess:
    """A process that holds a `benchmarks.session.Session` and runs it on request; a context.

    Between requests it waits without using the processor, so that several can take turns.
    """

    def __init__(
        self,
        module: str,
        description: Mapping[str, Any],
        *,
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; the first request waits until it is ready.

        Args:
            module: see `Session`.
            description: see `Session`.
            threads: of torch.
            environment: variables that are set for it. Of this process's own it gets all but those
                of the C library's allocator, which a comparison sets or means to leave alone.
        """
        paths = [str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if not _ALLOCATOR.fullmatch(k)},
                "OMP_NUM_THREADS": str(threads),
                **(environment or {}),
                "PYTHONPATH": os.pathsep.join(paths),
            },
        )
        self._send({"module": module, "description": dict(description), "threads": threads})

    def __enter__(self) -> SessionProcess:
        """The session itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def time(self, side: str) -> dict[str, float]:
        """See `Session.time`."""
        return self._request("time", side)

    def memory(self, side: str) -> dict[str, int] | None:
        """See `Session.memory`."""
        return self._request("memory", side)

    def check(self, side: str) -> dict[str, float]:
        """See `Session.check`."""
        return self._request("check", side)

    def _request(self, action: str, side: str) -> Any:
        self._send({"action": action, "side": side})
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return json.loads(line)

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _died(self) -> RuntimeError:
        code = self._process.wait()
        self._errors.seek(0)
        told = self._errors.read().decode(errors="replace")[-_END_OF_ERRORS:]
        return RuntimeError(f"a benchmark's process ended with code {code}:\n{told}")
