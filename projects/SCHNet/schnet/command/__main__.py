"""`python -m schnet.command`: the command `schnet`, for torchrun."""

from __future__ import annotations

from schnet.command.main import run_from_shell

if __name__ == "__main__":
    run_from_shell()
