"""What a provider's batch API has to say for itself before orders can be given to it."""

from __future__ import annotations

import pytest

from groundplan.gateway.batches.provider import Provider, UploadingProvider
from groundplan.gateway.batches.provider_messages import MessageBatches
from groundplan.gateway.batches.provider_openai import OpenAIBatches

ASKED = {"line", "create", "find", "retrieve", "cancel", "content", "delete"}


def test_a_provider_that_leaves_something_open_cannot_be_made() -> None:
    half = type("Half", (Provider,), {name: getattr(OpenAIBatches, name) for name in ASKED - {"cancel"}})
    with pytest.raises(TypeError, match="cancel"):
        half(None, None)
    whole = type("Whole", (Provider,), {name: getattr(OpenAIBatches, name) for name in ASKED})
    assert isinstance(whole(None, None), Provider)


def test_only_where_input_is_a_file_of_its_own_it_is_uploaded() -> None:
    assert issubclass(OpenAIBatches, UploadingProvider)
    assert not issubclass(MessageBatches, UploadingProvider)
    assert not hasattr(MessageBatches, "upload")
