"""Decompression from strangers, held against the standard library's, and its bounds."""

import bz2
import gzip
import lzma
import random
from collections.abc import Callable

import pytest
from geo_tree import noise

from immunomod.acquire.inflate import BLOCK_BYTES, DamageError, Inflater, compression_of_bytes, compression_of_name

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
CONTENT = noise(1, 40_000) + b"\0" * 30_000 + b"text,text\n" * 3000


def inflate(kind: str, data: bytes, pieces: int = 1) -> bytes:
    inflater = Inflater(kind)
    step = max(1, -(-len(data) // pieces))
    out = b"".join(block for at in range(0, len(data), step) for block in inflater.feed(data[at : at + step]))
    inflater.close()
    return out


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("pieces", [1, 2, 97, 10**6])
def test_gives_what_was_packed_however_it_arrives(kind: str, pieces: int) -> None:
    packed = COMPRESS[kind](CONTENT)
    assert compression_of_bytes(packed) == kind
    assert inflate(kind, packed, pieces) == CONTENT
    assert inflate(kind, packed + COMPRESS[kind](b"second") + COMPRESS[kind](b""), pieces) == CONTENT + b"second"
    assert inflate(kind, packed + b"\0" * 512 + packed, pieces) == CONTENT * 2
    assert inflate(kind, COMPRESS[kind](b""), pieces) == b""


@pytest.mark.parametrize("kind", COMPRESS)
def test_every_cut_is_seen(kind: str) -> None:
    packed = COMPRESS[kind](CONTENT[:300])
    for end in range(len(packed)):
        with pytest.raises(DamageError, match="ends too early"):
            inflate(kind, packed[:end])


@pytest.mark.parametrize("kind", COMPRESS)
def test_no_flipped_byte_changes_the_content_unseen(kind: str) -> None:
    """Bits that nothing depends on (the time in a gzip header, padding) may change; the content may not."""
    packed = COMPRESS[kind](CONTENT[:1000])
    order, seen = random.Random(2), 0
    for at in range(len(packed)):
        harmed = bytearray(packed)
        harmed[at] ^= 1 << order.randrange(8)
        try:
            assert inflate(kind, bytes(harmed)) == CONTENT[:1000]
        except DamageError:
            seen += 1
    assert len(packed) - 20 <= seen < len(packed) + 1


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("tail", [b"x", b"\x1f", b"trailing words", b"\0\0\0x"])
def test_what_follows_the_end_is_damage(kind: str, tail: bytes) -> None:
    if compression_of_bytes(tail + b"\x8b") == kind:
        tail += b"\x8b"
    with pytest.raises(DamageError):
        inflate(kind, COMPRESS[kind](CONTENT) + tail)


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_bomb_comes_in_small_blocks(kind: str) -> None:
    packed = COMPRESS[kind](b"\0" * 8_000_000)
    blocks = [len(block) for block in Inflater(kind).feed(packed)]
    assert sum(blocks) == 8_000_000 and max(blocks) <= BLOCK_BYTES


def test_xz_may_not_ask_for_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lzma.compress(b"x")  # asks for 8 MiB
    assert inflate("xz", packed) == b"x"
    monkeypatch.setattr("immunomod.acquire.inflate.LARGEST_XZ_MEMORY", 1 << 20)
    with pytest.raises(DamageError, match="not a whole xz file"):
        inflate("xz", packed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("a.csv.GZ", "gzip"), ("a.tgz", "gzip"), ("a.tar.bz2", "bzip2"), ("a.txz", "xz"), ("a.mtx.xz", "xz")),
        *(("a.csv", ""), ("gz", ""), ("a.gz.txt", "")),
    ],
)
def test_names(name: str, kind: str) -> None:
    assert compression_of_name(name) == kind
