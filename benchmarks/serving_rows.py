"""Measured rows of serving engines as settings with two times. Reads the columns of AIConfigurator's silicon sample.

An unreadable row is an error that names its line. The only assumption: a missing concurrency is derived from the batch
of a rank.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.placement.serving.model import Engine, Setting, find_hardware, find_shape

MAX_BYTES = 64 << 20
_CONCURRENCY = re.compile(r"silicon_concurrency=([0-9]{1,7})")


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredRows:
    """Measured settings with their times."""

    settings: tuple[Setting, ...]
    first_token: NDArray[np.float64]
    """[rows] milliseconds"""
    per_token: NDArray[np.float64]
    """[rows] milliseconds"""

    @property
    def families(self) -> NDArray[np.str_]:
        return np.array([each.shape.family for each in self.settings])

    @property
    def hardware(self) -> NDArray[np.str_]:
        return np.array([each.hardware.name for each in self.settings])

    @property
    def split(self) -> NDArray[np.bool_]:
        return np.array([each.split for each in self.settings])


def read_rows(path: Path) -> MeasuredRows:
    """The rows of a CSV file, gzipped or not. Raises `Invalid` with file and line."""
    rows: list[tuple[Setting, float, float]] = []
    for line, row in _read_lines(path):
        try:
            rows.append(
                (_parse_setting(row), _milliseconds(row, "silicon_ttft_ms"), _milliseconds(row, "silicon_tpot_ms"))
            )
        except (KeyError, ValueError) as error:
            raise Invalid(
                f"a measured row cannot be read: {error}",
                code="serving_row",
                hint="It needs model_path, system, mode, isl, osl, parallel sizes and both silicon times.",
                where=f"{path.name}:{line}",
            ) from error
    if not rows:
        raise Invalid(
            f"{path.name} has no rows", code="serving_rows", hint="Name the CSV file of measured rows.", where=path.name
        )
    settings, first_tokens, per_tokens = zip(*rows, strict=True)
    return MeasuredRows(tuple(settings), np.array(first_tokens), np.array(per_tokens))


def _read_lines(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
            text = file.read(MAX_BYTES)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise Invalid(
            f"{path} cannot be read: {type(error).__name__}",
            code="serving_rows",
            hint="Name a CSV file of measured rows, gzipped or not.",
        ) from error
    yield from enumerate(csv.DictReader(text.splitlines()), 2)


def _parse_setting(row: Mapping[str, str]) -> Setting:
    shape, hardware = find_shape(row["model_path"]), find_hardware(row["system"].replace("_", "-"))
    if shape is None:
        raise ValueError(f"the model {row['model_path'][:80]!r} is not known")
    if hardware is None:
        raise ValueError(f"the hardware {row['system'][:40]!r} is not known")
    split = row["mode"] == "disagg"
    prefix = "decode_" if split else ""
    decode = _engine(row, prefix, _count(row, "decode_num_workers") if split else 1)
    decode = decode if split or not row["attention_dp_size"] else _fix_squared_engine(decode)
    batch = _count(row, f"{prefix}batch_size")
    match = _CONCURRENCY.search(row["silicon_data_source"])
    each = batch * decode.data
    concurrency = int(match[1]) if match else each * decode.workers
    return Setting(
        shape=shape,
        hardware=hardware,
        precision=row["precision"] or ("fp8" if row["gemm_quant_mode"] else "bf16"),
        engine=row["backend"],
        prompt=int(row["isl"]),
        output=int(row["osl"]),
        concurrency=max(1, concurrency),
        decode=decode,
        prefill=_engine(row, "prefill_", _count(row, "prefill_num_workers")) if split else None,
        rank_batch=batch if split else max(1.0, concurrency / decode.data),
    )


def _fix_squared_engine(engine: Engine) -> Engine:
    """Correct a worker whose size is squared: one published dump lists k units with k ranks of experts as k x k. Its
    own names of the rows (`tp4_ep4`) show the true size."""
    ranks = (engine.tensor, engine.data, engine.expert_tensor, engine.experts)
    k = engine.experts if ranks[2] > 1 else engine.tensor
    if k > 1 and ranks == (k * k, 1, k, k):
        return replace(engine, tensor=k, expert_tensor=1)
    if k > 1 and ranks in ((1, k * k, k, k), (k, k, 1, k * k)):
        return replace(engine, tensor=1, data=k, experts=k, expert_tensor=1)
    return engine


def _engine(row: Mapping[str, str], prefix: str, workers: int) -> Engine:
    return Engine(
        tensor=_count(row, f"{prefix}tp_size"),
        data=_count(row, f"{prefix}attention_dp_size"),
        experts=_count(row, f"{prefix}moe_ep_size"),
        expert_tensor=_count(row, f"{prefix}moe_tp_size") if prefix != "prefill_" else 1,
        workers=workers,
    )


def _count(row: Mapping[str, str], name: str) -> int:
    """A count; a missing or zero one is 1."""
    return max(1, int(float(row[name]))) if row[name] else 1


def _milliseconds(row: Mapping[str, str], name: str) -> float:
    value = float(row[name])
    if not 0 < value < 1e9:
        raise ValueError(f"{name} is {value}")
    return value
