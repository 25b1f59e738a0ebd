"""Files of Exchange: in which order they are read, and in which encoding."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from bouncemeter_exporter.sources.files import FollowedFiles
from bouncemeter_exporter.sources.lines import read_text
from bouncemeter_exporter.sources.log import oldest_first
from bouncemeter_exporter.sources.source import LineCounts

MSGTRK = "#Software: Microsoft Exchange Server\n#Log-type: Message Tracking Log\n#Date: 2026-11-24T{}:00:00.000Z\n"


def test_exchange_logs_are_put_in_order_by_the_date_in_their_header(tmp_path: Path) -> None:
    """The names sort otherwise, the files were copied, and one has no outcome in it."""
    hours = {"MSGTRK2026112410-1.LOG": "10", "MSGTRK2026112409-2.LOG": "11", "MSGTRKMD2026112408-1.LOG": "08"}
    for name, hour in hours.items():
        (tmp_path / name).write_text(MSGTRK.format(hour))
    found = oldest_first([tmp_path / name for name in hours], None)
    assert [path.name for path, _ in found] == sorted(hours, key=lambda name: hours[name])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("from_start", [True, False])
def test_a_followed_log_in_utf_16_is_refused_with_a_sentence(
    tmp_path: Path, encoding: str, *, from_start: bool
) -> None:
    log, said = tmp_path / "export.csv", list[str]()
    log.write_bytes(MSGTRK.format("09").encode(encoding))
    source = FollowedFiles(
        str(log), parser=None, from_start=from_start, say=said.append, positions={}, lines=LineCounts()
    )
    for _ in range(2):
        assert [entry for block in source.poll() for entry in block] == []
    source.close()
    assert said == [
        f"{log} is in UTF-16, in which no log can be followed: convert it to UTF-8, or read it with bouncemeter report"
    ]


class Trickle(io.BytesIO):
    """Gives a few bytes at a time."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["", "\r\n"])
def test_a_stream_is_decoded_wherever_its_blocks_end(encoding: str, end: str) -> None:
    stream = Trickle(f"#TYPE x\r\nGr\u00fc\u00dfe,\u0a0a,\U0001f4e7{end}".encode(encoding))
    found = list(read_text(stream, "export.csv"))
    text = "".join(text for text, _ in found).removeprefix("\ufeff")
    assert text == "#TYPE x\nGr\u00fc\u00dfe,\u0a0a,\U0001f4e7\n"
    assert sum(size for _, size in found) == len(stream.getvalue())
