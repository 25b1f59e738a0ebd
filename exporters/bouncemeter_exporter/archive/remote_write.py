"""Sends samples by Prometheus' remote-write protocol, version 1: snappy-compressed protobuf over HTTP."""

from __future__ import annotations

import base64
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from bouncemeter import __version__

from bouncemeter_exporter.archive.samples import Samples

__all__ = ["SLICE", "RemoteWrite", "RemoteWriteError"]

SLICE = 1800
"""Seconds of samples that are sent together, series by series: Prometheus takes none that are an hour older than the
latest."""

MAX_SERIES = 500
"""Series in a request, so that none becomes too large for a receiver."""

RETRIES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds to wait before a request is sent again that the server could not take now."""

TIMEOUT = 60.0
"""Seconds for a request."""

_LATE = re.compile("out of order|out of bounds|too old|duplicate sample", re.IGNORECASE)


class RemoteWriteError(Exception):
    """The samples cannot be sent; its text says why."""


class RemoteWrite:
    """A receiver.

    Args:
        url: Its URL, with user and password if it asks for them.
        labels: Labels of each series besides its own.
        headers: Further headers, each `NAME: VALUE`.
        say: Called with a sentence about what is waited for.

    Attributes:
        refused: Requests of which the receiver refused samples as too old or out of order.

    Raises:
        RemoteWriteError: A library is missing.
        ValueError: The URL or a header is not valid.
    """

    def __init__(
        self, url: str, labels: Mapping[str, str], headers: Iterable[str] = (), say: Callable[[str], None] = print
    ) -> None:
        try:
            import cramjam  # noqa: PLC0415 - only here, and an extra

            self._compress: Callable[[bytes], Any] = cramjam.snappy.compress_raw
            self._message = _write_request()
        except ImportError as error:
            raise RemoteWriteError(
                f"--remote-write needs {error.name}: pip install 'bouncemeter[remote-write]'"
            ) from error
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--remote-write: {url!r} is not a URL such as http://localhost:9090/api/v1/write")
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
            "User-Agent": f"bouncemeter/{__version__}",
        }
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
        for header in headers:
            name, colon, value = header.partition(":")
            if not colon or re.fullmatch(r"[A-Za-z0-9-]+", name) is None or not value.strip().isprintable():
                raise ValueError(f"--header: {header!r} is not of the form NAME: VALUE")
            self._headers[name] = value.strip()
        self._labels, self._say = labels, say
        self.refused = 0

    def write(self, samples: Samples) -> None:
        """Send samples, all of which are later than those before.

        Raises:
            RemoteWriteError: The receiver does not take them.
        """
        series = samples.at_each_time()
        while batch := list(islice(series, MAX_SERIES)):
            request = self._message()
            for name, values in batch:
                one = request.timeseries.add()
                text = {"__name__": name.family + name.suffix, **dict(zip(name.names, name.labels, strict=True))}
                for key, value in sorted({**text, **self._labels}.items()):
                    one.labels.add(name=key, value=value)
                for moment, number in values:
                    one.samples.add(timestamp=moment * 1000, value=number)
            self._send(bytes(self._compress(request.SerializeToString())))

    def end(self) -> None:
        """Nothing more will come.

        Raises:
            RemoteWriteError: Some samples were refused.
        """
        if self.refused:
            raise RemoteWriteError(
                f"{self._url} refused samples of {self.refused} requests because it has later ones. It has them already"
                " if they were sent before; else let it take older ones (Prometheus: storage.tsdb."
                "out_of_order_time_window), or use --output and promtool"
            )

    def _send(self, body: bytes) -> None:
        for pause in (*RETRIES, None):
            try:
                request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 - checked
                with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310
                    return
            except urllib.error.HTTPError as error:
                why = f"{error.code} {error.reason}: {_shown(error.read(300))}".rstrip(": ")
                if error.code == 400 and _LATE.search(why):
                    self.refused += 1
                    return
                if error.code < 500 and error.code != 429:
                    raise RemoteWriteError(f"{self._url} answers {why}") from error
            except (OSError, urllib.error.URLError) as error:
                why = str(getattr(error, "reason", error))
            if pause is None:
                raise RemoteWriteError(f"{self._url}: {why}; what was sent until now is there, and may be sent again")
            self._say(f"{self._url}: {why}; trying again in {pause:.0f} s")
            time.sleep(pause)


def _shown(body: bytes) -> str:
    """What a server answered, as one line."""
    return "".join(each if each.isprintable() else " " for each in body.decode("utf-8", "replace")).strip()


_FIELDS = {
    "Label": (("name", 1, "STRING", None), ("value", 2, "STRING", None)),
    "Sample": (("value", 1, "DOUBLE", None), ("timestamp", 2, "INT64", None)),
    "TimeSeries": (("labels", 1, "MESSAGE", "Label"), ("samples", 2, "MESSAGE", "Sample")),
    "WriteRequest": (("timeseries", 1, "MESSAGE", "TimeSeries"),),
}
"""The protocol's messages: https://prometheus.io/docs/specs/prw/remote_write_spec/."""


def _write_request() -> type[Any]:
    """The class of a request, made from the protocol's description.

    Raises:
        ImportError: protobuf is missing.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415 - an extra

    file = descriptor_pb2.FileDescriptorProto(name="bouncemeter/remote.proto", package="bouncemeter", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of in fields:
            one = message.field.add(name=field, number=number, type=f"TYPE_{kind}", label="LABEL_OPTIONAL")
            if of is not None:
                one.type_name, one.label = f".bouncemeter.{of}", one.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bouncemeter.WriteRequest"))
