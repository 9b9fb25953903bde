"""`groundplan knowledge ...`: documents, the search index, and the evaluation of search."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli import documents, drafts, links
from groundplan.cli import index as index_
from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption, settings_for
from groundplan.cli.output import emit, note, table
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.settings import Settings

_PATIENCE_SECONDS = 3600.0
"""Timeout of an evaluation: enough for two thousand questions, each ordered by a reranker."""
_MAX_NAMED = 5
"""Most documents named in a message."""
_MEASURES = ("ndcg@10", "recall@100", "mrr@10")
app = command_group("Documents and search: content, its quality, and permissions.")
documents.register(app)
links.register(app)
drafts.register(app)
app.add_typer(index_.app, name="index")


@app.command()
def evaluate(
    questions: Annotated[
        Path | None, typer.Argument(help="JSON Lines: question, expected documents or spans, person and workload.")
    ] = None,
    beir: Annotated[
        Path | None, typer.Option("--beir", help="Folder with corpus.jsonl, queries.jsonl and qrels/*.tsv.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Write a chart (SVG) of the results: abstention by floor, parts with bounds."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask labelled questions and measure the answers: nDCG, recall, reciprocal rank, abstentions, latency.

    QUESTIONS are asked of the running installation, with the permissions of the people named in them. A folder for
    --beir is evaluated in a database of its own below HOME, whether `up` runs or not.
    """
    settings = settings_for(home)
    if (questions is None) == (beir is None):
        raise Invalid("there is nothing to evaluate", code="usage", hint="Give a file of questions, or --beir DIR.")
    if beir is not None:
        value, subject = _evaluate_corpus(settings, beir)
    else:
        assert questions is not None
        value = _ask_questions(ControlClient.connect(home).with_timeout(_PATIENCE_SECONDS), questions)
        subject = f"questions {questions.name}"
    from groundplan.knowledge.evaluation.history import record_run  # noqa: PLC0415 -- heavy

    at = datetime.now(UTC).isoformat(timespec="seconds")
    value["last"] = record_run(Home(settings.home).root / "evaluation", subject, value, at)
    if plot is not None:
        _write_charts(plot, value)
    emit(value, as_json, _format_report(value))


def _write_charts(file: Path, value: dict[str, Any]) -> None:
    from groundplan.knowledge.evaluation import plot  # noqa: PLC0415 -- heavy

    curve, parts = plot.abstention_chart(value), plot.parts_chart(value)
    try:
        file.write_text(curve or parts, encoding="utf-8")
        if curve and parts:
            file.with_stem(f"{file.stem}-parts").write_text(parts, encoding="utf-8")
    except OSError as error:
        note(f"{file} cannot be written: {error.strerror}")


def _ask_questions(client: ControlClient, file: Path) -> dict[str, Any]:
    """The figures for the questions of a file that people wrote or accepted; drafts are left out with a note."""
    from groundplan.api.knowledge import labelled_questions  # noqa: PLC0415 -- heavy

    lines, drafts = labelled_questions.read_lines(file, str(file))
    if drafts:
        note(f"drafts in {file} that are not accepted yet, so not asked: {drafts}")
    try:
        figures: dict[str, Any] = client.post(
            "/api/knowledge/evaluate", {"questions": [line.question.model_dump() for line in lines]}
        )
    except Invalid as error:
        number, _, problem = error.message.removeprefix("question ").partition(": ")
        if error.code != "evaluation_question" or not number.isdecimal():
            raise
        location = f"{file}:{lines[int(number) - 1].number}"
        raise Invalid(f"{location}: {problem}", code=error.code, hint=error.hint) from error
    if missing := figures["not_there"]:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        note(f"labelled documents that do not exist count as missed: {', '.join(missing[:_MAX_NAMED])}{more}")
    return figures


def _evaluate_corpus(settings: Settings, folder: Path) -> tuple[dict[str, Any], str]:
    """(figures, subject of the run) for a folder in the BEIR layout."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 -- heavy

    from groundplan.knowledge.embedding.openvino_encoder import load_encoder, precision_of  # noqa: PLC0415 -- heavy
    from groundplan.knowledge.evaluation import beir, trial  # noqa: PLC0415 -- heavy
    from groundplan.runtime.models import MINILM, ensure  # noqa: PLC0415 -- heavy

    labelled = beir.read_corpus(folder)
    if labelled.unknown_documents:
        note(f"judged documents that corpus.jsonl does not have, which count as missed: {labelled.unknown_documents}")
    if labelled.unknown_queries:
        note(f"judged queries that queries.jsonl does not have, which are not asked: {labelled.unknown_queries}")
    with threadpool_limits(limits=1, user_api="blas"):
        encoder = load_encoder(ensure(settings.models, MINILM.name), precision_of(settings.embedding_precision))
        home = Home(settings.home)
        outcome = trial.run_trial(home, settings, encoder, labelled, _note_progress)
    unknown = {"unknown_documents": labelled.unknown_documents, "unknown_queries": labelled.unknown_queries}
    value = {**outcome.json(), "split": labelled.split, **unknown}
    return value, f"beir {labelled.digest[:16]} {labelled.split}"


def _note_progress(what: str, done: int, of: int) -> None:
    if done == of or done % 1280 == 0:
        note(f"{done} of {of} {what}")


def _format_report(value: dict[str, Any]) -> str:
    """The figures as text."""
    rows = [_ranking_row("together", value)]
    variants = (("words", "lexical"), ("vectors", "vector"), ("without the reranker", "without_reranker"))
    rows += [_ranking_row(name, value[key]) for name, key in variants if key in value]
    parts = [table(("ranking", "nDCG@10", "recall@100", "MRR@10", "nDCG@10 with 95 %"), rows)]
    parts.append(f"search takes p50 {value['p50_ms']} ms, p95 {value['p95_ms']} ms; {value['questions']} questions")
    if (reranked := value.get("reranked")) is not None:
        parts.append(
            f"the reranker was asked for {reranked['asked']} answers and gave no order for {reranked['skipped']}"
        )
    if value.get("abstained") is not None:
        parts.append(f"{value['abstained']:.1%} of the questions were not answered")
    if (best := value.get("calibrated")) is not None:
        better = f"with a floor of {best['floor']:.2f} it would be {best['handled']:.1%}"
        better += f" (grounding: {{floor: {best['floor']:.2f}}})"
        if best["handled"] <= best["handled_now"]:
            better = "no other floor does better"
        parts.append(
            f"{best['handled_now']:.1%} are answered correctly, or declined where nothing answers them; {better}"
        )
    for name, groups in (("source", value.get("by_source")), ("sensitivity", value.get("by_sensitivity"))):
        rows = [
            (
                group,
                *(f"{row[key]:.4f} ({{:.4f}} to {{:.4f}})".format(*row["bounds"][key]) for key in _MEASURES),
                f"{row['abstained']:.1%}",
                row["questions"],
            )
            for group, row in (groups or {}).items()
        ]  # fmt: skip
        if rows:
            heads = (name, *(f"{measure} with 95 %" for measure in ("nDCG@10", "recall@100", "MRR@10")))
            parts.append(table((*heads, "not answered", "questions"), rows))
    if value["last"]:
        parts.append(f"since {value['last']['at']}: nDCG@10 {value['last'].get('ndcg@10', 0):+.4f}")
    return "\n".join(parts)


def _ranking_row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    low, high = figures["confidence"]["ndcg@10"]
    return (name, *(f"{figures[measure]:.4f}" for measure in _MEASURES), f"{low:.4f} to {high:.4f}")
