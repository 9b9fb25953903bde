"""Witnesses, rotated keys, consistency proofs, and the verifier of docs, which knows nothing of this product."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.core.audit import rotate as rotate_module
from groundplan.core.audit.checkpoint import VerifierKey, cosign, parse_checkpoint, parse_key, parse_note
from groundplan.core.audit.keys import create_keys, load_private, load_public
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.merkle import leaf_hash
from groundplan.core.audit.proof import consistency_proof
from groundplan.core.audit.rotate import end_rotation, key_chain, rotate
from groundplan.core.audit.tiles import Tiles, encode_bundle, tile_path
from groundplan.core.audit.verify import copy_log, verify
from groundplan.core.audit.witness import CosignRequest, Witness, kept_note, parse_request, request_cosignature
from groundplan.core.audit.witness_server import serve
from groundplan.core.errors import Conflict, Denied, GroundplanError, Invalid, NotFound, Unavailable
from groundplan.core.home import Home, sync_folder, write_atomically

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
AT = datetime(2026, 11, 25, 12, 0, 5, tzinfo=UTC)
STANDALONE = Path(__file__).parents[2] / "docs" / "verify_log.py"


def grow(folder: Path, *sizes: int, word: str = "n") -> Path:
    with AuditLog(folder, KEY) as log:
        for size in sizes:
            log.append([f'{{"{word}":{number}}}'.encode() for number in range(log.checkpoint.size, size)])
    return folder


def log_key(folder: Path) -> VerifierKey:
    return parse_key((folder / "log.pub").read_text())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return grow(tmp_path / "audit", 300)


@pytest.fixture
def witness(tmp_path: Path, log: Path) -> Iterator[tuple[Witness, str]]:
    """A witness that knows the log, and where it listens."""
    made = Witness(tmp_path / "witness", "witness.example/acme", WITNESS, [log_key(log)])
    server = serve(made, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield made, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def alone(folder: Path, *options: str) -> tuple[int, str]:
    """What the verifier of docs says, in a process without this package."""
    done = subprocess.run(
        [sys.executable, "-I", str(STANDALONE), str(folder), *options], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_a_witness_signs_what_continues_and_verify_says_who_and_when(log: Path, witness: tuple[Witness, str]) -> None:
    made, url = witness
    assert verify(log).signed == "self-signed" and verify(log).witnessed == ()
    note = request_cosignature(log, url, made.public)
    at = note.cosigned(made.public)
    assert at is not None and abs((datetime.now(UTC) - at).total_seconds()) < 60
    grow(log, 301, 700)
    request_cosignature(log, url, made.public)
    verdict = verify(log, witnesses=[made.public])
    assert verdict.ok and verdict.witnessed[0].startswith("witnessed by witness.example/acme at 20")
    assert verdict.witnessed[0].endswith("Z, 700 entries") and "beside the log" in verify(log).witnessed[0]
    assert made.newest(log_key(log).name) == parse_checkpoint((log / "checkpoint").read_text())
    code, told = alone(log, "--witness", made.public.encode())
    assert (code, told) == (0, f"700 entries hold, {verdict.witnessed[0]}")


def test_a_fork_and_a_cut_are_refused_by_the_witness_and_found_by_what_it_signed(
    log: Path, witness: tuple[Witness, str], tmp_path: Path
) -> None:
    made, url = witness
    copy_log(log, tmp_path / "old")
    request_cosignature(log, url, made.public)
    grow(log, 400)
    request_cosignature(log, url, made.public)
    for name, size, word in (("forked", 500, "forged"), ("cut", 350, "n")):
        other = grow(tmp_path / name, size, word=word)
        assert verify(other).ok, "signed with the right key, it holds in itself"
        with pytest.raises(Invalid) as caught:
            request_cosignature(other, url, made.public)
        assert caught.value.code == "witness_refused"
        shutil.copytree(log / "witnessed", other / "witnessed")
        verdict = verify(other)
        assert not verdict.ok and verdict.problems[0].where == (
            "checkpoint that witness.example/acme signed of 400 entries"
        )
        assert alone(other, "--witness", made.public.encode())[0] == 1
    assert not verify(log, earlier=[(tmp_path / "forked" / "checkpoint").read_bytes()]).ok
    assert verify(log, earlier=[(tmp_path / "old" / "checkpoint").read_bytes()]).ok
    assert alone(log, "--earlier", str(tmp_path / "old" / "checkpoint"))[0] == 0
    assert alone(log, "--earlier", str(tmp_path / "forked" / "checkpoint"))[0] == 1


def test_a_witness_refuses_strangers_wrong_signatures_and_jumps(log: Path, tmp_path: Path) -> None:
    key = log_key(log)
    made = Witness(tmp_path / "w", "w", WITNESS, [key])
    note = parse_note((log / "checkpoint").read_bytes())
    with pytest.raises(NotFound):
        Witness(tmp_path / "v", "v", WITNESS).add(CosignRequest(0, (), note))
    with pytest.raises(Denied):
        made.add(CosignRequest(0, (), parse_note(note.encode().replace(b"\n300\n", b"\n301\n"))))
    for old in (1, 299, 300):
        with pytest.raises(Conflict) as caught:
            made.add(CosignRequest(old, (), note))
        assert caught.value.message == "0"
    line = made.add(CosignRequest(0, (), note), AT)
    assert note.with_signature(line).cosigned(made.public) == AT
    assert note.with_signature(line).cosigned(VerifierKey("w", bytes(32), cosigns=True)) is None
    assert not note.signed_by(VerifierKey(key.name, key.public, cosigns=True))
    grow(log, 600)
    later = parse_note((log / "checkpoint").read_bytes())
    with pytest.raises(Invalid) as refused:
        made.add(CosignRequest(300, (bytes(32),), later))
    assert refused.value.code == "witness_proof"
    proof = consistency_proof(log, 300)
    assert parse_request(CosignRequest(300, proof.hashes, later).encode()) == CosignRequest(300, proof.hashes, later)
    made.add(CosignRequest(300, proof.hashes, later))


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"old 1\n{text}\n\nnote".encode()))
def test_no_body_breaks_a_witness(body: bytes) -> None:
    with pytest.raises(Invalid):
        parse_request(body)


def test_silence_and_answers_that_are_no_signature_are_told_apart(log: Path, witness: tuple[Witness, str]) -> None:
    made, url = witness
    with pytest.raises(Unavailable):
        request_cosignature(log, "http://127.0.0.1:9", made.public)
    with pytest.raises(Invalid) as caught:
        request_cosignature(log, url, VerifierKey("other", made.public.public, cosigns=True))
    assert "not signed by other" in caught.value.message
    assert kept_note(log, made.public) is None


def test_the_format_of_a_cosignature_is_that_of_the_standard() -> None:
    """The message, the key's id and the signature, made here by hand."""
    text = "example.com/log\n1\nqqo=\n"
    line = cosign(text, WITNESS, "w.example", AT)
    WITNESS.public_key().verify(line.signature[8:], f"cosignature/v1\ntime 1795608005\n{text}".encode())
    assert int.from_bytes(line.signature[:8], "big") == 1795608005
    key = VerifierKey("w.example", WITNESS.public_key().public_bytes_raw(), cosigns=True)
    assert parse_key(key.encode()) == key and line.key_id == key.id


def test_a_rotated_key_is_reached_from_the_old_one_and_a_stranger_is_not(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)

    def more(to: int) -> None:
        with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
            log.append([b"%d" % number for number in range(log.checkpoint.size, to)])

    with pytest.raises(Conflict):
        rotate(home)
    (home.keys / "checkpoint.next").unlink()
    more(10)
    first, kept = (home.audit / "log.pub").read_bytes(), (home.audit / "checkpoint").read_bytes()
    with AuditLog(home.audit, load_private(home, "checkpoint")), pytest.raises(Conflict):
        rotate(home)
    done = rotate(home)
    assert not (home.keys / "checkpoint.next").exists() and done.previous.encode().encode() + b"\n" == first
    more(20)
    rotate(home)
    more(30)
    newest = (home.audit / "log.pub").read_bytes()
    for key in (first, newest):
        verdict = verify(home.audit, key, earlier=[kept])
        assert verdict.ok and verdict.signed == "trusted key", verdict.problems
    assert len(key_chain(home.audit, parse_key(first.decode()))) == 3
    (tmp_path / "first.pub").write_bytes(first)
    assert alone(home.audit, "--key", str(tmp_path / "first.pub"))[0] == 0
    stranger = VerifierKey(done.next.name, KEY.public_key().public_bytes_raw()).encode().encode()
    assert not verify(home.audit, stranger).ok
    (home.audit / "rotated" / "1").write_bytes((home.audit / "rotated" / "2").read_bytes())
    assert not verify(home.audit, first).ok


def test_a_rotation_that_was_cut_off_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([b"1"])
    old = (home.keys / "checkpoint.key").read_bytes()
    done = rotate(home)
    (home.keys / "checkpoint.key").rename(home.keys / "checkpoint.next")
    (home.keys / "checkpoint.key").write_bytes(old)
    (home.keys / "checkpoint.key").chmod(0o600)
    assert rotate(home).next == done.next
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        assert log.checkpoint.size == 1


@pytest.mark.parametrize("writes", range(7))
def test_a_rotation_that_was_cut_off_anywhere_is_ended_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """After so many of its writes. Once both keys signed the handover, what the old one signs does not verify."""
    home, done = Home(tmp_path / "home"), 0
    home.create()
    create_keys(home)
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([b"1"])
    first = (home.audit / "log.pub").read_bytes()

    def cut() -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise OSError(5, "Input/output error")

    def written(*arguments: Any) -> None:
        cut()
        write_atomically(*arguments)

    def synced(folder: Path) -> None:
        cut()
        sync_folder(folder)

    with monkeypatch.context() as patched:
        patched.setattr(rotate_module, "write_atomically", written)
        patched.setattr(rotate_module, "sync_folder", synced)
        if writes < 6:
            with pytest.raises(OSError, match="Input/output error"):
                rotate(home)
        else:
            rotate(home)
    create_keys(home)
    assert end_rotation(home) == (writes in (2, 3, 4)) and not end_rotation(home)
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([b"2"])
    public = load_private(home, "checkpoint").public_key().public_bytes_raw()
    assert load_public(home, "checkpoint").public_bytes_raw() == public
    verdict = verify(home.audit, first)
    assert verdict.ok and verdict.entries == 2, verdict.problems
    assert rotate(home) and verify(home.audit, first).ok


@settings(max_examples=60, deadline=None)
@given(old=st.integers(1, 699))
def test_every_size_is_continued_by_the_newest_checkpoint(tmp_path_factory: pytest.TempPathFactory, old: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "continued"
    if not folder.exists():
        grow(folder / "whole", 700)
    before = folder / f"first-{old}"
    if not before.exists():
        grow(before, old)
    proof = consistency_proof(folder / "whole", old)
    earlier = (before / "checkpoint").read_bytes()
    public = KEY.public_key().public_bytes_raw()
    assert proof.holds(earlier, public) and not proof.holds(earlier, bytes(32))
    other = old % 699 + 1
    assert not consistency_proof(folder / "whole", other).holds(earlier, public)
    with pytest.raises(GroundplanError):
        consistency_proof(folder / "whole", 701)


def test_the_verifier_of_docs_is_short_and_finds_what_was_altered(log: Path) -> None:
    assert len(STANDALONE.read_text().splitlines()) <= 150
    assert alone(log) == (0, "300 entries hold, self-signed")
    path = log / tile_path("entries", 0)
    data = bytearray(path.read_bytes())
    data[data.index(b'{"n":77}') + 5] ^= 1
    path.write_bytes(data)
    code, told = alone(log)
    assert code == 1 and told.splitlines()[0] == "entry 77: it is not the one that was logged"


def test_an_entry_changed_with_its_hash_is_located_in_its_tile(tmp_path: Path) -> None:
    folder = grow(tmp_path / "audit", 2000)
    path, hashes = folder / tile_path("entries", 3), folder / tile_path(0, 3)
    path.write_bytes(path.read_bytes().replace(b'{"n":800}', b'{"n":801}', 1))
    hashes.write_bytes(b"".join(leaf_hash(entry) for entry in Tiles(folder).entries(3)))
    verdict = verify(folder)
    assert [problem.where for problem in verdict.problems] == ["tile/0/003", "checkpoint"]
    shutil.copy(grow(tmp_path / "again", 2000) / tile_path("entries", 3), path)
    shutil.copy(tmp_path / "again" / tile_path(0, 3), hashes)
    above = folder / tile_path(1, 0, 7)
    data = bytearray(above.read_bytes())
    data[40] ^= 1
    above.write_bytes(data)
    assert [problem.where for problem in verify(folder).problems] == ["tile/1/000.p/7"]


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 300), times=st.integers(1, 3))
def test_entries_put_in_are_found_wherever_they_stand(
    tmp_path_factory: pytest.TempPathFactory, at: int, times: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "put-in"
    if not folder.exists():
        grow(folder, 300)
    index, width = (0, 256) if at < 256 else (1, 44)
    path = folder / tile_path("entries", index, width)
    data, entries = path.read_bytes(), Tiles(folder).entries(index, width)
    place = min(at - index * 256, width)
    path.write_bytes(encode_bundle([*entries[:place], *[b"forged"] * times, *entries[place:]]))
    verdict = verify(folder)
    path.write_bytes(data)
    assert not verdict.ok and index * 256 + place in [problem.where for problem in verdict.problems]
    assert verify(folder).ok
