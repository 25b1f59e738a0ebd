"""Tests of `bouncemeter_exporter.archive`."""
