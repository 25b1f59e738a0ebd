"""A real browser, without a window: what a page looks like to those who read it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from .programs import program

__all__ = ["Browser", "Layout"]

MEASURE = """<script>
const root = document.documentElement, wide = [...document.querySelectorAll(".scroll")];
parent.postMessage([innerWidth, root.scrollWidth, wide.filter(each => each.scrollWidth > each.clientWidth).length,
    getComputedStyle(document.body).backgroundColor.replaceAll(" ", "")].join(" "), "*");
</script>"""
FRAME = """<!DOCTYPE html><html><head><meta name="color-scheme" content="light dark">
<script>addEventListener("message", message => document.documentElement.dataset.layout = message.data)</script></head>
<body><iframe src="copy.html" style="border: 0; width: {width}px; height: 900px"></iframe></body></html>"""
"""A frame, for a window cannot be as narrow as a telephone."""


class Layout(NamedTuple):
    """How a page is laid out.

    Attributes:
        width: The width of the frame in pixels.
        content: The width of what is in it.
        scrolling: How many of its tables are wider than their place.
        background: The background's colour.
    """

    width: int
    content: int
    scrolling: int
    background: str


class Browser:
    """Chromium.

    Args:
        folder: For its files.
    """

    def __init__(self, folder: Path) -> None:
        found = program("chromium")
        assert found is not None
        self._program, self._folder = found.resolve(), folder
        root = next(each.parent for each in self._program.parents if each.name == "usr")  # "/", or where it is unpacked
        libraries = [f"{root}/{each}/{os.uname().machine}-linux-gnu" for each in ("usr/lib", "lib")]
        libraries.append(f"{libraries[0]}/pulseaudio")
        fonts = folder / "fonts.conf"
        places = "".join(f"<dir>{each}</dir>" for each in ("/usr/share/fonts", f"{root}/usr/share/fonts"))
        fonts.write_text(f"<fontconfig>{places}<cachedir>{folder}/fonts</cachedir></fontconfig>")
        self._environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries), "FONTCONFIG_FILE": str(fonts)}

    def layout(self, page: str, width: int, *, dark: bool = False) -> Layout:
        """Lay out a copy of a page."""
        (self._folder / "copy.html").write_text(page + MEASURE)
        frame = self._folder / "frame.html"
        frame.write_text(FRAME.format(width=width))
        shown, said = self._run("--dump-dom", "--virtual-time-budget=5000", frame.as_uri(), dark=dark)
        found = re.search(r'data-layout="([^"]+)"', shown)
        assert found is not None, said
        window, content, scrolling, background = found[1].split()
        return Layout(int(window), int(content), int(scrolling), background)

    def visit(self, url: str) -> tuple[str, str]:
        """Open a page; returns what came of it, and what the browser complained about."""
        found, said = self._run("--dump-dom", "--enable-logging=stderr", url)
        return found, "\n".join(each for each in said.splitlines() if "CONSOLE" in each)

    def screenshot(self, url: str, file: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Write a picture of a page."""
        self._run(f"--screenshot={file}", url, width=width, height=height, dark=dark)

    def _run(self, *words: str, width: int = 1400, height: int = 900, dark: bool = False) -> tuple[str, str]:
        done = subprocess.run(
            [
                self._program,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
                *("--no-first-run", "--disable-background-networking", f"--user-data-dir={self._folder}/profile"),
                *([f"--window-size={width},{height}"]),
                *(["--force-dark-mode"] if dark else []),
                *words,
            ],
            capture_output=True,
            env=self._environment,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, done.stderr
