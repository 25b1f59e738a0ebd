"""The wheel and the source distribution hold everything, and the wheel runs by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from bouncemeter_exporter.grafana.rules import ALERTMANAGER, FILE

from tests.conftest import LOGS, ROOT

pytestmark = pytest.mark.slow

PLACES = {
    "parsers/bouncemeter": "bouncemeter",
    "exporters/bouncemeter_exporter": "bouncemeter_exporter",
    "exporters/pyspark_bouncemeter": "pyspark_bouncemeter",
    "grafana": "bouncemeter_exporter/bundled",
}
"""Folders of a clone, and where the wheel has them."""


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _build(clone: Path, folder: Path, *what: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", folder, *what],
        cwd=clone,
        check=True,
        capture_output=True,
    )


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of this clone."""
    folder = tmp_path_factory.mktemp("built")
    _build(ROOT, folder)
    return folder


def test_the_wheel_holds_every_file_of_the_code(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    expected = {
        f"{place}/{name}": content
        for folder, place in PLACES.items()
        for name, content in _files(ROOT / folder).items()
    }
    for name in ("bouncemeter.service", "bouncemeter.toml"):
        expected[f"bouncemeter_exporter/bundled/{name}"] = (ROOT / "packaging" / name).read_bytes()
    version = wheel.name.split("-")[1]
    expected[f"bouncemeter-{version}.data/data/share/man/man1/bouncemeter.1"] = (
        ROOT / "packaging" / "bouncemeter.1"
    ).read_bytes()
    found = {name: content for name, content in _content(wheel).items() if ".dist-info/" not in name}
    assert found == expected


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as file:
        file.extractall(tmp_path)
    (clone,) = tmp_path.iterdir()
    _build(clone, tmp_path / "again", "--target", "wheel")
    (wheel,) = built.glob("*.whl")
    (again,) = (tmp_path / "again").iterdir()
    assert _content(again) == _content(wheel)
    for folder in ("docs", "packaging", "tests/logs"):
        written = {each for each in _files(ROOT / folder) if not str(each).startswith("codes/")}  # by the site
        assert written == set(_files(clone / folder))


def test_the_wheel_runs_by_itself(built: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_LIBRARY_PATH")}

    def run(program: str, *words: str | Path) -> str:
        done = subprocess.run(
            [tmp_path / "venv" / "bin" / program, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("pip", "install", "--quiet", "--disable-pip-version-check", next(built.glob("*.whl")))
    assert "52 outcomes" in run("bouncemeter", "report", LOGS / "postfix" / "relay.log")
    assert "5.7.1" in run("bouncemeter", "explain", "5.7.1")
    written = run("bouncemeter", "rules", "export", "rules").split()
    assert written == [f"rules/{each}" for each in (FILE, *(f"alertmanager/{name}" for name in ALERTMANAGER))]
    assert "dashboards/bouncemeter-mail.json" in run("bouncemeter", "grafana", "export", "grafana")
    assert run("bouncemeter", "service", "--settings") == (ROOT / "packaging" / "bouncemeter.toml").read_text()
