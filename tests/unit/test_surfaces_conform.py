"""Every endpoint that the gateway serves has a test that holds its answers against a pinned official client's type."""

from __future__ import annotations

from pathlib import Path

from groundplan.gateway.batches.batches_api import BATCHES, FILES
from groundplan.gateway.call.pipeline import _INTERFACES

TESTS = Path(__file__).parents[1]
HELD: dict[bytes, tuple[str, tuple[str, ...]]] = {
    b"/v1/chat/completions": ("integration/test_openai_conformance.py", ("ChatCompletion", "ChatCompletionChunk")),
    b"/v1/embeddings": ("integration/test_openai_conformance.py", ("CreateEmbeddingResponse",)),
    b"/v1/moderations": ("integration/test_tasks.py", ("ModerationCreateResponse",)),
    b"/v1/images/generations": ("integration/test_tasks.py", ("ImagesResponse",)),
    b"/v1/images/edits": ("integration/test_tasks.py", ("ImagesResponse",)),
    b"/v1/images/variations": ("integration/test_tasks.py", ("ImagesResponse",)),
    b"/v1/audio/transcriptions": ("integration/test_tasks.py", ("Transcription", "TranscriptionVerbose")),
    b"/v1/audio/translations": ("integration/test_tasks.py", ("Translation",)),
    b"/v1/messages": ("integration/test_messages.py", ("Message", "RawMessageStreamEvent")),
    b"/v1/messages/count_tokens": ("integration/test_messages.py", ("MessageTokensCount",)),
    b"/v1/responses": ("integration/test_responses.py", ("ResponseObject", "ResponseStreamEvent")),
    b"/v1/completions": ("integration/test_completions.py", ("Completion",)),
    FILES: ("integration/test_batches.py", ("FileObject", "FileDeleted")),
    BATCHES: ("integration/test_batches.py", ("Batch",)),
}
WITHOUT = {b"/v1/rerank", b"/v1/audio/speech"}
"""OpenAI and Anthropic have no rerank; speech is sound, which has no type."""


def test_every_endpoint_is_held_against_an_official_type() -> None:
    assert HELD.keys() | WITHOUT == _INTERFACES.keys() | {FILES, BATCHES}
    for path, (file, kinds) in HELD.items():
        text = (TESTS / file).read_text(encoding="utf-8")
        for kind in kinds:
            named = f"strict({kind}" in text or ("strict(kind" in text and f", {kind})" in text)
            assert named, f"{path.decode()}: {file} holds nothing against {kind}"
