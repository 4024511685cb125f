"""Contract suites run against the real servers too, those of the live tests."""

from tests.live.conftest import platform_settings, servers

__all__ = ["platform_settings", "servers"]
