"""The ledger: every file that a run acquired, where it came from, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from immunomod.errors import UserError
from immunomod.files import read_tsv

LEDGER_COLUMNS = ["dataset", "sample", "url", "path", "bytes", "sha256", "retrieved", "parser", "decision"]
NOT_READ = {
    "counts": "acquired, not needed by any reader",
    "cells": "acquired, not joined to any sample",
    "metadata": "says what the dataset's files are; holds no counts",
}


def gather_ledger(reads: Iterable[Path], manifests: Iterable[Path]) -> pd.DataFrame:
    """One table of the samples' reading records and of the acquired files that no sample read.

    Parameters
    ----------
    reads
        ``samples/<sample>/read.tsv`` of all samples; each has the ledger's columns.
    manifests
        ``acquire/<dataset>/samples/<sample>.tsv`` of all samples: what :func:`acquire_samples` returns.

    Returns
    -------
    Columns ``dataset, sample, url, path, bytes, sha256, retrieved, parser, decision``, sorted by dataset, sample and
    path; ``sample`` is empty for a file of the whole dataset that no sample read, ``url`` for a local file.
    """
    read = _gather(reads, LEDGER_COLUMNS)
    acquired = _gather(manifests, [*LEDGER_COLUMNS[:7], "role"])
    used = set(zip(read["dataset"], read["path"], strict=True))
    keys = zip(acquired["dataset"], acquired["path"], strict=True)
    unread = pd.Series([key not in used for key in keys], index=acquired.index, dtype=bool)
    rest = acquired[unread].assign(parser="", decision=acquired["role"].map(NOT_READ).fillna(""))
    ledger = pd.concat([read, rest[LEDGER_COLUMNS]]).drop_duplicates()
    return ledger.sort_values(["dataset", "sample", "path"], kind="stable", ignore_index=True)


def _gather(paths: Iterable[Path], columns: list[str]) -> pd.DataFrame:
    tables = [pd.DataFrame(columns=columns, dtype=str)]
    for path in paths:
        table = read_tsv(path, dtype=str).fillna("")
        missing = [column for column in columns if column not in table]
        if missing:
            raise UserError(f"{path} lacks the columns {', '.join(missing)}: delete it and run again")
        tables.append(table[columns])
    return pd.concat(tables, ignore_index=True)
