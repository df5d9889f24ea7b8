"""The command `schnet` and its subcommands, a module each."""
