"""Model cards and data sheets in Markdown, filled from the register; what is missing is marked. Pure."""

from __future__ import annotations

from datetime import date

from groundplan.governance.register.entries import Entry

MISSING = "**not declared**"


def card_markdown(entry: Entry, today: date) -> str:
    """The card of one entry in Markdown."""
    rows = {
        "Kind": entry.kind,
        "Owner": entry.owner,
        "Version": entry.version,
        "Origin": entry.origin,
        "Licence": entry.licence,
        "Terms": entry.terms,
        "Sensitivity": entry.sensitivity,
        "Stage": entry.stage,
        "Used by": ", ".join(entry.used_by),
        "Look at it again by": entry.review_by,
        "SHA-256 of the declaration": entry.digest,
    }
    lines = [f"# {_escape(entry.name)}", "", _escape(entry.title), "", "| | |", "|---|---|"]
    expected = {each.replace("_", " ") for each in entry.missing}
    for title, value in rows.items():
        if value:
            lines.append(f"| {title} | {_escape(value)} |")
        elif title.lower() in expected:
            lines.append(f"| {title} | {MISSING} |")
    lines += ["", "## Evaluations", ""]
    lines += [f"- {_escape(result)}" for result in entry.evaluations] or ["Nothing was shown."]
    lines += ["", "## Known limits", ""]
    lines += [f"- {_escape(limit)}" for limit in entry.known_limits] or [MISSING]
    if entry.missing:
        lines += ["", f"Missing: {', '.join(sorted(expected))}."]
    return "\n".join([*lines, "", f"Made from facts on {today.isoformat()}.", ""])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
