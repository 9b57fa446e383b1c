"""Which cells of a combined matrix are a library's: told by their names, and never guessed."""

import numpy as np
import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.sample.cell_names import libraries_by_name, select_cells


def barcodes(number, prefix="", suffix="", seed=0):
    bases = np.random.default_rng(seed).choice(list("ACGT"), size=(number, 16))
    return [f"{prefix}{''.join(row)}{suffix}" for row in bases]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (barcodes(30, suffix="-1"), {"*-1": 30}),
        (barcodes(30), {"*": 30}),
        (barcodes(30, suffix="-1") + barcodes(20, suffix="-2"), {"*-1": 30, "*-2": 20}),
        (barcodes(30, prefix="D1_") + barcodes(20, prefix="D2_"), {"D1_*": 30, "D2_*": 20}),
        (barcodes(10, suffix="-1_1") + barcodes(10, suffix="-1_2"), {"*-1_1": 10, "*-1_2": 10}),
        ([f"{a}-{b}" for a, b in zip(barcodes(20), barcodes(20, seed=1), strict=True)], {"*-*": 20}),
        ([f"D{donor}_A{well:02d}" for donor in (1, 2) for well in range(12)], {"*": 24}),
        ([f"cell{number}_{name}" for number, name in enumerate(barcodes(40))], {"*": 40}),
        ([*barcodes(20), "bulk1", "bulk2"], {"*": 20, "(others)": 2}),
        ([], {"*": 0}),
    ],
)
def test_libraries_are_told_by_what_names_share(names, expected):
    assert libraries_by_name(pd.Index(names, dtype=object)).to_dict() == expected


def test_one_library_needs_no_pattern():
    mask, decision = select_cells(pd.Index(barcodes(5, suffix="-1")), (), "m.mtx")
    assert mask.all()
    assert decision == ""


def test_several_libraries_without_a_pattern_are_an_error_that_lists_them():
    names = pd.Index(barcodes(5, suffix="-1") + barcodes(7, suffix="-2", seed=1))
    with pytest.raises(
        UserError, match=r"m\.mtx: .* 2 libraries apart: \*-1 \(5 cells\), \*-2 \(7 cells\).*column barcodes"
    ):
        select_cells(names, (), "m.mtx")


def test_patterns_take_their_cells_alone():
    names = pd.Index(barcodes(5, suffix="-1") + barcodes(7, suffix="-11", seed=1))
    mask, decision = select_cells(names, ("*-1",), "m.mtx")
    assert mask.tolist() == [True] * 5 + [False] * 7
    assert decision == "5 of 12 cells taken by the names *-1"
    assert select_cells(names, ("*",), "m.mtx")[0].all()
    assert select_cells(names, ("*-1", "*-11"), "m.mtx")[0].all()


def test_a_pattern_that_fits_nothing_is_an_error_that_shows_the_names():
    names = pd.Index(barcodes(5, suffix="-1") + barcodes(7, suffix="-2", seed=1))
    with pytest.raises(UserError, match=r"column barcodes: '\*-3' fits none of 12 cells .* look like \*-1, \*-2"):
        select_cells(names, ("*-3",), "m.mtx")
