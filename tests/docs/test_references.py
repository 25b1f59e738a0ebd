"""The references are what the program says today; `make docs` writes them again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from bouncemeter_exporter.config import SETTINGS, Config, read_config

from tests.conftest import LOGS, ROOT

from .references import commands, configuration, example, families, metrics


@pytest.mark.parametrize("page", [commands, configuration, metrics], ids=lambda page: page.__name__)
def test_the_reference_is_what_the_program_says(page: Callable[[], str]) -> None:
    path = ROOT / "docs" / f"{page.__name__}.md"
    if os.environ.get("WRITE_DOCS"):
        path.write_text(page())
    assert path.read_text() == page()


def test_the_example_of_a_configuration_has_every_setting_and_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "bouncemeter.toml"
    path.write_text(example())
    assert read_config(path).sources
    assert sorted(each.field for each in SETTINGS) == sorted(each.name for each in dataclasses.fields(Config))
    for each in SETTINGS:
        assert each.example in example()


def test_the_reference_has_every_metric_that_is_served() -> None:
    known = {f"{each.name}_total" if each.kind == "counter" else each.name for each in families()}
    for path in LOGS.glob("*/*.prom"):
        served = {line.split()[2] for line in path.read_text().splitlines() if line.startswith("# TYPE")}
        assert served <= known
