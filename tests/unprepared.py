"""A search service that is forked for a test prepares no networks for the lengths that questions have.

They take three quarters of a second of computing once it is asked often; with them a question is a sixth quicker,
which pays in the hours that a service runs, and never in a test. Vectors are the same, which `test_knowledge_embed`
shows; a service that starts from nothing prepares them.
"""

from __future__ import annotations

import importlib

_SEARCH = "groundplan.gateway.search_app"


def heed(program: str) -> None:
    """In this process, which is to be that one of ours."""
    if program == _SEARCH:
        encoder = importlib.import_module("groundplan.knowledge.embedding.openvino_encoder")
        encoder.OpenVinoEncoder.prepare = lambda _: None
