"""A short run of the coverage-guided fuzzer on each of its targets; `make fuzz` runs it for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TARGETS = ["postfix", "exim", "exchange", "lines", "syslog", "journal", "position", "explain"]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "3"))


@pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer runs on Linux")
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzed(tmp_path: Path, target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, f"-max_total_time={SECONDS}", "-timeout=10", "-max_len=4096"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=False,
        timeout=SECONDS + 120,
    )
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, said[-3000:]
    print(said.splitlines()[-1])
