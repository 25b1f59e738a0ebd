"""What is built here is built once for all tests, though several processes run them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

Build = Callable[..., Path]


def build(script: str, folder: Path, **environment: str) -> Path:
    """Run one of packaging/'s scripts; return the file that it made."""
    done = subprocess.run(
        [ROOT / "packaging" / script, folder],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What a script of packaging/ makes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"

    def once(script: str) -> Path:
        where = folder / script
        where.mkdir(parents=True, exist_ok=True)
        with (folder / f"{script}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return next(where.iterdir(), None) or build(script, where)

    return once
