"""Disables a warm-up of search services that are forked for tests: preparing networks for typical question lengths.

It takes three quarters of a second of computing and makes a question a sixth faster, which pays off in a long-running
service and never in a test. The vectors are the same (`test_knowledge_embed`); a service that is not forked prepares.
"""

from __future__ import annotations

import importlib

_SEARCH = "groundplan.gateway.search_app"


def disable_preparation(program: str) -> None:
    """Disable it in this process if it is about to run the search service."""
    if program == _SEARCH:
        encoder = importlib.import_module("groundplan.knowledge.embedding.openvino_encoder")
        encoder.OpenVinoEncoder.prepare = lambda _: None
