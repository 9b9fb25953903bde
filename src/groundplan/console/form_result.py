"""Redirects after a form, with its result as a notice or problem. Sends nothing itself."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi.responses import RedirectResponse

from groundplan.console import rejected_forms
from groundplan.console.client import Reply
from groundplan.console.render import format_time


def redirect_with_result(path: str, reply: Reply, notice: str) -> RedirectResponse:
    """Redirect to a page that shows the notice, or the problem of the API. Raises `FormRejected`."""
    rejected_forms.raise_if_rejected(reply)
    words = {"notice": notice} if reply.ok else {"problem": reply.problem}
    return RedirectResponse(f"{path}{'&' if '?' in path else '?'}{urlencode(words)}", status_code=303)


def propagation_note(reply: Reply) -> str:
    """A note on the gateways at which a change of live policy is effective, and until when others may still serve."""
    effect = reply.body.get("effective") if reply.ok else None
    if not effect:
        return ""
    if effect["complete"]:
        count = len(effect["acknowledged"])
        return f" at {'the gateway' if count == 1 else f'all {count} gateways'}"
    if not effect["waiting"]:
        return ", but which gateways know it cannot be told now"
    late = [f"gateway {row['pid']} until {format_time(row['until'])}" for row in effect["waiting"]]
    return f", but may still be served by {', '.join(late)}"
