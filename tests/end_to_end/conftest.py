"""What tests of the whole chain share with those of the packages."""

from __future__ import annotations

from tests.packaging.conftest import built

__all__ = ["built"]
