"""The command line: one module a command, and beside them what commands share."""

from bouncemeter_exporter.cli.app import app, main

__all__ = ["app", "main"]
