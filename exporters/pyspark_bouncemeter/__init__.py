"""Where Spark finds the format `bouncemeter`: it imports every module whose name begins with `pyspark_`."""

from contextlib import suppress

with suppress(ImportError):  # without the extra `spark`, there is no such format, and others still work
    from bouncemeter_exporter.archive.spark import BouncemeterSource as DefaultSource

__all__ = ["DefaultSource"]
