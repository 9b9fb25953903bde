"""AI that nobody declared is found in lines of any form, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.governance.register.shadow import find_calls, find_charges, provider_of_host

LOG = """\
1732500000.123 210 10.0.0.7 TCP_TUNNEL/200 4312 CONNECT api.openai.com:443 - HIER_DIRECT/162.159.140.245 -
1732500001.123 210 10.0.0.8 TCP_TUNNEL/200 4312 CONNECT api.openai.com:443 - HIER_DIRECT/162.159.140.245 -
{"user": "ben@acme.example", "url": "https://acme.openai.azure.com/openai/v1/chat/completions", "status": 200}
{"user": "ben@acme.example", "url": "https://intranet.acme.example/api.openai.com.html", "status": 200}
10.0.0.9 - - [25/Nov/2026] "POST https://bedrock-runtime.eu-central-1.amazonaws.com/model/x/invoke HTTP/1.1" 200
10.0.0.9 - - [25/Nov/2026] "GET https://s3.eu-central-1.amazonaws.com/bucket HTTP/1.1" 200
"""


def test_calls_to_providers_are_counted_with_who_made_them() -> None:
    found = find_calls(LOG.splitlines(), ["acme.openai.azure.com"])
    assert [(each.host, each.provider, each.declared, each.calls, len(each.callers)) for each in found] == [
        ("api.openai.com", "OpenAI", False, 2, 2),
        ("bedrock-runtime.eu-central-1.amazonaws.com", "Amazon", False, 1, 1),
        ("acme.openai.azure.com", "Microsoft", True, 1, 1),
    ]


BILL = """\
2026-11-03,Card 4711,OPENAI *CHATGPT SUBSCR,20.00 USD
2026-11-04,ServiceName=Amazon Bedrock,MeterName=Claude input tokens,3.10 USD
2026-11-05,Card 4711,THE OPENAIR CINEMA,12.00 USD
2026-11-06,Azure OpenAI Service,gpt-4.1 Inp glbl Tokens,4.00 EUR
2026-11-07,Inhouse AI,seat,9.00 EUR
"""


def test_charges_of_providers_that_no_deployment_is_at_are_found_in_bills() -> None:
    found = find_charges(BILL.splitlines(), ["acme.openai.azure.com"], ["inhouse ai"])
    told = {each.provider: (each.declared, each.calls) for each in found}
    assert told == {
        "OpenAI": (False, 1), "Amazon": (False, 1), "inhouse ai": (False, 1),
        "Microsoft": (True, 1),
    }  # fmt: skip
    assert [each.provider for each in found][-1] == "Microsoft", "what nobody declared first"


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("API.OpenAI.com", "OpenAI"),
        ("eu.api.openai.com", "OpenAI"),
        ("notapi.openai.com", None),
        ("api.openai.com.evil.example", None),
        ("openai.com", None),
        ("claude.ai", "Anthropic"),
        ("bedrock.us-east-1.amazonaws.com", "Amazon"),
        ("bedrock.example.com", None),
        ("llm.inhouse.example", "inhouse.example"),
        ("inhouse.example.org", None),
    ],
)
def test_a_host_belongs_to_a_provider_by_its_end(host: str, provider: str | None) -> None:
    assert provider_of_host(host, ("inhouse.example",)) == provider


PIECES = st.sampled_from(["api.openai.com", " https://claude.ai/x", " API.mistral.ai:443 "]) | st.text(max_size=60)


@given(st.lists(st.lists(PIECES, max_size=4).map("".join), max_size=20))
def test_any_lines_are_read(lines: list[str]) -> None:
    for each in find_calls(lines, []):
        assert each.calls <= len(lines) and provider_of_host(each.host) == each.provider
