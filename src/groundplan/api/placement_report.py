"""The plan as one self-contained HTML page for a board: figures, pictures, reasons. Loads nothing, decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from html import escape

from groundplan.placement import pictures, stress
from groundplan.placement.company import LEVELS
from groundplan.placement.explain.front import front
from groundplan.placement.explain.whole import compare, excluded_matrix, whole_json
from groundplan.placement.explain.why import why
from groundplan.placement.explain.words import sentences, usd
from groundplan.placement.planner import CompanyPlan

STYLE = """body{font:15px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2730;
background:#fff}h1,h2,h3{line-height:1.2}table{border-collapse:collapse;width:100%;margin:1rem 0;font-size:14px}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #0002;vertical-align:top}td.n,th.n{text-align:right}
.soft{opacity:.7}.scroll{overflow-x:auto}svg{max-width:100%;height:auto}@media(prefers-color-scheme:dark){
body{color:#dfe6ec;background:#161b20}th,td{border-color:#fff3}}@media print{section{break-inside:avoid}}"""


def report_html(plan: CompanyPlan, today: date) -> str:
    """The whole page."""
    body = whole_json(plan, compare(plan))
    title = f"Where AI runs, and why: plan of {today.isoformat()}"
    parts = [f"<h1>{escape(title)}</h1>", *_summary(body["words"])]
    parts += ["<h2>Sites and workloads</h2>", pictures.site_map(body["sites"], body["workloads"])]
    parts += ["<h2>What a month costs</h2>", pictures.waterfall(body["terms"]), *_table(body)]
    parts += ["<h2>Other ways to place it</h2>", pictures.ways(front(plan)), *_compared(body)]
    parts += ["<h2>Why each is where it is</h2>", *_reasons(plan), "<h2>Why not elsewhere</h2>", *_matrix(plan)]
    told = stress.report(plan, stress.Spreads())
    parts += [f"<h2>Under {told['futures']:,} sampled futures</h2>", *_summary(told["words"])]
    parts += ["<h2>What it rests on</h2>", *_summary([*plan.notes, *_rests(plan)])]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _summary(lines: list[str]) -> Iterator[str]:
    if lines:
        yield "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(body: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    yield '<div class="scroll"><table><tr><th>Workload</th><th>Site</th><th>On</th><th class="n">A month</th></tr>'
    for row in body["workloads"]:
        place = row["place"]
        assert isinstance(place, dict)
        how = "to build: " if place["kind"] == "build" else ""
        cells = (row["workload"], place["site"], f"{how}{place['config']}")
        shown = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
        yield f'<tr>{shown}<td class="n">{usd(float(str(row["usd_month"])))}</td></tr>'
    yield "</table></div>"


def _compared(body: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    yield "<table><tr><th>Instead</th><th class='n'>A month</th><th class='n'>The plan for the same</th></tr>"
    for row in body["compared"]:
        other = "not possible" if row["usd_month"] is None else usd(float(str(row["usd_month"])))
        ours = usd(float(str(row["plan_usd_month"])))
        yield f'<tr><td>{escape(str(row["with"]))}</td><td class="n">{other}</td><td class="n">{ours}</td></tr>'
    yield "</table>"


def _reasons(plan: CompanyPlan) -> Iterator[str]:
    for name, decided in sorted(plan.decided.items()):
        lines = list(sentences(why(plan, name)))
        yield f"<section><h3>{escape(name)}</h3><p>{' '.join(escape(line) for line in lines)}</p>"
        facts = plan.company.workloads[name]
        own = max(facts.curve) * LEVELS[decided.level] if decided.burst is not None else None
        yield pictures.curves("", facts.curve, own) + "</section>"


def _matrix(plan: CompanyPlan) -> Iterator[str]:
    sites = sorted(plan.company.sites)
    yield '<div class="scroll"><table><tr><th></th>' + "".join(f"<th>{escape(site)}</th>" for site in sites) + "</tr>"
    for name, row in excluded_matrix(plan).items():
        cells = "".join(f"<td>{escape(', '.join(row[site]) or 'may run')}</td>" for site in sites)
        yield f"<tr><th>{escape(name)}</th>{cells}</tr>"
    yield "</table></div>"


def _rests(plan: CompanyPlan) -> Iterator[str]:
    """Defaults that the plan used, once each."""
    found = {(d.primary.config, text) for d in plan.decided.values() for text in d.primary.assumed}
    yield from (f"{config}: {text} (a default)" for config, text in sorted(found))
    yield from (f"{name}: {text}" for name, w in sorted(plan.company.workloads.items()) for text in w.assumed)
