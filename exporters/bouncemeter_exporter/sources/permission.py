"""Why something cannot be read, and what gives the permission."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["GROUPS", "closed_folder", "may", "may_user", "may_write", "remedy", "why"]


GROUPS = hasattr(os, "getgroups")
"""Whether this system has users and groups; Windows has others."""


NOBODYS = 65534
"""The number that the kernel shows for a group outside of a service's own."""


def why(error: OSError, path: Path) -> str:
    """What an error says; if a permission is missing, also what gives it.

    Args:
        error: Raised when the file was opened or looked at.
        path: The file.
    """
    said = error.strerror or str(error)
    return f"{said}; {remedy(path)}" if isinstance(error, PermissionError) and GROUPS else said


def remedy(path: Path) -> str:
    """Who may read a file that this user may not read, and the command that makes this user one of them."""
    import grp  # noqa: PLC0415 - Windows has none
    import pwd  # noqa: PLC0415

    folder = closed_folder(path)
    closed, entered = folder or path, folder is not None
    what = f"only {{}} may {f'enter {closed}' if entered else 'read it'}: {{}}"
    user = _name(pwd.getpwuid, os.geteuid())
    contained = user.isdigit()  # a container's user has no name
    as_root = "run the container with '--user 0'" if contained else "use sudo"
    try:
        found = closed.stat()
    except OSError:
        return what.format("root", as_root)
    if not found.st_gid or not found.st_mode & (stat.S_IXGRP if entered else stat.S_IRGRP):
        return what.format("root", as_root)
    if found.st_gid == NOBODYS:  # a service's user cannot see the groups of others
        return what.format("root and its group", f"add the service to it: 'stat -c %G {closed}' tells which it is")
    group = _name(grp.getgrgid, found.st_gid)
    again = "restart the service" if "INVOCATION_ID" in os.environ else "log in again"  # systemd's
    join = f"run 'sudo usermod -aG {group} {user}' and {again}"
    if contained:
        join = f"run the container with '--group-add {found.st_gid}'"
    return what.format(f"root and the group {group}", join)


def closed_folder(path: Path) -> Path | None:
    """The first folder on the way to a file that this user may not enter, if there is one."""
    return next((each for each in reversed(path.parents) if os.path.isdir(each) and not may(each, os.X_OK)), None)  # noqa: PTH112 - it raises nothing


def may(path: Path, mode: int) -> bool:
    """Whether this user may read (`os.R_OK`), write (`os.W_OK`) or enter (`os.X_OK`) something that is there."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def may_user(user: str, path: Path) -> str:
    """What lets a user of this machine read a file; empty if nothing is needed, or if there is no such user."""
    import grp  # noqa: PLC0415 - Windows has none
    import pwd  # noqa: PLC0415

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return ""
    groups = {entry.pw_gid, *(each.gr_gid for each in grp.getgrall() if user in each.gr_mem)}
    for each in (*reversed(path.absolute().parents), path):
        found, bit = each.stat(), stat.S_IROTH if each == path else stat.S_IXOTH
        place = 6 if found.st_uid == entry.pw_uid else 3 if found.st_gid in groups else 0
        if found.st_mode & bit << place:
            continue
        group = _name(grp.getgrgid, found.st_gid)
        if found.st_gid and found.st_mode & bit << 3:
            return f"usermod -aG {group} {user}"
        return f"chgrp adm {each}; chmod g+{'r' if each == path else 'rx'} {each}"
    return ""


def may_write(path: Path) -> str:
    """Why this user cannot write a file, which may not exist yet; empty if he can."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if there != path and not there.is_dir():
        return f"{there} is no folder"
    if there == path and there.is_dir():
        return "it is a folder"
    for each in {there, path.parent if path.parent.is_dir() else there}:
        if not may(each, os.W_OK):
            return f"{each} is not writable by this user"
    return ""


def _name(look_up: Callable[[int], Any], number: int) -> str:
    """The name of a group or user; its number if it has none."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)
