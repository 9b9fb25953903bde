"""Names and contents of tiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.audit.tiles import Tiles, decode_bundle, encode_bundle, levels_of, tile_path, tiles_of
from groundplan.core.errors import Invalid, NotFound


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (tile_path(0, 0), "tile/0/000"),
        (tile_path(0, 1234067), "tile/0/x001/x234/067"),
        (tile_path(1, 999, 8), "tile/1/999.p/8"),
        (tile_path(0, 1000), "tile/0/x001/000"),
        (tile_path("entries", 7, 255), "tile/entries/007.p/255"),
    ],
)
def test_paths_are_those_of_the_format(path: str, expected: str) -> None:
    assert path == expected


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_a_bundle_is_read_back(entries: list[bytes]) -> None:
    data = encode_bundle(entries)
    assert decode_bundle(data) == entries
    for cut in {1, 2, len(data) // 2}:
        if 0 < cut < len(data):
            try:
                assert decode_bundle(data[:cut]) == entries[: len(decode_bundle(data[:cut]))]
            except Invalid as error:
                assert error.code == "bundle_damaged"


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_bundle_or_damaged(data: bytes) -> None:
    try:
        assert encode_bundle(decode_bundle(data)) == data
    except Invalid as error:
        assert error.code == "bundle_damaged"


def test_an_entry_longer_than_its_length_field_is_refused() -> None:
    with pytest.raises(OverflowError):
        encode_bundle([bytes(65_536)])


@given(st.integers(0, 2**40))
def test_tiles_cover_a_level(size: int) -> None:
    for level in range(levels_of(size)):
        hashes = size >> (8 * level)
        assert hashes
        if hashes < 10_000:
            assert sum(width for _, width in tiles_of(size, level)) == hashes
    assert not size >> (8 * levels_of(size))


def test_missing_and_short_tiles_are_told_apart(tmp_path: Path) -> None:
    tiles = Tiles(tmp_path)
    with pytest.raises(NotFound) as missing:
        tiles.hashes(0, 0, 3)
    assert missing.value.where == "tile/0/000.p/3"
    folder = tmp_path / "tile/0/000.p"
    folder.mkdir(parents=True)
    (folder / "3").write_bytes(bytes(64))
    with pytest.raises(Invalid) as short:
        tiles.hashes(0, 0, 3)
    assert short.value.code == "tile_damaged"
