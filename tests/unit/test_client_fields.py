"""Each field that an official client has for a request is one of which is known whether its cost has a bound: a newer
client that brings another one is looked at before it is taken."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import get_args

import anthropic
import openai
import pytest
from openai.types import FilePurpose

from groundplan.gateway.batches.batches_api import ENDPOINTS
from groundplan.gateway.files.files_api import PURPOSES
from groundplan.gateway.surfaces import body, completions, images
from groundplan.gateway.surfaces.chat import surface as chat
from groundplan.gateway.surfaces.messages import surface as messages
from groundplan.gateway.surfaces.responses import surface as responses

PAGE = (Path(__file__).parents[2] / "docs" / "refused.md").read_text()
NEWEST = Path(sys.prefix) / "clients" / "anthropic" / "types" / "beta" / "message_create_params.py"
IMAGES = """
    background image input_fidelity mask model moderation n output_compression output_format partial_images prompt
    quality response_format safety_identifier size style user
"""
BOUNDED = {
    "chat": """
        frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages metadata
        modalities model n parallel_tool_calls presence_penalty prompt_cache_key prompt_cache_options
        prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store
        stream_options temperature tool_choice tools top_logprobs top_p user verbosity
    """,
    "responses": """
        access_programs background include input instructions max_output_tokens max_tool_calls metadata model
        parallel_tool_calls previous_response_id prompt_cache_key prompt_cache_options prompt_cache_retention reasoning
        safety_identifier service_tier store stream_options temperature text tool_choice tools top_logprobs top_p
        truncation user
    """,
    "completions": """
        best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed stop
        stream_options suffix temperature top_p user
    """,
    "images": IMAGES + "complexity frame_duration_ms",
    "edits": IMAGES + "complexity frame_duration_ms",
    "messages": """
        betas cache_control context_management diagnostics fallback_credit_token max_tokens messages metadata model
        output_config output_format service_tier speed stop_sequences system temperature thinking thread tool_choice
        tools top_k top_p user_profile_id workspace_id
    """,
}
"""What costs no more than is reserved, or is looked at by its value."""
REFUSED = {
    "chat": chat._REFUSED_FIELDS | body.REDIRECTING_FIELDS,
    "responses": responses._REFUSED_FIELDS | body.REDIRECTING_FIELDS,
    "completions": completions._REFUSED_FIELDS | body.REDIRECTING_FIELDS,
    "images": images.REFUSED_FIELDS,
    "edits": images.REFUSED_FIELDS,
    "messages": messages._REFUSED_FIELDS | body.REDIRECTING_FIELDS,
}


def _place(library: ModuleType, *names: str) -> Path:
    assert library.__file__ is not None
    return Path(library.__file__).parent.joinpath("types", *names)


REQUESTS: dict[str, tuple[Path, ...]] = {
    "chat": (_place(openai, "chat", "completion_create_params.py"),),
    "responses": (_place(openai, "responses", "response_create_params.py"),),
    "completions": (_place(openai, "completion_create_params.py"),),
    "images": (_place(openai, "image_generate_params.py"),),
    "edits": (_place(openai, "image_edit_params.py"),),
    "messages": (
        _place(anthropic, "message_create_params.py"), _place(anthropic, "beta", "message_create_params.py"), NEWEST,
    ),
}  # fmt: skip


def _classes(file: Path) -> Iterable[ast.ClassDef]:
    return (node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef))


def fields(file: Path) -> set[str]:
    """Of the request that a module of a client's types describes."""
    return {
        each.target.id
        for found in _classes(file)
        if found.name.endswith("CreateParamsBase") or found.name.endswith(("GenerateParamsBase", "EditParamsBase"))
        for each in found.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


@pytest.mark.parametrize("surface", REQUESTS)
def test_of_each_field_of_a_client_it_is_known_whether_its_cost_has_a_bound(surface: str) -> None:
    there = set().union(*(fields(file) for file in REQUESTS[surface] if file.exists()))
    assert len(there) > 15
    bounded = set(BOUNDED[surface].split())
    assert there - bounded - REFUSED[surface] == set(), "is what it costs bounded? if not, refuse it by name"
    assert bounded & REFUSED[surface] - {"image", "mask"} == set(), "these are taken as files"
    unsaid = {name for name in there & REFUSED[surface] if f"`{name}`" not in PAGE}
    assert unsaid == set(), "docs/refused.md names all that is refused"


def test_what_files_and_batches_are_for_is_served_or_on_the_page_of_what_is_refused() -> None:
    literal = next(
        node
        for found in _classes(_place(openai, "batch_create_params.py"))
        for node in ast.walk(found)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "endpoint"
    )
    endpoints = {node.value for node in ast.walk(literal) if isinstance(node, ast.Constant)}
    assert endpoints > set(ENDPOINTS)
    purposes = set(get_args(FilePurpose))
    assert purposes > set(PURPOSES)
    told = next(line for line in PAGE.splitlines() if line.startswith("| Files, batches |"))
    refused = {str(name).removeprefix("/v1/") for name in endpoints - set(ENDPOINTS)} | purposes - set(PURPOSES)
    assert {name for name in refused if f"`{name}`" not in told} == set()
