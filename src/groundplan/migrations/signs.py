"""By what it shows in a database that a step has run, for steps that came to this program after one with a greater
number.

A database knows the greatest step that it has had. One that was made, or upgraded, between the two had the greater one
and would never get the other. So a new step has the greatest number of all; as it is not known what others make
meanwhile, each has a line here from 0400 on.
"""

from __future__ import annotations

from typing import Final

SIGNS: Final = {
    "0030_batches": "api_file",
    "0051_sources": "document.token",
    "0056_standing": "membership_person",
    "0070_sign_in": "passkey",
    "0071_access": "appointment",
    "0072_approvals": "change.expires_on",
    "0073_directory": "directory_person",
    "0074_handover": "handover",
    "0076_kill_streams": "kill_switch.streams",
    "0077_evidence": "evidence",
    "0078_siem": "siem_position",
    "0082_index_editions": "search_edition.settings",
    "0083_person_hold": "person_hold",
    "0086_citations_conflicts": "call_citation",
    "0087_glossary": "glossary_term",
    "0088_shared_links": "document_link",
    "0089_signals": "knowledge_signal",
    "0090_experiments": "experiment",
    "0091_replay_keys": "replay_run.keys",
    "0094_verdicts": "semantic_day",
    "0103_terminals": "terminal_request",
    "0105_batch_orders": "batch_order",
    "0132_exceptions_wait_as_changes": "exception_held",
    "0133_approved_prices": "part_approval.price",
    "0138_purposes": "attempt.purpose",
    "0139_kept_sums": "content_sum",
    "0146_readers_cleared": "acl_name_acl",
    "0147_signals_of_calls": "knowledge_signal=_gateway=a",
    "0148_standing_by_arrays": "names_of()",
    "0160_files_in_calls": "api_file_purpose_check=vision",
    "0185_tokens_by_place": "person_place_day",
    "0190_semantic_regions": "semantic_region",
    "0200_documents_dated": "document.confined",
    "0201_documents_confined": "document.confined",
    "0210_held_versions": "held_version",
    "0227_tables_checked": "document.tables_by",
    "0231_review_minutes": "held_call.minutes_said",
    "0305_documents_described": "document_described",
    "0320_running_sums": "running_span",
    "0321_calls_of_a_person": "call_refused",
    "0345_open_calls_told": "budget_slice.open_usd",
    "0379_rights_that_nobody_uses": "next_policy_number()=SECURITY DEFINER",
    "0410_told_after_the_end": "roll_more()",
    "0411_estimates_are_no_calls": "roll_calls()=.estimate",
    "0412_ended_budgets_go": "batch_input",
    "0414_background_responses": "background_response",
    "0415_uploads_in_parts": "api_upload",
    "0416_background_waits": "background_response.waits",
    "0417_uses_of_tools_are_no_calls": "roll_calls()='mcp'",
    "0430_what_is_done_goes": "gateway_live",
}
"""A relation (or a constraint), `TABLE.COLUMN`, or `FUNCTION()`, and behind `=` what its definition has, or who has
which right to it."""

LAST: Final = {step: "0121_no_content_statistics" for step in SIGNS if step < "0122"} | {
    "0138_purposes": "0151_message_batches", "0139_kept_sums": "0151_message_batches"
}  # fmt: skip
"""Up to where a step may still be run in a database that has gone on without it; beyond, it would undo what later ones
made of the same. The others may come at any time."""
