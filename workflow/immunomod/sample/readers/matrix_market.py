"""MatrixMarket coordinate files, streamed into CSR over cells: nothing but the result is ever held.

CellRanger writes entries cell after cell; they go straight where they belong. Entries in any other order take two
passes over the file, one that counts the entries of each cell and one that places them, so that they need no more
memory than sorted ones. Sources: Boisvert, Pozo and Remington 1996, NISTIR 5935 (the format).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.stream import read_blocks

_BLOCK_BYTES = 1 << 20
_FIELDS = ("integer", "real", "double", "unsigned-integer")
_MAX_HEADER_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 20
_MAX_SIZE = 2**31 - 1
_SHORTEST_ENTRY = len("1 1 1\n")
#: No compression packs tighter: deflate 1,032 to 1; bzip2 and xz do on repetitive text, by far less than this.
_MAX_COMPRESSION = {b"\x1f\x8b": 1032, b"BZ": 100_000, b"\xfd7": 10_000}
_SHOWN_CHARACTERS = 60
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR at the very end may be half of a line end


@dataclass(frozen=True)
class Header:
    """What stands before the entries: the size, and whether CellRanger wrote it (its rows are then features)."""

    rows: int
    columns: int
    entries: int
    from_cellranger: bool


def parse_header(lines: Sequence[str], path: Path) -> Header:
    """Read banner, comments and size line from the first lines of a file.

    Raises
    ------
    UserError
        The file holds something else than a general coordinate matrix of numbers, or no size.
    """
    banner = lines[0].lower().split() if lines else []
    number, size = next(
        (
            (n, line.split())
            for n, line in enumerate(lines[1:], 2)
            if line.strip() and not line.lstrip().startswith("%")
        ),
        (0, []),
    )
    if len(banner) < 5 or banner[0] != "%%matrixmarket" or banner[1] != "matrix":
        raise UserError(
            f"{path}: row 1 is no MatrixMarket banner ({_shown(lines[0] if lines else '')}); fetch it again"
        )
    if banner[2] != "coordinate":
        raise UserError(
            f"{path}: is a MatrixMarket file of the kind `{banner[2]}` (every value written out); counts are read from "
            "`coordinate` files: write it anew as a sparse matrix"
        )
    if banner[3] not in _FIELDS:
        raise UserError(f"{path}: the MatrixMarket file holds no numbers that could be counts ({_shown(lines[0])})")
    if banner[4] != "general":
        raise UserError(
            f"{path}: is a `{banner[4]}` MatrixMarket matrix, half of which is left out; a matrix of genes and cells "
            "is `general`: write it anew"
        )
    if not size:
        raise UserError(f"{path}: the MatrixMarket file has no size line; fetch it again")
    if len(size) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in size):
        raise UserError(
            f"{path}: row {number}: the size line must be three whole numbers (rows, columns, entries); found "
            f"{_shown(' '.join(size))}"
        )
    rows, columns, entries = (int(part) for part in size)
    if max(rows, columns) > _MAX_SIZE:
        raise UserError(f"{path}: row {number}: {rows:,} x {columns:,} is no size of a matrix of genes and cells")
    comments = "\n".join(line for line in lines[1 : number - 1] if line.startswith("%"))
    return Header(rows, columns, entries, from_cellranger="%metadata_json" in comments.replace(" ", ""))


def read_matrix_market(path: Path, cell_axis: int, block_bytes: int = _BLOCK_BYTES) -> sparse.csr_matrix:
    """Read a MatrixMarket file into CSR over cells.

    Parameters
    ----------
    path
        Compressed or plain. Any of the three line ends; comments and blank lines anywhere.
    cell_axis
        Which dimension of the file's matrix is the cells: 0 rows, 1 columns.
    block_bytes
        Decompressed bytes at a time.

    Returns
    -------
    cells x features, CSR; values int32, or float64 where one is no whole number or does not fit. Entries of a cell
    stand in the order of the file, repeated ones each for itself; zeros that the file names are kept.

    Raises
    ------
    UserError
        The file is damaged, cut short, no general coordinate matrix of numbers, or has a malformed entry (its line is
        named).
    """
    arrays = None
    for _ in range(2):
        with closing(read_blocks(path, block_bytes)) as blocks:
            lines, rest = _split_header(blocks)
            arrays = arrays or _Arrays(parse_header(lines, path), cell_axis, path)
            arrays.start_pass(first_line=len(lines) + 1)
            for text, torn in _whole_lines(rest, path):
                arrays.take(text, torn)
        if arrays.end_pass():
            return arrays.result()
    raise AssertionError("a second pass places every entry")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _split_header(blocks: Iterator[bytes]) -> tuple[list[str], Iterator[bytes]]:
    """The lines up to the size line, and all bytes behind them; without a size line, the lines that there are."""
    head = b""
    for block in chain(blocks, [b"\n"]):
        head += block
        lines, begin = [], 0
        for end in _LINE_END.finditer(head):
            line, begin = head[begin : end.start()], end.end()
            lines.append(line.decode(errors="replace"))
            if len(lines) > 1 and line.strip() and not line.lstrip().startswith(b"%"):
                return lines, chain([head[begin:]], blocks)
        if len(head) > _MAX_HEADER_BYTES:
            break
    return lines, iter(())


def _first_line_end(block: bytes) -> int:
    end = block.find(b"\n")
    return end if end >= 0 else block.find(b"\r")


def _last_line_end(block: bytes) -> int:
    end = block.rfind(b"\n")
    return end if end >= 0 else block.rfind(b"\r")


def _whole_lines(blocks: Iterator[bytes], path: Path) -> Iterator[tuple[np.ndarray, bool]]:
    """Cut blocks behind line ends, hardly copying; the flag says that a line, the last one, had no end of its own."""
    torn = b""
    for block in blocks:
        first, last = _first_line_end(block), _last_line_end(block)
        if first < 0:
            torn += block
            if len(torn) > _MAX_LINE_BYTES:
                raise UserError(
                    f"{path}: a line is longer than {_MAX_LINE_BYTES:,} bytes; this is no MatrixMarket file"
                )
            continue
        begin = 0
        if torn:
            yield np.frombuffer(torn + block[: first + 1], dtype=np.uint8), False
            begin = first + 1
        if last >= begin:
            yield np.frombuffer(block, dtype=np.uint8)[begin : last + 1], False
        torn = block[last + 1 :]
    if torn:
        yield np.frombuffer(torn + b"\n", dtype=np.uint8), True


class _Arrays:
    """The arrays that a reading fills, in one pass where cells follow each other and in two where they do not."""

    def __init__(self, header: Header, cell_axis: int, path: Path) -> None:
        from immunomod.sample.readers import matrix_market_kernel

        self.kernel = matrix_market_kernel
        self.header, self.path = header, path
        self.cells_are_rows = cell_axis == 0
        self.n_cells = header.rows if self.cells_are_rows else header.columns
        self.n_features = header.columns if self.cells_are_rows else header.rows
        self.mode = self.kernel.APPEND
        self.state = np.zeros(self.kernel.STATE_SIZE, dtype=np.int64)
        _refuse_absurd(header, path)
        try:
            self.starts = np.zeros(self.n_cells + 1, dtype=np.int64)
            self.positions = self.starts
            self.indices = np.empty(header.entries, dtype=np.int32)
            self.whole = np.empty(header.entries, dtype=np.int32)
            self.real = np.empty(0, dtype=np.float64)
        except MemoryError:
            raise UserError(
                f"{path}: {header.entries:,} entries do not fit this machine's memory; give the job more, or check the "
                "file's size line"
            ) from None

    def start_pass(self, first_line: int) -> None:
        """Go back to the first entry."""
        kernel = self.kernel
        self.state[[kernel.LINE, kernel.ENTRIES, kernel.CELL, kernel.AFTER_CR]] = first_line, 0, -1, 0

    def take(self, text: np.ndarray, torn: bool) -> None:
        """Take the entries of whole lines; ``torn`` says that these are the file's last line, which had no end."""
        kernel, header = self.kernel, self.header
        while True:
            code = kernel.parse_entries(
                text,
                header.rows,
                header.columns,
                self.cells_are_rows,
                self.mode,
                self.positions,
                self.indices,
                self.whole,
                self.real,
                self.state,
            )
            if code == kernel.DONE:
                return
            text = text[self.state[kernel.OFFSET] :]
            if code == kernel.UNSORTED:
                self._close_cells()
                self.positions = np.diff(self.starts)
                self.mode = kernel.COUNT
            elif code == kernel.FRACTION and self.mode == kernel.APPEND:
                self._keep_fractions(int(self.state[kernel.ENTRIES]))
            else:
                self._refuse(code, text, torn)

    def end_pass(self) -> bool:
        """Whether the arrays are full; where entries were only counted, get ready to place them."""
        kernel = self.kernel
        if self.state[kernel.ENTRIES] != self.header.entries:
            raise UserError(
                f"{self.path}: holds {self.state[kernel.ENTRIES]:,} entries where its size line says "
                f"{self.header.entries:,}: the file was cut short; fetch it again"
            )
        if self.mode == kernel.APPEND:
            self._close_cells()
        if self.mode != kernel.COUNT:
            return True
        self.starts[1:] = np.cumsum(self.positions)
        self.positions = np.concatenate([self.starts[:-1], self.starts[1:]])
        self.mode = kernel.PLACE
        if self.state[kernel.HAS_FRACTIONS] and not self.real.size:
            self._keep_fractions(0)
        return False

    def result(self) -> sparse.csr_matrix:
        """The matrix, around the arrays themselves."""
        data = self.real if self.state[self.kernel.HAS_FRACTIONS] else self.whole
        return sparse.csr_matrix((data, self.indices, self.starts), shape=(self.n_cells, self.n_features), copy=False)

    def _close_cells(self) -> None:
        """Cells behind the last one that was seen begin, empty, behind its entries."""
        self.starts[self.state[self.kernel.CELL] + 1 :] = self.state[self.kernel.ENTRIES]

    def _keep_fractions(self, n_entries: int) -> None:
        self.real = np.empty(self.header.entries, dtype=np.float64)
        self.real[:n_entries] = self.whole[:n_entries]
        self.whole = np.empty(0, dtype=np.int32)
        self.state[self.kernel.HAS_FRACTIONS] = 1

    def _refuse(self, code: int, text: np.ndarray, torn: bool) -> NoReturn:
        kernel, header = self.kernel, self.header
        line = text.tobytes().splitlines()[0].decode(errors="replace")
        if torn:
            raise UserError(
                f"{self.path}: ends within an entry ({_shown(line)}): the file was cut short; fetch it again"
            )
        reasons = {
            kernel.TOO_FEW_FIELDS: "has fewer than the three fields row, column, value",
            kernel.TOO_MANY_FIELDS: "has more than the three fields row, column, value",
            kernel.BAD_ROW: f"names no row from 1 to {header.rows:,}",
            kernel.BAD_COLUMN: f"names no column from 1 to {header.columns:,}",
            kernel.BAD_VALUE: "has a value that is no number",
            kernel.TOO_MANY_ENTRIES: f"is one more than the {header.entries:,} entries of the size line",
        }
        reason = reasons.get(code, "was another one a moment ago: the file changed while it was read")
        raise UserError(
            f"{self.path}: row {self.state[kernel.LINE]:,} ({_shown(line)}) {reason}; the file is damaged: fetch or "
            "write it anew"
        )


def _refuse_absurd(header: Header, path: Path) -> None:
    """A size line can claim anything: no more is allocated than the file's bytes could hold."""
    with path.open("rb") as handle:
        head = handle.read(6)
    packed = next((ratio for magic, ratio in _MAX_COMPRESSION.items() if head.startswith(magic)), 1)
    possible = path.stat().st_size * packed // _SHORTEST_ENTRY + 1
    if header.entries > possible:
        raise UserError(
            f"{path}: its size line says {header.entries:,} entries, and so many do not fit a file of "
            f"{path.stat().st_size:,} bytes: the file was cut short, or is no matrix; fetch it again"
        )
