"""The ledger holds what samples read and what nobody read, once each."""

from pathlib import Path

import pandas as pd
import pytest

from immunomod.acquire.dataset import MANIFEST_COLUMNS
from immunomod.acquire.ledger import LEDGER_COLUMNS, gather_ledger
from immunomod.errors import UserError
from immunomod.files import read_tsv, write_tsv


def manifest_row(sample: str, file: str, role: str, dataset: str = "GSE1") -> dict[str, object]:
    return dict(
        zip(MANIFEST_COLUMNS, [dataset, sample, file, f"d/{file}", f"u/{file}", 3, "ab", "t", role], strict=True)
    )


def read_row(sample: str, file: str) -> dict[str, object]:
    row = manifest_row(sample, file, "counts")
    return {**{name: row[name] for name in LEDGER_COLUMNS[:7]}, "parser": "mtx", "decision": "read"}


def test_reads_and_the_rest_are_joined(tmp_path: Path) -> None:
    write_tsv(pd.DataFrame([read_row("b", "m2"), read_row("b", "genes")], columns=LEDGER_COLUMNS), tmp_path / "b.tsv")
    write_tsv(pd.DataFrame([read_row("NA", "m1"), read_row("NA", "genes")], columns=LEDGER_COLUMNS), tmp_path / "a.tsv")
    acquired = [
        manifest_row("NA", "m1", "counts"),
        manifest_row("b", "m2", "counts"),
        manifest_row("", "genes", "counts"),
    ]
    acquired += [manifest_row("b", "hto", "counts"), manifest_row("", "cells", "cells")]
    write_tsv(pd.DataFrame(acquired), tmp_path / "manifest.tsv")
    write_tsv(pd.DataFrame([manifest_row("", "soft", "metadata")]), tmp_path / "metadata.tsv")
    ledger = gather_ledger(
        [tmp_path / "b.tsv", tmp_path / "a.tsv"], [tmp_path / "manifest.tsv", tmp_path / "metadata.tsv"]
    )
    assert list(ledger.columns) == LEDGER_COLUMNS
    keys = list(zip(ledger["sample"], ledger["path"], ledger["parser"], strict=True))
    assert keys == [
        ("", "d/cells", ""),
        ("", "d/soft", ""),
        ("NA", "d/genes", "mtx"),
        ("NA", "d/m1", "mtx"),
        ("b", "d/genes", "mtx"),
        ("b", "d/hto", ""),
        ("b", "d/m2", "mtx"),
    ]
    assert all(ledger["decision"] != "")
    write_tsv(ledger, tmp_path / "ledger.tsv")
    assert read_tsv(tmp_path / "ledger.tsv", dtype=str).fillna("").equals(ledger)


def test_the_same_path_in_another_dataset_is_another_file(tmp_path: Path) -> None:
    write_tsv(pd.DataFrame([read_row("a", "m")], columns=LEDGER_COLUMNS), tmp_path / "a.tsv")
    write_tsv(pd.DataFrame([manifest_row("x", "m", "counts", "GSE2")]), tmp_path / "manifest.tsv")
    assert list(gather_ledger([tmp_path / "a.tsv"], [tmp_path / "manifest.tsv"])["dataset"]) == ["GSE1", "GSE2"]


def test_nothing_gives_an_empty_table_and_a_strange_table_is_named(tmp_path: Path) -> None:
    assert list(gather_ledger([], []).columns) == LEDGER_COLUMNS
    write_tsv(pd.DataFrame({"sample": ["a"]}), tmp_path / "bad.tsv")
    with pytest.raises(UserError, match=r"bad\.tsv lacks the columns dataset"):
        gather_ledger([tmp_path / "bad.tsv"], [])
