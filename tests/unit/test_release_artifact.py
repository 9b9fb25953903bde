"""Blueprints as bytes: same input same bytes, exact round trip, signatures over the bytes."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.artifact import decode, digest, encode, sign, verify_signature
from groundplan.blueprint.model import Blueprint, Budget, Deployment, Rates, Site
from groundplan.core.errors import Invalid

amounts = st.integers(0, 2**63 - 1)


def blueprint(limit: int = 200 * 10**12, rate: int = 10**12, number: int = 1, title: str = "") -> Blueprint:
    deployment = Deployment(
        name="gpt-eu",
        site="azure-sweden",
        model="openai/gpt-4.1-mini",
        upstream_model="gpt-4.1-mini",
        url="https://acme.example/openai/v1",
        key="env:AZURE_KEY",
        rates=Rates(input=rate, output=4 * 10**12, cache_read=None),
    )
    return Blueprint(
        number=number,
        company="acme",
        separation="enforced",
        sites=[Site(name="azure-sweden", type="cloud", jurisdiction="EU", title=title)],
        deployments=[deployment],
        sources=[],
        workloads=[],
        budgets=[Budget(name="all", covers="company", limit=limit, period="month")],
        placements=[],
    )


@given(amounts, amounts, st.integers(1, 10**6), st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_blueprint_comes_back_exactly_and_twice_the_same(limit: int, rate: int, number: int, title: str) -> None:
    original = blueprint(limit, rate, number, title)
    body = encode(original)
    assert decode(body) == original
    assert encode(decode(body)) == body


def test_large_amounts_are_text_so_that_every_json_reader_sees_them_exactly() -> None:
    body = json.loads(encode(blueprint(limit=20_000 * 10**12)))
    assert body["budgets"][0]["limit"] == "20000000000000000"
    assert json.loads(encode(blueprint(limit=200 * 10**12)))["budgets"][0]["limit"] == 200 * 10**12


def test_a_signature_holds_for_these_bytes_and_this_key_only() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    body = encode(blueprint())
    signature = sign(body, key)
    public = key.public_key().public_bytes_raw()
    assert verify_signature(body, signature, public)
    assert not verify_signature(body.replace(b"acme", b"evil"), signature, public)
    assert not verify_signature(body, signature, other.public_key().public_bytes_raw())
    assert not verify_signature(body, "not base64!", public)
    assert not verify_signature(body, signature, b"short")
    assert len(digest(body)) == 64


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"number": "x"}', b"[]"])
def test_bytes_that_are_no_blueprint_are_refused(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        decode(body)
    assert caught.value.code == "blueprint_malformed"


def test_a_newer_format_is_refused() -> None:
    body = encode(blueprint()).replace(b'"format":1', b'"format":2')
    with pytest.raises(Invalid) as caught:
        decode(body)
    assert caught.value.code == "blueprint_format"
