"""Where a call comes from: only declared proxies are believed, and only for what they added themselves."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Denied
from groundplan.gateway.policy.client_address import check_network, client_address, networks

PROXIES = networks(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", b"203.0.113.9", "192.0.2.1"),  # not a proxy of ours: what it says counts for nothing
        ("10.1.1.1", b"203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", b"198.51.100.7, 203.0.113.9", "203.0.113.9"),  # the client wrote the first one itself
        ("10.1.1.1", b"203.0.113.9, 10.2.2.2", "203.0.113.9"),
        ("2001:db8::1", b"203.0.113.9", "203.0.113.9"),
        ("::ffff:10.1.1.1", b"203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", b"10.2.2.2, 10.3.3.3", "10.2.2.2"),
        ("10.1.1.1", None, "10.1.1.1"),
        ("10.1.1.1", b"203.0.113.9, nonsense", None),
        ("10.1.1.1", b"", None),
        ("", b"203.0.113.9", None),
        ("fe80::1%eth0", None, "fe80::1"),
        ("10.1.1.1", b"198.51.100.7:4711, 203.0.113.9:50321", "203.0.113.9"),  # some proxies write ports, too
        ("10.1.1.1", b"203.0.113.9, 10.2.2.2:443", "203.0.113.9"),
        ("10.1.1.1", b"[2001:db9::7]:443", "2001:db9::7"),
        ("10.1.1.1", b"[2001:db9::7]", "2001:db9::7"),
        ("10.1.1.1", b"[::ffff:203.0.113.9]:443", "203.0.113.9"),
        ("10.1.1.1", b"2001:db9::7:443", "2001:db9::7:443"),
        ("10.1.1.1", b"203.0.113.9:https", None),
        ("10.1.1.1", b"[203.0.113.9", None),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy(peer: str, forwarded: bytes | None, client: str | None) -> None:
    found = client_address(peer, forwarded, PROXIES)
    assert found == (None if client is None else ip_address(client))


@given(lie=st.binary(max_size=60))
def test_nothing_that_a_client_writes_before_its_proxy_changes_the_address(lie: bytes) -> None:
    assert client_address("10.0.0.1", lie + b",203.0.113.9", PROXIES) == ip_address("203.0.113.9")


def test_a_key_is_refused_outside_its_networks() -> None:
    allowed = networks(["203.0.113.0/24", "::1/128"])
    check_network(allowed, "203.0.113.9", None, ())
    check_network(allowed, "::1", None, ())
    for peer, forwarded, seen in (
        ("203.0.114.9", None, "from 203.0.114.9"),
        ("10.0.0.1", b"203.0.113.9", "from 10.0.0.1"),  # of the proxy, so that its caller can tell who declares it
        ("", None, "without an address"),
    ):
        with pytest.raises(Denied, match="key_network") as caught:
            check_network(allowed, peer, forwarded, ())
        assert seen in caught.value.message and "trusted_proxies" in caught.value.hint
