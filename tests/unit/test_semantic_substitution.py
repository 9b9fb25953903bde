"""One thing in place of another is refused where no capital shows a name, and other words for the same are not."""

from __future__ import annotations

import numpy as np
import pytest

from groundplan.core.settings import load_settings
from groundplan.economics.semantic import accept
from groundplan.economics.semantic.guards import veto
from groundplan.economics.semantic.reading import read
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.runtime.models import MINILM, ensure


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(ensure(load_settings().models, MINILM.name))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("Germany VAT rate?", "France VAT rate?", "substitution"),
        ("reset my jira password", "reset my slack password", "substitution"),
        ("how do i reset my jira password", "what is the way to reset the slack password", "substitution"),
        ("Berlin: are shoes sold in Berlin?", "Germany: are shoes sold in Berlin?", "substitution"),
        ("refund period for shoes?", "refund period for headphones?", "substitution"),
        (
            "A guide names cloud storage of several providers, examples of its use and the best settings for each",
            "A guide names cloud construction of several providers, examples of its use and the best settings for each",
            "substitution",
        ),
        ("reset my jira password", "how can the jira password be reset", ""),
        ("Germany VAT rate?", "What is the VAT rate in Germany?", ""),
        ("How do I cancel my order?", "How can an order be terminated?", ""),
        ("What does the training cost?", "What is the price of the training?", ""),
    ],
)
def test_one_thing_in_place_of_another_is_refused_where_no_capital_shows_it(
    encoder: Encoder, one: str, other: str, kind: str
) -> None:
    def word(text: str) -> np.ndarray:
        return np.asarray(encoder.embed([text])[0])

    for a, b in ((one, other), (other, one)):
        assert veto(read(a), read(b)) == "", "another guard sees it"
        assert accept.judge(accept.shipped(), read(a), read(b), 0.9, word).veto == kind
