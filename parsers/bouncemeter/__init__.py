"""Mail-server logs, understood: a line of log in, an event out."""

__version__ = "0.1.0"
