"""How the site is built: `make site`, from these pages and the catalogue of codes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

DOCS = Path(__file__).parent
ROOT = DOCS.parent
REPOSITORY = "https://github.com/bouncemeter/bouncemeter"

sys.path.insert(0, str(DOCS))
import code_pages  # noqa: E402 - beside this file

project = "bouncemeter"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "bouncemeter"
html_show_copyright = False
html_copy_source = False
html_theme_options = {"source_repository": f"{REPOSITORY}/", "source_branch": "main", "source_directory": "docs/"}
myst_heading_anchors = 4
nitpicky = True


def _toctrees(index: str) -> str:
    """The index with what the site's menu needs: the pages that each of its sections lists."""
    menu = []
    for section in re.split("^## ", index, flags=re.MULTILINE)[1:]:
        pages = re.findall(r"^- \[.*?\]\((\S+)\.md\)", section, flags=re.MULTILINE)
        menu += ["", "```{toctree}", ":hidden:", f":caption: {section.splitlines()[0]}", "", *pages, "```"]
    menu += ["", "```{toctree}", ":hidden:", ":caption: Codes", "", "codes/index", "```", ""]
    return "\n".join([index, *menu])


def _outside(page: Path, source: str) -> str:
    """A page whose links to files of the repository, outside of the site, lead to the repository."""

    def link(match: re.Match[str]) -> str:
        target = (page.parent / match[1]).resolve()
        if target.is_relative_to(DOCS) or not target.exists():
            return match[0]
        return f"]({REPOSITORY}/blob/main/{target.relative_to(ROOT)}{match[2] or ''})"

    return re.sub(r"\]\((\.\.[^)#\s]*)(#[^)\s]*)?\)", link, source)


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    text = source[0]
    if name == "index":
        text = _toctrees(text)
    source[0] = _outside(Path(app.env.doc2path(name)), text)


def _write_codes(_app: Sphinx, _config: Config) -> None:
    code_pages.write(DOCS / "codes")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("config-inited", _write_codes)
    app.connect("source-read", _read)
