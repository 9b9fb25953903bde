"""After a form: back to a page, with what became of it. Sends nothing itself."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi.responses import RedirectResponse

from groundplan.console import rejected_forms
from groundplan.console.client import Reply
from groundplan.console.render import when


def back(path: str, reply: Reply, notice: str) -> RedirectResponse:
    """To a page that shows the notice, or the problem where the API told one. Raises `Unsent`."""
    rejected_forms.check(reply)
    words = {"notice": notice} if reply.ok else {"problem": reply.problem}
    return RedirectResponse(f"{path}{'&' if '?' in path else '?'}{urlencode(words)}", status_code=303)


def reach(reply: Reply) -> str:
    """At which gateways a change of live policy is effective, and until when the others may still serve."""
    effect = reply.body.get("effective") if reply.ok else None
    if not effect:
        return ""
    if effect["complete"]:
        count = len(effect["acknowledged"])
        return f" at {'the gateway' if count == 1 else f'all {count} gateways'}"
    if not effect["waiting"]:
        return ", but which gateways know it cannot be told now"
    late = [f"gateway {row['pid']} until {when(row['until'])}" for row in effect["waiting"]]
    return f", but may still be served by {', '.join(late)}"
