"""Tells systemd that the exporter serves (`Type=notify`, sd_notify(3))."""

from __future__ import annotations

import os
import socket

__all__ = ["notify"]


def notify(state: str) -> None:
    """Send systemd a state such as `READY=1`, if it waits for one."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
