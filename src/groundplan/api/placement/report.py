"""The report on the plan for a board, as sections for a page or a PDF: figures, pictures, reasons. Decides nothing.

`report_html` is one self-contained page that loads nothing; `pdf` lays out the same sections on paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import Any

from groundplan.placement import multi_period, pictures, stress
from groundplan.placement.company import BURST_LEVELS
from groundplan.placement.explain.pareto_front import pareto_points
from groundplan.placement.explain.plan_summary import compare, exclusion_matrix, summary_json
from groundplan.placement.explain.why import explain_placement
from groundplan.placement.explain.words import explanation_sentences, format_usd
from groundplan.placement.planner import CompanyPlan

STYLE = """body{font:15px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2730;
background:#fff}h1,h2,h3{line-height:1.2}table{border-collapse:collapse;width:100%;margin:1rem 0;font-size:14px}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #0002;vertical-align:top}td.n,th.n{text-align:right}
.soft{opacity:.7}.scroll{overflow-x:auto}svg{max-width:100%;height:auto}@media(prefers-color-scheme:dark){
body{color:#dfe6ec;background:#161b20}th,td{border-color:#fff3}}@media print{section{break-inside:avoid}}"""

MAX_EXPLAINED = 20
"""The most workloads whose reasons are given: each needs another plan of the whole company."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; `numbers` are columns of amounts."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its content, in this order; level 1 is the title of the report."""

    heading: str
    level: int = 2
    text: str = ""
    lines: tuple[str, ...] = ()
    svg: str = ""
    table: Table | None = None


def sections(plan: CompanyPlan, today: date) -> Iterator[Section]:
    """The whole report."""
    body = summary_json(plan, compare(plan))
    yield Section(f"Where AI runs, and why: plan of {today.isoformat()}", 1, lines=tuple(body["words"]))
    yield Section(
        "Sites and workloads", svg=pictures.site_map(body["sites"], body["workloads"]), table=_placement_table(body)
    )
    yield Section("What a month costs", svg=pictures.cost_waterfall(body["terms"]))
    yield _alternatives_section(pareto_points(plan), body)
    some = (
        ""
        if len(plan.placements) <= MAX_EXPLAINED
        else f"Of the {MAX_EXPLAINED} that cost most; each can be asked for alone."
    )
    yield Section("Why each is where it is", text=some)
    yield from _reasons(plan)
    yield Section("Why not elsewhere", table=_exclusion_table(plan))
    yield Section("The months ahead", lines=tuple(multi_period.describe(multi_period.plan_ahead(plan))))
    stress_report = stress.report(plan, stress.Spreads())
    yield Section(f"Under {stress_report['futures']:,} sampled futures", lines=tuple(stress_report["words"]))
    yield Section("What it rests on", lines=(*plan.notes, *_assumptions(plan)))


def _placement_table(body: dict[str, Any]) -> Table:
    rows = []
    for row in body["workloads"]:
        deployment = row["place"]
        how = "to build: " if deployment["kind"] == "build" else ""
        rows.append((row["workload"], deployment["site"], f"{how}{deployment['config']}", format_usd(row["usd_month"])))
    return Table(("Workload", "Site", "On", "A month"), tuple(rows), frozenset({3}))


def _alternatives_section(ways: list[dict[str, Any]], body: dict[str, Any]) -> Section:
    """The alternatives under other weights; without a picture where there is only one."""
    if len(ways) == 1:
        lines = ("However cost, carbon, latency and hours are weighed, the plan stays the same.",)
        return Section("Other ways to place it", lines=lines, table=_comparison_table(body))
    return Section("Other ways to place it", svg=pictures.alternatives_chart(ways), table=_comparison_table(body))


def _comparison_table(body: dict[str, Any]) -> Table:
    rows = []
    for row in body["compared"]:
        none = "nothing runs yet" if row["with"] == "today" else "not possible"
        other = none if row["usd_month"] is None else format_usd(row["usd_month"])
        rows.append((row["with"], other, "-" if row["usd_month"] is None else format_usd(row["plan_usd_month"])))
    return Table(("Instead", "A month", "The plan for the same"), tuple(rows), frozenset({1, 2}))


def _reasons(plan: CompanyPlan) -> Iterator[Section]:
    dearest = sorted(plan.placements, key=lambda name: (-plan.placements[name].usd, name))[:MAX_EXPLAINED]
    for name, placement in sorted((name, plan.placements[name]) for name in dearest):
        facts = plan.company.workloads[name]
        own = max(facts.curve) * BURST_LEVELS[placement.level] if placement.burst is not None else None
        yield Section(
            name,
            3,
            " ".join(explanation_sentences(explain_placement(plan, name))),
            svg=pictures.load_curve("", facts.curve, own),
        )


def _exclusion_table(plan: CompanyPlan) -> Table:
    sites = sorted(plan.company.sites)
    rows = tuple(
        (name, *(", ".join(row[site]) or "may run" for site in sites)) for name, row in exclusion_matrix(plan).items()
    )
    return Table(("", *sites), rows)


def _assumptions(plan: CompanyPlan) -> Iterator[str]:
    """Defaults that the plan used, once each."""
    assumptions = {(d.primary.config, text) for d in plan.placements.values() for text in d.primary.assumed}
    yield from (f"{config}: {text} (a default)" for config, text in sorted(assumptions))
    yield from (f"{name}: {text}" for name, w in sorted(plan.company.workloads.items()) for text in w.assumed)


def report_html(plan: CompanyPlan, today: date) -> str:
    """The whole page."""
    section_list = list(sections(plan, today))
    title = escape(section_list[0].heading)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>{''.join(map(_html, section_list))}</body></html>"
    )


def _html(section: Section) -> str:
    parts = [f"<h{section.level}>{escape(section.heading)}</h{section.level}>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    if section.lines:
        parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in section.lines) + "</ul>")
    if section.svg:
        parts.append(f'<div role="img" aria-label="{escape(section.heading, quote=True)}">{section.svg}</div>')
    if section.table is not None:
        parts.append(_html_table(section.table))
    return f"<section>{''.join(parts)}</section>" if section.level == 3 else "".join(parts)


def _html_table(table: Table) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        kinds = (' class="n"' if at in table.numbers else "" for at in range(len(cells)))
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for c, k in zip(cells, kinds, strict=True)) + "</tr>"

    rows = "".join(row(cells, "td") for cells in table.rows)
    return f'<div class="scroll"><table>{row(table.head, "th")}{rows}</table></div>'
