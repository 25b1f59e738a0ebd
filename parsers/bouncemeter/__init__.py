"""Parses mail server logs: a log line in, an event out."""

__version__ = "0.1.0"
