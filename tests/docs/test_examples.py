"""Every command in the documentation runs, and prints what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

from .console import Folder, examples, is_shown

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


JOURNAL = ROOT / "docs" / "journal.md"
WITH_EXAMPLES = [
    pytest.param(page, id=page.stem, marks=pytest.mark.needs("journal") if page == JOURNAL else ())
    for page in PAGES
    if examples(page.read_text())
]


@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_the_commands_of_a_page_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    if page == JOURNAL:
        folder.add_journal()
    for example in examples(page.read_text()):
        printed = folder.run(example)
        if example.output:
            assert is_shown(example.output, printed), "\n".join([f"$ {example.command}", *printed])
        else:  # a list of commands
            assert printed, example.command


@pytest.mark.parametrize("shown", [["one"], ["one", "..."], ["...", "two", "..."], ["three"]])
def test_what_is_not_printed_is_not_shown(shown: list[str]) -> None:
    assert not is_shown(shown, ["two!", "four"])


def test_dots_stand_for_lines() -> None:
    assert is_shown(["one", "...", "four"], ["one", "two", "three", "four"])
    assert is_shown(["one", "...", "two"], ["one", "two"])
    assert not is_shown(["one", "...", "two"], ["one", "two", "three"])
