"""The command line: one module for each command, and modules that commands share."""

from bouncemeter_exporter.cli.app import main, program

__all__ = ["main", "program"]
