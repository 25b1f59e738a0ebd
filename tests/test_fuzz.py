"""A short run of the coverage-guided fuzzer on each of its targets; `make fuzz` runs it for longer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

TARGETS = ["postfix", "exim", "exchange", "lines", "syslog", "journal", "position", "explain"]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "3"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer runs on Linux")
@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzer_finds_no_failure(target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, f"-max_total_time={SECONDS}", "-timeout=10", "-max_len=4096"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=False,
        timeout=SECONDS + 300,
    )
    output = done.stderr.decode("utf-8", "replace")
    print(f"{target}: {output.splitlines()[-1]}")
    assert done.returncode == 0, output[-3000:]
