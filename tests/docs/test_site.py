"""The documentation's site, built as `make site` does it, and the links of all pages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from bouncemeter.knowledge.codes import catalogue

from tests.conftest import ROOT

PAGES = sorted(path for folder in (".", "docs", "tests/logs", "tests/replies") for path in (ROOT / folder).glob("*.md"))


def _prose(page: str) -> str:
    """A page without its code."""
    return re.sub(r"^( *)```.*?^\1```$|`[^`\n]+`", "", page, flags=re.MULTILINE | re.DOTALL)


def _anchors(page: str) -> set[str]:
    """The anchors that a page has on GitHub."""
    page = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in _anchors(path.read_text()), f"{target} has no heading #{anchor}"


@pytest.mark.slow
def test_the_site_has_a_page_for_each_code_and_no_broken_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    _no_link_is_broken({path: path.read_text() for path in tmp_path.rglob("*.html")})
    _every_code_has_a_page(tmp_path / "codes")
    index = (tmp_path / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")")
    assert {"5.7.606-649", *(str(each.code) for each in catalogue())} <= {*json.loads(index)["indexentries"]}


def _no_link_is_broken(pages: dict[Path, str]) -> None:
    anchors = {path: {*re.findall(r'\sid="([^"]+)"', text)} for path, text in pages.items()}
    for page, text in pages.items():
        for target, anchor in {*re.findall(r'href="([^"#:?]*)(?:\?[^"#]*)?(?:#([^"]*))?"', text)}:
            path = (page.parent / unquote(target)).resolve() if target else page
            assert path.exists(), f"{page} links {target}"
            if anchor and path in anchors:
                assert unquote(anchor) in anchors[path], f"{page} links {target}#{anchor}"


def _every_code_has_a_page(folder: Path) -> None:
    """With all that is known of it; the index marks the codes of the guide."""
    index = (folder / "index.html").read_text()
    assert index.count("<p>yes</p>") == sum(each.in_guide for each in catalogue()) == 89
    for each in catalogue():
        page = re.sub(r"<[^>]+>", "", (folder / f"{each.code}.html").read_text())
        for text in (each.title, each.meaning, *each.causes, each.postmaster, each.sender, each.reason, each.reference):
            assert _letters(text) in _letters(page), f"{each.code}: {text}"
        assert f'href="{each.code}.html"' in index


def _letters(text: str) -> str:
    """A text's letters alone: the site has its own quotation marks and dashes."""
    return re.sub(r"&\w+;|&#\d+;|[^a-zA-Z0-9]", "", text)
