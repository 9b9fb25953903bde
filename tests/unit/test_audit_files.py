"""The log in files: appended, reopened after a crash at any file, verified, and tampered with."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.merkle import leaf_hash, root_of
from groundplan.core.audit.proof import inclusion_proof
from groundplan.core.audit.tiles import Tiles, decode_bundle, encode_bundle, tile_path
from groundplan.core.audit.verify import LogProblem, copy_log, verify
from groundplan.core.errors import Conflict, NotFound, Unavailable

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
SIZE = 70_000


def bodies(start: int, end: int) -> list[bytes]:
    return [f'{{"n":{number}}}'.encode() for number in range(start, end)]


def log_of(folder: Path, *steps: int) -> Path:
    with AuditLog(folder, KEY) as log:
        for size in steps:
            log.append(bodies(log.checkpoint.size, size))
    return folder


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return log_of(tmp_path_factory.mktemp("long") / "audit", 1, 255, 256, 700, 65_536, SIZE)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return log_of(tmp_path / "audit", 600)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_however_it_grew_root_and_entries_are_those_of_the_tree(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("grown")
    total = 0
    for size in sizes:
        with AuditLog(folder, KEY) as log:
            point = log.append(bodies(total, total + size))
        total += size
        assert point.root == root_of([leaf_hash(body) for body in bodies(0, total)])
    verdict = verify(folder)
    assert verdict.ok and verdict.entries == total and verdict.signed == "self-signed"
    assert [Tiles(folder).entry(index, total) for index in range(total)] == bodies(0, total)
    shutil.rmtree(folder)


def test_a_long_log_verifies_with_progress_and_its_partial_tiles_are_gone_when_full(long_log: Path) -> None:
    seen: list[tuple[int, int]] = []
    verdict = verify(long_log, PUBLIC, lambda done, total: seen.append((done, total)))
    assert verdict.ok and verdict.entries == SIZE and verdict.signed == "trusted key" and verdict.problems == ()
    assert seen[-1] == (SIZE, SIZE) and len(seen) == 274
    partial = sorted(str(path.relative_to(long_log)) for path in (long_log / "tile").rglob("*.p"))
    assert partial == ["tile/0/273.p", "tile/1/001.p", "tile/2/000.p", "tile/entries/273.p"]
    assert (long_log / "tile/1/000").stat().st_size == 8192 and (long_log / "tile/2/000.p/1").stat().st_size == 32


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, SIZE - 1))
def test_every_entry_can_be_proved_from_the_files(long_log: Path, index: int) -> None:
    proof = inclusion_proof(long_log, index)
    assert proof.entry == bodies(index, index + 1)[0]
    assert proof.holds(PUBLIC) and proof.holds((long_log / "log.pub").read_bytes())
    assert not proof.holds(bytes(32)) and not proof.holds(b"nonsense") and not proof.holds(b"\xff")


def test_an_entry_beyond_the_log_has_no_proof(small: Path, tmp_path: Path) -> None:
    for folder, index in ((small, 600), (small, -1), (tmp_path / "none", 0)):
        with pytest.raises(NotFound):
            inclusion_proof(folder, index)


def rewrite(folder: Path, path: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    (folder / path).write_bytes(encode_bundle(change(decode_bundle((folder / path).read_bytes()))))


BUNDLE, LAST = "tile/entries/001", "tile/entries/002.p/88"


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        (BUNDLE, lambda e: [*e[:17], b"forged", *e[18:]], [(273, "altered")]),
        (BUNDLE, lambda e: [*e[:17], *e[18:]], [(273, "missing")]),
        (
            BUNDLE,
            lambda e: [*e[:17], e[18], e[17], *e[19:]],
            [(273, "reordered: entry 274"), (274, "reordered: entry 273")],
        ),
        (BUNDLE, lambda e: [*e[:17], b'{"n":5}', *e[18:]], [(273, "reordered: entry 5 ")]),
        (BUNDLE, lambda e: [*e, b"more"], [(512, "never logged")]),
        (BUNDLE, lambda e: [*e, e[0]], [(256, "more than once")]),
        (LAST, lambda e: [*e[:3], b"forged", *e[4:]], [(515, "altered")]),
        (LAST, lambda e: e[:-1], [(599, "missing")]),
    ],
)
def test_a_tampered_entry_is_named(
    small: Path, path: str, change: Callable[[list[bytes]], list[bytes]], expected: list[tuple[int, str]]
) -> None:
    rewrite(small, path, change)
    verdict = verify(small)
    assert not verdict.ok and verdict.entries == 600
    assert [problem.where for problem in verdict.problems] == [where for where, _ in expected]
    for problem, (_, words) in zip(verdict.problems, expected, strict=True):
        assert words in problem.message


def test_an_altered_tile_is_named_and_the_entries_are_not_blamed(small: Path) -> None:
    path = small / "tile/0/001"
    path.write_bytes(bytes(32) + path.read_bytes()[32:])
    assert verify(small).problems == (LogProblem("tile/0/001", "the hash tile was altered; the entries are as signed"),)


def test_an_altered_upper_tile_is_named(small: Path) -> None:
    path = small / "tile/1/000.p/2"
    path.write_bytes(bytes(64))
    assert [problem.where for problem in verify(small).problems] == ["tile/1/000.p/2"]


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("tile/entries/001", 256),
        ("tile/0/001", "tile/0/001"),
        ("tile/1/000.p/2", "tile/1/000.p/2"),
        ("log.pub", "log.pub"),
        ("checkpoint", "checkpoint"),
    ],
)
def test_a_missing_file_is_named(small: Path, path: str, where: int | str) -> None:
    (small / path).unlink()
    verdict = verify(small)
    assert not verdict.ok and [problem.where for problem in verdict.problems] == [where]
    assert str(where) in str(verdict.problems[0])


def test_entry_and_hash_altered_together_are_found(small: Path) -> None:
    for bundle, tile in ((BUNDLE, "tile/0/001"), (LAST, "tile/0/002.p/88")):
        folder = small.parent / f"copy-{bundle[-2:].strip('/')}"
        shutil.copytree(small, folder)
        rewrite(folder, bundle, lambda entries: [b"forged", *entries[1:]])
        path = folder / tile
        path.write_bytes(leaf_hash(b"forged") + path.read_bytes()[32:])
        verdict = verify(folder)
        assert not verdict.ok and verdict.problems[-1].where == "checkpoint"


def test_another_key_is_found_by_whoever_knows_the_right_one(small: Path, tmp_path: Path) -> None:
    forger = Ed25519PrivateKey.generate()
    forged = tmp_path / "forged"
    with AuditLog(forged, forger) as log:
        log.append(bodies(0, 500))
    assert verify(forged).ok
    assert not verify(forged, PUBLIC).ok and verify(forged, PUBLIC).signed == "unsigned"
    assert not verify(forged, (small / "log.pub").read_bytes()).ok
    with pytest.raises(Conflict) as caught:
        AuditLog(forged, KEY)
    assert caught.value.code == "audit_foreign"


def test_a_kept_checkpoint_finds_a_cut_and_a_rewritten_log(small: Path, tmp_path: Path) -> None:
    kept = (small / "checkpoint").read_bytes()
    log_of(small, 900)
    assert verify(small, earlier=[kept]).ok
    cut = log_of(tmp_path / "cut", 500)
    assert "was cut" in verify(cut, earlier=[kept]).problems[0].message
    rewritten = tmp_path / "rewritten"
    with AuditLog(rewritten, KEY) as log:
        log.append([b"forged", *bodies(1, 900)])
    assert verify(rewritten).ok
    assert "was rewritten" in verify(rewritten, earlier=[kept]).problems[0].message
    assert "signed note" in verify(small, earlier=[b"?"]).problems[0].message


def test_many_problems_are_counted(small: Path) -> None:
    rewrite(small, BUNDLE, lambda entries: [b"forged" + entry for entry in entries])
    verdict = verify(small)
    assert len(verdict.problems) == 101 and "156 more" in verdict.problems[-1].message


def test_every_file_there_matters_also_older_copies_of_the_last_tiles(tmp_path: Path) -> None:
    folder = log_of(tmp_path / "audit", 10, 20, 300, 310, 600)
    bundles = [path for path in (folder / "tile").rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder)) for path in bundles} >= {"tile/entries/001", "tile/0/002.p/88"}
    log_of(folder, 610, 620)
    assert verify(folder).ok
    for path in [path for path in (folder / "tile").rglob("*") if path.is_file()]:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert not verify(folder).ok, path
        path.write_bytes(data)
    assert verify(folder).ok


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_one_changed_byte_anywhere_names_the_entry_or_the_file(long_log: Path, data: st.DataObject) -> None:
    paths = [*(long_log / "tile").rglob("*"), long_log / "checkpoint", long_log / "log.pub"]
    path = data.draw(st.sampled_from(sorted(path for path in paths if path.is_file())))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    path.write_bytes(before[:at] + bytes([before[at] ^ data.draw(st.integers(1, 255))]) + before[at + 1 :])
    try:
        verdict = verify(long_log, PUBLIC if path.name != "log.pub" else None)
    finally:
        path.write_bytes(before)
    name = str(path.relative_to(long_log))
    if name.startswith("tile/entries"):
        bundle, _, width = name.removeprefix("tile/entries/").partition(".p/")
        first = int(bundle) * 256
        ends = [len(encode_bundle(bodies(first, end))) for end in range(first + 1, first + int(width or 256) + 1)]
        assert verdict.problems[0].where in (first, first + sum(end <= at for end in ends))
    elif name != "log.pub" or not verdict.ok:
        assert not verdict.ok and verdict.problems[0].where == name


@pytest.mark.parametrize("name", ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"])
def test_a_changed_hash_of_a_last_tile_is_no_changed_entry(long_log: Path, name: str) -> None:
    path = long_log / name
    before = path.read_bytes()
    for at in (0, 31, len(before) // 2, len(before) - 1):
        path.write_bytes(before[:at] + bytes([before[at] ^ 159]) + before[at + 1 :])
        try:
            verdict = verify(long_log, PUBLIC)
        finally:
            path.write_bytes(before)
        assert [problem.where for problem in verdict.problems] == [name]


def test_a_changed_last_entry_is_no_changed_hash(small: Path) -> None:
    rewrite(small, LAST, lambda entries: [*entries[:-1], b"forged"])
    assert verify(small).problems[0].where == 599


def test_a_copy_made_while_the_log_grows_holds(tmp_path: Path) -> None:
    source = log_of(tmp_path / "audit", 300)
    stop = threading.Event()

    def grow() -> None:
        with AuditLog(source, KEY) as log:
            while not stop.is_set():
                log.append(bodies(log.checkpoint.size, log.checkpoint.size + 37))

    writer = threading.Thread(target=grow)
    writer.start()
    sizes: list[int] = []
    try:
        while len(set(sizes)) < 8:
            copy = tmp_path / str(len(sizes))
            sizes.append(copy_log(source, copy))
            assert verify(copy).ok and verify(source).ok
            shutil.rmtree(copy)
    finally:
        stop.set()
        writer.join()
    assert sizes == sorted(sizes)
    with pytest.raises(NotFound):
        copy_log(tmp_path / "none", tmp_path / "target")


def test_a_checkpoint_that_claims_any_size_does_not_stall(small: Path) -> None:
    note = (small / "checkpoint").read_bytes().replace(b"\n600\n", b"\n999999999999\n")
    (small / "checkpoint").write_bytes(note)
    verdict = verify(small)
    assert not verdict.ok and verdict.signed == "unsigned" and "more problems" in verdict.problems[-1].message


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(p.relative_to(folder)): p.stat() for p in folder.rglob("*") if p.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items() if name.startswith("tile")}


@pytest.mark.parametrize(
    ("before", "after"), [(0, 3), (3, 5), (200, 300), (300, 310), (512, 600), (600, 1100), (65_500, 65_600)]
)
def test_a_crash_after_any_file_loses_nothing_durable(tmp_path: Path, before: int, after: int) -> None:
    old, new = log_of(tmp_path / "old", *([before] if before else [])), tmp_path / "new"
    shutil.copytree(old, new)
    untouched = snapshot(new)
    log_of(new, after)
    written = snapshot(new)
    assert all(written[name] == untouched[name] for name in untouched.keys() & written.keys())
    fresh = sorted(written.keys() - untouched.keys())
    for count in {0, 1, len(fresh) // 2, len(fresh)}:
        crashed = tmp_path / f"crashed-{count}"
        shutil.copytree(old, crashed)
        for number, name in enumerate(fresh[:count]):
            (crashed / name).parent.mkdir(parents=True, exist_ok=True)
            data = (new / name).read_bytes()
            (crashed / name).write_bytes(data[: len(data) // 2] if number == count - 1 else data)
        with AuditLog(crashed, KEY) as log:
            assert log.checkpoint.size == before
            log.append([b"another", *bodies(before + 1, after)])
        assert verify(crashed).ok
        assert Tiles(crashed).entry(before, after) == b"another"


def test_only_one_process_writes(small: Path) -> None:
    with AuditLog(small, KEY):
        with pytest.raises(Conflict) as caught:
            AuditLog(small, KEY)
        assert caught.value.code == "audit_locked"
    AuditLog(small, KEY).close()


@pytest.mark.parametrize("path", ["tile/0/002.p/88", "tile/entries/002.p/88", "tile/1/000.p/2"])
def test_a_damaged_log_is_not_continued(small: Path, path: str) -> None:
    data = (small / path).read_bytes()
    for broken in (data[:-40], b"\x00" * len(data), None):
        (small / path).unlink(missing_ok=True)
        if broken is not None:
            (small / path).write_bytes(broken)
        with pytest.raises(Conflict) as caught:
            AuditLog(small, KEY)
        assert caught.value.code == "audit_damaged" and "verify" in caught.value.hint


def test_after_a_refusing_disk_the_log_is_opened_again(small: Path) -> None:
    log = AuditLog(small, KEY)
    blocker = small / tile_path(0, 2, 100)
    blocker.mkdir()
    with pytest.raises(Unavailable) as refused:
        log.append(bodies(600, 612))
    assert refused.value.code == "audit_write" and refused.value.retry_after
    with pytest.raises(Unavailable) as closed:
        log.append(bodies(600, 601))
    assert closed.value.code == "audit_closed"
    log.close()
    log.close()
    blocker.rmdir()
    log_of(small, 612)
    assert verify(small).ok


def test_an_empty_group_changes_nothing(tmp_path: Path) -> None:
    with AuditLog(tmp_path, KEY) as log:
        assert log.append([]).size == 0
        assert not (tmp_path / "checkpoint").exists()
    assert verify(tmp_path).problems[0].where == "checkpoint"
