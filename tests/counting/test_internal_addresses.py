"""Which addresses are those of our own host and network."""

from __future__ import annotations

import pytest
from bouncemeter_exporter.counting.ordinary import internal_address


@pytest.mark.parametrize(
    "peer",
    [
        "localhost[127.0.0.1]:10024",
        "mx[127.8.9.1]",
        "[10.0.0.1]:25",
        "filter[172.16.0.1]",
        "filter[172.31.255.255]",
        "filter [192.168.1.2]:10025",
        "[::1]",
        "[fe80::1]",
        "[fd12::5]:25",
    ],
)
def test_an_address_of_this_host_or_of_a_private_network_is_internal(peer: str) -> None:
    assert internal_address(peer) is not None


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "none",
        "localhost",
        "mx[192.0.2.1]:25",
        "mx[11.0.0.1]",
        "mx[172.15.255.255]",
        "mx[172.32.0.1]",
        "mx[192.169.0.1]",
        "[2001:db8::1]:25",
        "[10.0.0.1.9]",
        "[127.1]",
        "[:]",
        "mx[192.0.2.1] [10.0.0.1]",
    ],
)
def test_any_other_address_is_not(peer: str) -> None:
    assert internal_address(peer) is None
