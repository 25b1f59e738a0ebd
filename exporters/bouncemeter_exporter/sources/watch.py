"""Tells when files and folders change, where the kernel can tell: on Linux, on file systems of this machine.

The kernel's two calls (inotify(7)) are made directly: a library for them would look for the C library in a process of
its own, at every start.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from bouncemeter_exporter.sources.listing import file_system

__all__ = ["Watch"]

LOCAL = re.compile("bcachefs|btrfs|ext[234]|f2fs|jfs|nilfs2|overlay|ramfs|reiserfs|tmpfs|xfs|zfs")
"""File systems whose every change this machine's kernel makes itself, and so can tell."""

_FILE = 0x2 | 0x4 | 0x400 | 0x800
"""IN_MODIFY, IN_ATTRIB, IN_DELETE_SELF, IN_MOVE_SELF."""

_FOLDER = 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF."""


class Watch:
    """Watches files and folders. What was watched before stays so until it is gone, which does no harm.

    Attributes:
        descriptor: Readable once one of them has changed since `renew`; None if that cannot be known.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self._opened: int | None = None
        self._masks: dict[Path, int] = {}
        self._local = False

    def renew(self, files: Iterable[Path], folders: Iterable[Path]) -> None:
        """Watch these from now on. Changes before this are forgotten, so look at the files after it.

        Args:
            files: Files, each in one of the folders.
            folders: Folders without links in their names.
        """
        masks = dict.fromkeys(folders, _FOLDER)
        if masks.keys() != {path for path, mask in self._masks.items() if mask == _FOLDER}:
            self._local = (
                hasattr(select, "epoll") and bool(masks) and all(LOCAL.fullmatch(file_system(each)) for each in masks)
            )
        masks.update(dict.fromkeys(files, _FILE))
        if not self._local:
            self._masks, self.descriptor = masks, None
            return
        try:
            if self._opened is None:
                self._opened = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
            if self._forget(self._opened) or masks != self._masks or self.descriptor is None:
                for path, mask in masks.items():
                    _call("inotify_add_watch", self._opened, os.fsencode(path), mask)
            self._masks, self.descriptor = masks, self._opened
        except OSError:  # one of them has gone, or this user may watch no more
            self.descriptor = None

    @staticmethod
    def _forget(descriptor: int) -> bool:
        """Forget changes; return whether there were any. After one, a file may be another, and no longer watched."""
        found = False
        with suppress(BlockingIOError):
            while os.read(descriptor, 65_536):
                found = True
        return found

    def close(self) -> None:
        """Watch nothing any more."""
        if self._opened is not None:
            os.close(self._opened)
        self.descriptor = self._opened = None


@cache
def _c_library() -> Any:  # noqa: ANN401 - its functions are known by name only
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    """Call a function of the C library.

    Raises:
        OSError: It failed, or there is no such function.
    """
    try:
        found: int = getattr(_c_library(), name)(*arguments)
    except AttributeError as error:
        raise OSError(f"there is no {name}") from error
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
