"""A workload that is answered without its documents, while nobody can search them, is not told that there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.gateway_stack import workload
from tests.unit.call_rig import call_rig

from groundplan.blueprint.model import Grounding
from groundplan.gateway.call.ground import system_messages
from groundplan.gateway.call.grounding.notes import UNSEARCHED, GroundingNotes


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_and_its_caller_are_told_that_nothing_could_be_searched(tmp_path: Path, stream: bool) -> None:
    grounding = Grounding(sources=["handbook"], required=False)
    async with call_rig(tmp_path, ["one"], workloads={"assistant": {"grounding": grounding}}) as rig:
        told = (await rig.stream()).facts if stream else (await rig.chat()).json["groundplan"]
        assert told["degraded"] == UNSEARCHED and told["sources"] == []
        request = rig.models["one"].last
        assert request is not None
        (lead, *_) = json.loads(request.body)["messages"]
        assert lead["role"] == "system" and "could not be searched" in lead["content"]
        assert "found nothing" not in lead["content"]
        await rig.books()


def test_what_is_said_of_it_fits_into_what_is_reserved_for_passages() -> None:
    declared = workload("assistant", ["one"], grounding=Grounding(sources=["handbook"], max_bytes=1, required=False))
    for grounded in (None, GroundingNotes((), (), unsearched=True)):
        (said,) = system_messages(declared, [], grounded)
        assert len(said.encode()) <= 256
