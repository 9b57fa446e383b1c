"""Decompressed bytes of a file, a block at a time, read ahead in a thread while the caller parses.

Inflating releases the interpreter's lock, so on two cores it costs no time beside the parsing; at most ``_AHEAD``
blocks wait, which bounds memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from immunomod.sample.readers.sniff import open_bytes, reading

BLOCK_BYTES = 4 << 20
_AHEAD = 2


def read_blocks(path: Path, block_bytes: int = BLOCK_BYTES) -> Generator[bytes, None, None]:
    """Yield the decompressed bytes of ``path`` in blocks of up to ``block_bytes``.

    Raises
    ------
    UserError
        The file is missing, damaged or cut short.
    """
    blocks: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=_AHEAD)
    stopped = threading.Event()

    def put(item: bytes | BaseException) -> bool:
        while not stopped.is_set():
            try:
                blocks.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            with closing(open_bytes(path)) as stream:
                while block := stream.read(block_bytes):
                    if not put(block):
                        return
            put(b"")
        except BaseException as error:  # handed to the caller, who raises it
            put(error)

    thread = threading.Thread(target=fill, name=f"inflate {path.name}", daemon=True)
    thread.start()
    try:
        with reading(path):
            while True:
                item = blocks.get()
                if isinstance(item, BaseException):
                    raise item
                if not item:
                    return
                yield item
    finally:
        stopped.set()
        thread.join()
