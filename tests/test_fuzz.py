"""A short run of the coverage-guided fuzzer on each of its targets; `make fuzz` runs it for long."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT

TARGETS = ["postfix", "exim", "exchange", "lines", "syslog", "journal", "position", "explain"]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "3"))


def fuzz(target: str) -> tuple[str, int, str]:
    """Fuzz a target; its name, the exit code, and what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, f"-max_total_time={SECONDS}", "-timeout=10", "-max_len=4096"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=False,
        timeout=SECONDS + 300,
    )
    return target, done.returncode, done.stderr.decode("utf-8", "replace")


@pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer runs on Linux")
def test_nothing_that_breaks_a_parser_or_source_is_found() -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for target, code, said in pool.map(fuzz, TARGETS):
            print(f"{target}: {said.splitlines()[-1]}")
            assert code == 0, f"{target}: {said[-3000:]}"
