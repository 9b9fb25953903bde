"""What a provider's batch API has to say for itself before orders can be given to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.call_rig import call_rig

from groundplan.core.ids import new_id
from groundplan.gateway.batches.provider import Away, Input, Provider, Refused, UploadingProvider
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


async def test_what_is_about_an_account_or_an_order_under_way_refuses_no_order(tmp_path: Path) -> None:
    """Of one that the provider works at already, it may be that it is taken."""
    async with call_rig(tmp_path, ["one"]) as rig:
        (place,) = rig.plan("assistant").names["auto"]
        asked = Input(new_id(), "/v1/chat/completions", tmp_path / "input", "file-1")
        for status, acted in ((402, False), (429, False), (409, True), (503, True)):
            rig.play("one", mode="error", status=status, only="POST /v1/batches")
            with pytest.raises(Away) as away:
                await OpenAIBatches(rig.gateway, place).create(asked)
            assert away.value.acted is acted, status
        rig.play("one", mode="error", status=400, only="POST /v1/batches")
        with pytest.raises(Refused):
            await OpenAIBatches(rig.gateway, place).create(asked)
