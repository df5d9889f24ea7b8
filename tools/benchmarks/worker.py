"""The process behind `SessionProcess`: one JSON request a line in, one JSON answer a line out."""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Make the session that the first line describes, then answer until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Whatever a library prints must not look like an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = json.loads(sys.stdin.readline())
    import torch
    from benchmarks.session import Session

    torch.set_num_threads(first["threads"])
    session = Session(first["module"], first["description"])
    for line in sys.stdin:
        request = json.loads(line)
        actions = {"time": session.time, "memory": session.memory, "check": session.check}
        answers.write(json.dumps(actions[request["action"]](request["side"])) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
