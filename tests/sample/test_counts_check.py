"""Counts pass unchanged; what is not counts is refused with what it is, and fractions are rounded only when asked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.counts import ReadingSettings, holds_counts, integer_counts
from immunomod.sample.readers.library import LibraryCounts

KEEP, ROUND = ReadingSettings(), ReadingSettings(round_fractions=True)


def library_of(matrix) -> LibraryCounts:
    matrix = sparse.csr_matrix(matrix)
    n_cells, n_genes = matrix.shape
    genes = pd.DataFrame({"gene_id": "", "gene_symbol": [f"G{i}" for i in range(n_genes)], "feature_type": ""})
    return LibraryCounts(matrix, pd.Index([f"c{i}" for i in range(n_cells)]), genes, {})


def simulated(n_cells=120, n_genes=600, seed=1, depth=1500) -> np.ndarray:
    """UMI counts of cells of unequal depth, two cell types."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.3, 1, size=(2, n_genes))
    profile /= profile.sum(axis=1, keepdims=True)
    depths = depth * rng.lognormal(0, 0.4, size=n_cells)
    return rng.poisson(depths[:, None] * profile[np.arange(n_cells) % 2]).astype(float)


def scaled(counts: np.ndarray, total: float) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True) * total


def tpm(counts: np.ndarray, seed=2) -> np.ndarray:
    lengths = np.random.default_rng(seed).lognormal(7.5, 0.7, size=counts.shape[1])
    return scaled(counts / lengths, 1e6)


def soup_corrected(counts: np.ndarray, share: float) -> np.ndarray:
    """Counts less what the ambient profile is expected to give, as SoupX subtracts without rounding."""
    ambient = counts.sum(axis=0) / counts.sum()
    return np.maximum(counts - share * counts.sum(axis=1, keepdims=True) * ambient, 0)


def decontaminated(counts: np.ndarray, seed=3) -> np.ndarray:
    """Counts times each entry's probability of being native, as DecontX gives."""
    return counts * np.random.default_rng(seed).beta(20, 2, size=counts.shape)


def rsem(counts: np.ndarray, seed=4) -> np.ndarray:
    """Expected counts: a third of the genes share reads with others; two decimals, as RSEM writes."""
    rng = np.random.default_rng(seed)
    shared = rng.random(counts.shape[1]) < 0.35
    fractions = np.where(counts > 0, rng.random(counts.shape), 0) * shared
    return np.round(counts * 20 + fractions, 2)


COUNTS = simulated()
LOGGED = np.log1p(scaled(COUNTS, 1e4)).astype(np.float32)
REFUSED = {
    "log1p of CP10k": (LOGGED, r"log1p of counts scaled to 1e\+04 per cell.*look for the counts in raw\.X"),
    "log1p of CP10k, genes left out": (LOGGED[:, ::3], "log1p of counts scaled by a factor for each cell"),
    "log1p of scaled to median": (
        np.log1p(scaled(COUNTS, np.median(COUNTS.sum(1)))),
        r"log1p of counts scaled to 1[,.]",
    ),
    "log2 of CPM": (np.log2(scaled(COUNTS, 1e6) + 1), r"log2\(x \+ 1\) of counts scaled to 1e\+06"),
    "log2 of TPM": (np.log2(tpm(COUNTS) + 1), r"log2\(x \+ 1\) of counts scaled to 1e\+06"),
    "log10 of CPM": (np.log10(scaled(COUNTS, 1e6) + 1), r"log10\(x \+ 1\) of counts scaled"),
    "scran": (
        np.log2(COUNTS / (COUNTS.sum(1, keepdims=True) / COUNTS.sum(1).mean()) + 1)[:, ::2],
        r"log2\(x \+ 1\) of counts scaled by a factor",
    ),
    "log1p of counts": (np.log1p(COUNTS), r"log1p of counts, without.*exp\(x\) - 1 gives whole numbers"),
    "log2 of counts": (np.log2(COUNTS + 1), r"log2\(x \+ 1\) of counts, without"),
    "square roots": (np.sqrt(COUNTS), "square roots of counts"),
    "CPM": (scaled(COUNTS, 1e6), r"counts per million \(CPM\) or TPM: every cell sums to 1e\+06"),
    "TPM": (tpm(COUNTS), "CPM"),
    "CP10k": (scaled(COUNTS, 1e4), r"CP10k.*every cell sums to 10,000"),
    "shares": (scaled(COUNTS, 1.0), "shares of each cell"),
    "scaled to median": (scaled(COUNTS, 1234.5), "scaled counts: every cell sums to 1,234.5"),
    "CPM, genes left out": (scaled(COUNTS, 1e6)[:, ::3], "counts scaled by a factor for each cell"),
    "divided by one number": (COUNTS / 37, r"whole multiples of 0\.027027"),
    "TPM, genes left out": (np.round(tpm(COUNTS)[:, ::3], 2), "FPKM, TPM"),
    "log of TPM, genes left out": (np.log2(tpm(COUNTS)[:, ::3] + 1), "FPKM, TPM, logged"),
    "z-scores": ((LOGGED - LOGGED.mean(0)) / np.where(LOGGED.std(0) > 0, LOGGED.std(0), 1), "z-scores"),
    "clipped z-scores": (
        np.clip((LOGGED - LOGGED.mean(0)) / np.where(LOGGED.std(0) > 0, LOGGED.std(0), 1), None, 10),
        "z-scores|centred on 0",
    ),
    "centred": (3 * (LOGGED - LOGGED.mean(0)), "centred on 0"),
    "negative": (LOGGED - 0.7, "counts are never negative"),
}


@pytest.mark.parametrize("settings", [KEEP, ROUND], ids=["keep", "round"])
@pytest.mark.parametrize(("matrix", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalised_values_are_told_and_refused_even_if_rounding_is_asked(matrix, words, settings, dtype):
    with pytest.raises(UserError, match=words) as refused:
        integer_counts(library_of(matrix.astype(dtype)), "m.csv", settings)
    assert str(refused.value).startswith("m.csv: holds values that are not counts (")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["log1p of CP10k", "scran", "CPM, genes left out", "TPM, genes left out"])
def test_normalised_values_of_other_data_are_refused_too(name, seed):
    counts = simulated(n_cells=40 + 10 * seed, n_genes=900, seed=100 + seed, depth=300 * 3**seed)
    made = {
        "log1p of CP10k": lambda: np.log1p(scaled(counts, 1e4)),
        "scran": lambda: np.log2(counts / counts.sum(1, keepdims=True) * 2000 + 1)[:, ::2],
        "CPM, genes left out": lambda: scaled(counts, 1e6)[:, ::3],
        "TPM, genes left out": lambda: tpm(counts)[:, ::3],
    }[name]()
    with pytest.raises(UserError, match="normalised"):
        integer_counts(library_of(made), "m.csv", ROUND)


FRACTIONS = {
    "SoupX, 3%": soup_corrected(COUNTS, 0.03),
    "SoupX, 10%": soup_corrected(COUNTS, 0.1),
    "DecontX": decontaminated(COUNTS),
    "halves": COUNTS + np.where(COUNTS > 3, 0.5, 0),
}


@pytest.mark.parametrize("matrix", FRACTIONS.values(), ids=FRACTIONS)
def test_fractions_of_counts_are_rounded_only_when_asked(matrix):
    with pytest.raises(UserError, match=r"(ambient correction|expected counts).*reading\.round_fractions: true"):
        integer_counts(library_of(matrix), "m.csv", KEEP)
    library = library_of(matrix)
    decisions = integer_counts(library, "m.csv", ROUND)
    np.testing.assert_array_equal(library.matrix.toarray(), np.rint(matrix))
    changed = int((np.abs(matrix - np.rint(matrix)) > 1e-6 * np.maximum(matrix, 1)).sum())
    assert decisions[0].startswith(f"rounded {changed:,} of {int((matrix > 0).sum()):,} values")
    assert f"from {matrix.sum():,.1f} to {np.rint(matrix).sum():,.0f}" in decisions[0]


def test_expected_counts_are_told_and_rounded_when_asked():
    matrix = rsem(COUNTS)
    with pytest.raises(UserError, match=r"expected counts \(RSEM.*reading\.round_fractions"):
        integer_counts(library_of(matrix), "m.csv", KEEP)
    library = library_of(matrix)
    integer_counts(library, "m.csv", ROUND)
    np.testing.assert_array_equal(library.matrix.toarray(), np.rint(matrix))


def test_halves_round_without_bias():
    library = library_of(np.array([[0.5, 1.5, 2.5, 3.5, 1, 2, 3]]))
    integer_counts(library, "m.csv", ROUND)
    assert library.matrix.toarray().tolist() == [[0, 2, 2, 4, 1, 2, 3]]
    assert library.matrix.nnz == 6


@given(
    arrays.arrays(
        np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2**31 - 1)
    ),
    st.sampled_from([np.int32, np.int64, np.uint32, np.float64]),
)
def test_true_counts_are_never_refused(counts, dtype):
    library = library_of(counts.astype(dtype))
    integer_counts(library, "m.csv", KEEP)
    assert library.matrix.dtype == np.int32
    assert library.matrix.has_canonical_format
    assert np.all(library.matrix.data > 0)
    np.testing.assert_array_equal(library.matrix.toarray(), counts)


@given(arrays.arrays(np.int32, (6, 9), elements=st.integers(0, 40)), st.integers(0, 10_000))
def test_counts_of_equal_totals_are_not_refused(counts, total):
    counts[:, 0] = 0
    counts[:, 0] = np.maximum(total, counts.sum(axis=1).max()) - counts.sum(axis=1)
    library = library_of(counts.astype(np.float32))
    integer_counts(library, "m.csv", KEEP)
    np.testing.assert_array_equal(library.matrix.toarray(), counts)


def test_downsampled_counts_pass_with_a_note():
    rng = np.random.default_rng(1)
    counts = rng.multinomial(1000, np.ones(50) / 50, size=20)
    library = library_of(counts)
    assert integer_counts(library, "m.csv", KEEP) == [
        "every cell sums to 1,000: the counts were downsampled, or are normalised values that someone rounded; check "
        "which with the authors' methods"
    ]
    assert integer_counts(library_of(COUNTS), "m.csv", KEEP) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_that_went_through_a_logarithm_and_back_are_counts(dtype):
    there_and_back = np.expm1(np.log1p(COUNTS.astype(dtype))).astype(dtype)
    assert not np.array_equal(there_and_back, COUNTS)
    library = library_of(there_and_back)
    (decision,) = integer_counts(library, "m.csv", KEEP)
    stored = int((there_and_back != COUNTS).sum())
    assert decision.startswith(f"{stored:,} values lay off a whole number by no more than single precision")
    np.testing.assert_array_equal(library.matrix.toarray(), COUNTS)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "nan for G2"), (np.inf, "inf for G2"), (-np.inf, "-inf for G2")])
def test_missing_and_infinite_values_are_named(value, words):
    matrix = COUNTS.copy()
    matrix[3, 2] = value
    with pytest.raises(UserError, match=rf"\({words} in cell c3\): a count is never missing or infinite"):
        integer_counts(library_of(matrix), "m.csv", ROUND)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint64])
def test_values_too_large_are_named(dtype):
    matrix = COUNTS.astype(dtype)
    matrix[3, 2] = 2**31
    with pytest.raises(UserError, match=r"above 2\^31 \(2\.14748e\+09 for G2 in cell c3\)"):
        integer_counts(library_of(matrix), "m.csv", KEEP)


def test_negative_whole_numbers_are_refused():
    matrix = COUNTS.astype(np.int64)
    matrix[3, 2] = -1
    with pytest.raises(UserError, match=r"\(-1 for G2 in cell c3; 1 of .* values are negative\): counts are never"):
        integer_counts(library_of(matrix), "m.csv", ROUND)


def test_entries_given_twice_are_summed_and_their_sum_is_held_to_the_limit():
    twice = sparse.csr_matrix((np.array([3, 4]), np.array([1, 1]), np.array([0, 2])), shape=(1, 2))
    library = library_of(np.zeros((1, 2)))
    library.matrix = twice
    integer_counts(library, "m.csv", KEEP)
    assert library.matrix.toarray().tolist() == [[0, 7]]
    library.matrix = sparse.csr_matrix((np.full(2, 2**30), np.array([1, 1]), np.array([0, 2])), shape=(1, 2))
    with pytest.raises(UserError, match=r"sum to above 2\^31"):
        integer_counts(library, "m.csv", KEEP)


def test_an_empty_matrix_passes():
    library = library_of(np.zeros((3, 4)))
    assert integer_counts(library, "m.csv", KEEP) == []
    assert library.matrix.shape == (3, 4)


def test_one_fraction_among_counts_is_named():
    matrix = COUNTS.copy()
    matrix[3, 2] = 0.5
    with pytest.raises(UserError, match=r"\(0\.5 for G2 in cell c3; 1 of .* values are no whole numbers\)"):
        integer_counts(library_of(matrix), "m.csv", KEEP)


def test_holds_counts():
    assert holds_counts(COUNTS.ravel())
    assert not holds_counts(np.array([1.0, np.nan]))
    assert not holds_counts(np.array([1.0, -1.0]))
    assert not holds_counts(np.array([1.0, 0.5]))
    assert not holds_counts(np.array([1.0, 2.0**31]))


def test_settings_come_from_the_config():
    assert ReadingSettings.from_config({}) == KEEP
    assert ReadingSettings.from_config({"round_fractions": True}) == ROUND
    with pytest.raises(UserError, match=r"reading\.round_fractions is 'yes'"):
        ReadingSettings.from_config({"round_fractions": "yes"})
    with pytest.raises(UserError, match=r"reading\.rounding is unknown"):
        ReadingSettings.from_config({"rounding": True})
