"""A search service as it is for a company that asks it often: with the networks and large pages that it then has."""

from __future__ import annotations

import msgspec

from groundplan.core.endpoints import Endpoint
from groundplan.gateway.search_app import ASKED_OFTEN
from groundplan.knowledge.service_client import post_json


def ask_often(endpoint: Endpoint) -> None:
    """So many questions that it begins to make them, which takes some seconds."""
    texts = [f"What is said of number {number}?" for number in range(ASKED_OFTEN)]
    post_json(endpoint, "/embed", msgspec.json.encode({"texts": texts, "questions": True}))
