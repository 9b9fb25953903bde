"""Brings a search service into its state for frequent queries: with ready-made networks and large pages."""

from __future__ import annotations

import msgspec

from groundplan.core.endpoints import Endpoint
from groundplan.gateway.search_app import ASKED_OFTEN
from groundplan.knowledge.service_client import post_json


def ask_often(endpoint: Endpoint) -> None:
    """Send as many questions as make the service build its networks, which takes some seconds."""
    texts = [f"What is said of number {number}?" for number in range(ASKED_OFTEN)]
    post_json(endpoint, "/embed", msgspec.json.encode({"texts": texts, "questions": True}))
