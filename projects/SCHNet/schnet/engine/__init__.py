"""Training and evaluation runs: processes, trainer, optimizer and hooks."""
