"""Whether values are counts, and if not, what they are: every later step needs the noise of counting.

Counts pass; anything else is refused with what it was made by, as far as the values show it, and the way back to the
counts. Fractions that ambient correction or expected counts leave may be rounded, where the user says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.library import LibraryCounts
from immunomod.sample.sums import cell_sums
from immunomod.sections import read_values

_MAX_COUNT = int(np.iinfo(np.int32).max)
_BLOCK = 1 << 22
#: Distance from a whole number that single precision explains, as a share of the value, and its two bounds.
_TOLERANCE, _TOLERANCE_MAX = 1e-6, 1e-3
#: Cells that a diagnosis looks at: the shape of normalised values shows in far fewer.
_DIAGNOSED_CELLS = 500
#: Logarithms of expression values stay below this (log2 of a million is 20).
_LOG_MAX = 25.0
#: Spread of the cells' totals, as a share of their median, up to which they count as equal.
_EQUAL = 2e-3
#: Share of values that must agree before a diagnosis is made of them; chance gives about a tenth.
_AGREE = 0.9
_MIN_VALUES = 8


@dataclass(frozen=True)
class ReadingSettings:
    """How counts are read (config section ``reading``).

    Attributes
    ----------
    round_fractions
        Round fractions that ambient correction or expected counts leave. Normalised and logged values are refused all
        the same.
    """

    round_fractions: bool = False

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``reading`` section."""
        return cls(**read_values(cls, section, "reading"))


@dataclass(frozen=True)
class Diagnosis:
    """What values that are not counts are.

    ``words`` says it; ``remedy`` is a sentence on the way back, or empty. Only values that are ``fractions_of_counts``
    may be rounded; ``gaps`` means that some are missing or infinite, ``nothing`` that none is above 0.
    """

    words: str
    remedy: str = ""
    fractions_of_counts: bool = False
    gaps: bool = False
    nothing: bool = False


@dataclass
class _Scan:
    """What one pass over the values found: places of the first offenders (-1: none) and their numbers."""

    first_nonfinite: int = -1
    first_negative: int = -1
    first_fraction: int = -1
    first_large: int = -1
    negative: int = 0
    fraction: int = 0
    inexact: int = 0


def _tolerance(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.abs(values) * _TOLERANCE, _TOLERANCE, _TOLERANCE_MAX))


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK))


def _first(found: np.ndarray, start: int, known: int) -> int:
    return known if known >= 0 or not found.any() else start + int(np.argmax(found))


def _scan(values: np.ndarray) -> _Scan:
    scan = _Scan()
    floating = values.dtype.kind == "f"
    for block in _blocks(values.size):
        part = values[block]
        with np.errstate(invalid="ignore", over="ignore"):
            scan.first_large = _first(part > _MAX_COUNT, block.start, scan.first_large)
            if not floating:
                negative = part < 0
            else:
                distance = np.abs(part - np.rint(part))
                finite = np.isfinite(part)
                scan.first_nonfinite = _first(~finite, block.start, scan.first_nonfinite)
                off = distance != 0
                if off.any():
                    close = distance <= _tolerance(part)
                    fraction = off & finite & ~close
                    scan.inexact += int((off & close).sum())
                    scan.fraction += int(fraction.sum())
                    scan.first_fraction = _first(fraction, block.start, scan.first_fraction)
                negative = part < -_TOLERANCE
            scan.negative += int(negative.sum())
            scan.first_negative = _first(negative, block.start, scan.first_negative)
    return scan


def holds_counts(values: np.ndarray) -> bool:
    """Whether every value is finite, not negative, and whole within the precision of single floats."""
    scan = _scan(values)
    return max(scan.first_nonfinite, scan.first_negative, scan.first_fraction, scan.first_large) < 0


def _place(library: LibraryCounts, entry: int) -> str:
    """Gene and cell of a stored value, in words."""
    matrix = library.matrix
    cell = int(np.searchsorted(matrix.indptr, entry, side="right") - 1)
    feature = library.features.iloc[int(matrix.indices[entry])]
    gene = feature["gene_symbol"] or feature["gene_id"]
    return f"{matrix.data[entry]:g} for {gene} in cell {library.barcodes[cell]}"


def integer_counts(library: LibraryCounts, where: str, settings: ReadingSettings) -> list[str]:
    """Check that ``library.matrix`` holds counts, and make it canonical int32 CSR (sorted, no zero, no duplicate).

    Values within 1e-6 of a whole number (relatively, at most 1e-3) are taken as whole: single precision stores them so.

    Returns
    -------
    Sentences for the ledger.

    Raises
    ------
    UserError
        Where a value is missing, infinite, negative, fractional or above 2^31, with its gene and cell and what the
        values are; fractions of counts pass, rounded, where ``settings.round_fractions`` says so.
    """
    matrix = library.matrix
    values = matrix.data
    scan = _scan(values)
    if scan.first_nonfinite >= 0:
        raise UserError(
            f"{where}: holds values that are not counts ({_place(library, scan.first_nonfinite)}): a count is never "
            "missing or infinite, so the table was normalised, merged or divided by zero. Point `source` (or `files`) "
            "at the raw counts, or leave the sample out"
        )
    if scan.first_large >= 0:
        raise UserError(
            f"{where}: holds a value above 2^31 ({_place(library, scan.first_large)}); these are not UMI or read counts"
        )
    decisions = []
    if scan.negative or scan.fraction:
        diagnosis = diagnose(matrix)
        if not (settings.round_fractions and diagnosis.fractions_of_counts):
            raise UserError(_refusal(library, where, scan, diagnosis))
        decisions.append(_rounding(values, scan.fraction))
    elif scan.inexact:
        decisions.append(
            f"{scan.inexact:,} values lay off a whole number by no more than single precision and were made whole"
        )
    library.matrix = _whole(matrix, where)
    return decisions + _equal_totals(library.matrix)


def _refusal(library: LibraryCounts, where: str, scan: _Scan, diagnosis: Diagnosis) -> str:
    entry = scan.first_negative if scan.first_negative >= 0 else scan.first_fraction
    offending = scan.negative + scan.fraction if scan.first_negative < 0 else scan.negative
    kind = "negative" if scan.first_negative >= 0 else "no whole numbers"
    remedy = f" {diagnosis.remedy}." if diagnosis.remedy else ""
    return (
        f"{where}: holds values that are not counts ({_place(library, entry)}; {offending:,} of "
        f"{library.matrix.nnz:,} values are {kind}): {diagnosis.words}.{remedy} Point `source` (or `files`) at the raw "
        "counts, or leave the sample out"
    )


def _rounding(values: np.ndarray, changed: int) -> str:
    """Say what rounding to the nearest whole number (halves to even, so that no bias arises) does to the total."""
    before = after = 0.0
    for block in _blocks(values.size):
        part = values[block].astype(np.float64)
        before += float(part.sum())
        after += float(np.rint(part).sum())
    return (
        f"rounded {changed:,} of {values.size:,} values to the nearest whole number as reading.round_fractions asks; "
        f"the total went from {before:,.1f} to {after:,.0f} ({(after - before) / before:+.2%})"
    )


def _whole(matrix: sparse.csr_matrix, where: str) -> sparse.csr_matrix:
    values = matrix.data
    data = values if values.dtype == np.int32 else np.empty(values.size, dtype=np.int32)
    if data is not values:
        for block in _blocks(values.size):
            data[block] = np.rint(values[block]) if values.dtype.kind == "f" else values[block]
    counts = sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape, copy=False)
    if not counts.has_canonical_format:
        total = int(counts.data.sum(dtype=np.int64))
        if total > _MAX_COUNT:
            wide = counts.astype(np.int64)
            wide.sum_duplicates()
            if wide.nnz and int(wide.data.max()) > _MAX_COUNT:
                raise UserError(f"{where}: entries of one gene and cell sum to above 2^31; these are not counts")
        counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _equal_totals(counts: sparse.csr_matrix) -> list[str]:
    """A note where every cell has the same total: downsampled counts do, and so do normalised values once rounded."""
    totals = cell_sums(counts)
    totals = totals[totals > 0]
    if totals.size < 10 or _spread(totals) > _EQUAL:
        return []
    return [
        f"every cell sums to {np.median(totals):,.0f}: the counts were downsampled, or are normalised values that "
        "someone rounded; check which with the authors' methods"
    ]


def _row_sums(matrix: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()


def _spread(totals: np.ndarray) -> float:
    """Width of the middle nine tenths as a share of the median: a few odd cells do not hide equal totals."""
    low, median, high = np.percentile(totals, [5, 50, 95])
    return float((high - low) / median) if median > 0 else float("inf")


#: Transforms that people apply to scaled counts, and what undoes each.
_LOGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log1p": np.expm1,
    "log2(x + 1)": lambda values: np.exp2(values) - 1,
    "log10(x + 1)": lambda values: np.power(10.0, values) - 1,
}
_UNDO = {"log1p": "exp(x) - 1", "log2(x + 1)": "2^x - 1", "log10(x + 1)": "10^x - 1"}
_SEARCH = "look for the counts in raw.X, in a layer or slot named counts, or in another file of the series"


def diagnose(matrix: sparse.csr_matrix) -> Diagnosis:
    """Say what the values of ``matrix`` (cells x features, not all of them counts) are.

    Told by what normalisation leaves behind: cells whose (unlogged) values all sum to the same, and cells whose values
    are whole multiples of the cell's smallest. What has neither trace, is below its next whole number more often than
    chance gives, and varies in total is a fraction of counts.
    """
    if not np.all(np.isfinite(matrix.data)):
        return Diagnosis("values are missing or infinite", gaps=True)
    if matrix.nnz and float(matrix.data.min()) < -_TOLERANCE:
        return _diagnose_negative(matrix)
    sample = _some_cells(matrix)
    if not sample.nnz:
        return Diagnosis("the values are fractions")
    found = _diagnose_equal_totals(sample) or _diagnose_logged(sample) or _diagnose_multiples(sample)
    return found or _diagnose_fractions(sample)


def _some_cells(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """At most :data:`_DIAGNOSED_CELLS` cells that hold values, evenly over the matrix, without stored zeros."""
    filled = np.flatnonzero(np.diff(matrix.indptr))
    step = max(1, -(-filled.size // _DIAGNOSED_CELLS))
    sample = sparse.csr_matrix(matrix[filled[::step]]).astype(np.float64)
    sample.sum_duplicates()
    sample.data[np.abs(sample.data) <= _TOLERANCE] = 0
    sample.eliminate_zeros()
    return sample[np.diff(sample.indptr) > 0]


def _diagnose_negative(matrix: sparse.csr_matrix) -> Diagnosis:
    """Scaled, or otherwise transformed: per gene, the mean and deviation of z-scores are 0 and 1."""
    n_cells, n_genes = matrix.shape
    sums, squares = np.zeros(n_genes), np.zeros(n_genes)
    for block in _blocks(matrix.nnz):
        part = matrix.data[block].astype(np.float64)
        sums += np.bincount(matrix.indices[block], weights=part, minlength=n_genes)
        squares += np.bincount(matrix.indices[block], weights=part * part, minlength=n_genes)
    mean = sums / n_cells
    deviation = np.sqrt(np.maximum(squares / n_cells - mean**2, 0))
    varying = deviation > 0
    centred = bool(varying.any()) and float(np.median(np.abs(mean[varying]))) < 0.05
    if n_cells > 2 and centred and 0.8 < float(np.median(deviation[varying])) < 1.2:
        return Diagnosis(
            "the values are z-scores (each gene has mean 0 and deviation 1), made from normalised values",
            f"Scaling cannot be undone: {_SEARCH}",
        )
    if n_cells > 2 and centred:
        return Diagnosis(
            "counts are never negative; each gene is centred on 0, as residuals or centred normalised values are",
            f"That cannot be undone: {_SEARCH}",
        )
    return Diagnosis(
        "counts are never negative; the values are normalised, scaled, integrated or corrected", _SEARCH.capitalize()
    )


def _diagnose_logged(sample: sparse.csr_matrix) -> Diagnosis | None:
    told = _is_fraction(sample.data)
    if float(sample.data.max()) > _LOG_MAX or int(told.sum()) < _MIN_VALUES:
        return None
    for name, undo in _LOGS.items():
        with np.errstate(over="ignore"):
            plain = sample.copy()
            plain.data = undo(sample.data)
        whole, steps = _whole_share(plain.data[told]), _lattice_share(plain, told)
        if whole >= _AGREE:
            return Diagnosis(
                f"the values are {name} of counts, without normalisation",
                f"{_UNDO[name]} gives whole numbers, the counts: write those to a file and give that",
            )
        totals = _row_sums(plain)
        if _is_constant(totals):
            return Diagnosis(
                f"the values are {name} of counts scaled to {np.median(totals):,.4g} per cell (normalised)",
                _way_back(steps, _UNDO[name]),
            )
        if steps >= _AGREE and _lattice_share(sample, told) < _AGREE:
            return Diagnosis(
                f"the values are {name} of counts scaled by a factor for each cell (normalised; genes may have been "
                "left out since)",
                _way_back(steps, _UNDO[name]),
            )
    if _whole_share(sample.data[told] ** 2) >= _AGREE:
        return Diagnosis("the values are square roots of counts", "Their squares are whole numbers: give those")
    return None


def _way_back(steps: float, undo: str) -> str:
    """What of the counts the values still hold."""
    if steps < _AGREE:
        return _SEARCH.capitalize()
    return (
        f"Within each cell, {undo} is a whole multiple of the smallest value, so the counts could be had back if the "
        f"smallest stands for one count in every cell, which the file does not say: {_SEARCH}"
    )


def _diagnose_equal_totals(sample: sparse.csr_matrix) -> Diagnosis | None:
    totals = _row_sums(sample)
    if not _is_constant(totals):
        return None
    total = float(np.median(totals))
    names = {1e6: "counts per million (CPM) or TPM", 1e4: "counts per 10,000 (CP10k)", 1.0: "shares of each cell"}
    name = next((words for size, words in names.items() if abs(total / size - 1) < 0.01), "scaled counts")
    return Diagnosis(
        f"the values are {name}: every cell sums to {total:,.6g} (normalised)",
        _way_back(_lattice_share(sample, _is_fraction(sample.data)), "the value"),
    )


def _diagnose_multiples(sample: sparse.csr_matrix) -> Diagnosis | None:
    """Counts divided by a factor for each cell, or by one number for all."""
    if _lattice_share(sample, _is_fraction(sample.data)) < _AGREE:
        return None
    smallest = np.minimum.reduceat(sample.data, sample.indptr[:-1])
    if _spread(smallest) > _EQUAL:
        return Diagnosis(
            "the values are counts scaled by a factor for each cell (normalised; genes may have been left out since)",
            _way_back(1.0, "the value"),
        )
    step = float(np.median(smallest))
    if abs(1 / step - round(1 / step)) < _TOLERANCE_MAX and round(1 / step) <= 10:
        return None
    return Diagnosis(
        f"the values are whole multiples of {step:.6g}, as counts divided by one number are (normalised)",
        f"Multiply by {1 / step:.6g} to have them back, if that is what was done; better: {_SEARCH}",
    )


def _is_constant(totals: np.ndarray) -> bool:
    """Whether the totals are one number. One or two cells tell it only where it is a number people scale to."""
    if totals.size < 3:
        return all(np.min(np.abs(total / np.array([1e4, 1e6]) - 1)) < 1e-4 for total in totals)
    return _spread(totals) <= _EQUAL


def _is_fraction(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(values - np.rint(values)) > _tolerance(values))


def _whole_share(values: np.ndarray) -> float:
    """Share of values that are whole within what the undoing of a logarithm of single floats loses.

    It is asked of values that were fractions before: 2^x - 1 and x^2 make whole numbers of whole numbers.
    """
    whole = np.rint(values)
    near = np.abs(values - whole) <= np.clip(1e-5 * values, 1e-4, 0.02)
    return float((near & (whole > 0)).mean())


def _lattice_share(sample: sparse.csr_matrix, told: np.ndarray) -> float:
    """Share of the ``told`` values above their cell's smallest that are whole multiples of it (up to 30 times)."""
    smallest = np.minimum.reduceat(sample.data, sample.indptr[:-1])
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = (sample.data / np.repeat(smallest, np.diff(sample.indptr)))[told]
    ratio = ratio[(ratio > 1.01) & (ratio < 30)]
    if ratio.size < _MIN_VALUES:
        return 0.0
    return float((np.abs(ratio - np.rint(ratio)) <= np.maximum(1e-4 * ratio, 1e-3)).mean())


def _diagnose_fractions(sample: sparse.csr_matrix) -> Diagnosis:
    """Fractions of counts, or values of another make (FPKM, imputed): below the next whole number, or anywhere."""
    told = sample.data[(sample.data > 0.5) & (sample.data < 50)]
    to_next = np.ceil(told - _TOLERANCE_MAX) - told
    just_below = told.size > sample.nnz / 2 and float((to_next < 0.5).mean()) >= 0.65
    whole = float((np.abs(sample.data - np.rint(sample.data)) <= _TOLERANCE_MAX).mean())
    if whole < 0.3 and not just_below:
        return Diagnosis(
            "the values are fractions spread evenly between whole numbers, as FPKM, TPM, logged, imputed or otherwise "
            "normalised values are",
            _SEARCH.capitalize(),
        )
    hundredths = sample.data * 100
    two_decimals = float((np.abs(hundredths - np.rint(hundredths)) <= 0.01).mean()) >= _AGREE
    made_by = (
        "expected counts (RSEM; salmon and kallisto give the like), which share a read among the genes it may come from"
        if two_decimals and whole >= 0.3 and float(sample.data.max()) >= 10
        else "fractions of counts, as ambient correction (SoupX, DecontX) leaves, and not normalised by any sign"
    )
    return Diagnosis(
        f"the values are {made_by}",
        "Uncorrected counts are better; to round these to whole numbers set reading.round_fractions: true in the "
        "config",
        fractions_of_counts=True,
    )
