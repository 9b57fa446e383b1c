"""What surrounds a rule's work: messages for what the user can mend, and what a killed job left."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from immunomod import files, job
from immunomod.errors import UserError
from immunomod.files import SEAL_LENGTH, atomic_path, is_damaged, write_h5ad, write_tsv
from immunomod.job import ancestors, damaged_input, disk_error, refuse_unwritable, rule_job


@pytest.fixture
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (logging, "raiseExceptions")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(job, "_leave", sys.exit)
    outputs = [str(tmp_path / name) for name in ("a.tsv", "b.a.tsv")]
    return SimpleNamespace(log=[str(tmp_path / "logs" / "rule.log")], input=[], output=outputs)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_file_system_refuses_is_told_in_one_message(rule, capsys, code):
    with pytest.raises(SystemExit) as ended, rule_job(rule):
        raise OSError(code, os.strerror(code), "results/x.h5ad")
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: cannot write results/x.h5ad: ") and message.count("\n") == 1
    assert "Traceback" in Path(rule.log[0]).read_text()


def test_hdf5_tells_of_a_full_disk_in_words_alone():
    error = RuntimeError(
        "Can't write data (file write failed: filename = 'x/.0123456789abcdef0123456789abcdef.a.h5ad', errno = 28, "
        "error message = 'No space left on device', buf = 0x1)"
    )
    told = disk_error(error, Path("logs"))
    assert told is not None and str(told).startswith("cannot write x/a.h5ad: no space is left")
    assert disk_error(ValueError("No space left on device"), Path("logs")) is None


def test_a_fault_of_our_own_keeps_its_traceback(rule):
    with pytest.raises(ZeroDivisionError), rule_job(rule):
        print(1 / 0)
    assert "ZeroDivisionError" in Path(rule.log[0]).read_text()


def test_an_input_that_was_cut_is_named(rule, tmp_path, capsys):
    whole, cut = tmp_path / "whole.h5ad", tmp_path / "cut.h5ad"
    with h5py.File(whole, "w") as file:
        file["x"] = list(range(10_000))
    cut.write_bytes(whole.read_bytes()[:20_000])
    rule.input = [str(whole), str(cut)]
    with pytest.raises(SystemExit), rule_job(rule):
        h5py.File(cut)
    assert "cut.h5ad is damaged" in capsys.readouterr().err
    write_tsv(pd.DataFrame({"x": range(10_000)}), tmp_path / "x.tsv.gz")
    assert damaged_input([str(whole), str(tmp_path / "x.tsv.gz")]) is None
    (tmp_path / "x.tsv.gz").write_bytes((tmp_path / "x.tsv.gz").read_bytes()[:-20])
    assert "x.tsv.gz is damaged" in str(damaged_input([str(tmp_path / "x.tsv.gz")]))
    (tmp_path / "empty.tsv").touch()
    assert "empty.tsv is damaged" in str(damaged_input([str(tmp_path / "empty.tsv")]))


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A file as a floor writes it, with text, numbers and a sparse matrix."""
    counts = sparse.random(200, 300, 0.2, "csr", random_state=1)
    names = pd.DataFrame({"barcode": [f"cell{number}" for number in range(200)]}, index=[f"c{n}" for n in range(200)])
    write_h5ad(AnnData(counts, obs=names), tmp_path / "sealed.h5ad")
    return tmp_path / "sealed.h5ad"


@pytest.mark.parametrize("share", [0.002, 0.2, 0.5, 0.8, 0.95])
def test_an_input_in_which_one_bit_has_changed_is_named_before_the_work_begins(rule, sealed, capsys, share):
    """HDF5 reads such a file without a word wherever the bit is a value's, a name's or a column's."""
    content = bytearray(sealed.read_bytes())
    content[int(share * len(content))] ^= 1
    sealed.write_bytes(content)
    rule.input = [str(sealed)]
    with pytest.raises(SystemExit) as ended, rule_job(rule):
        pytest.fail("the work began")
    message = capsys.readouterr().err
    assert ended.value.code == 1 and message.count("\n") == 1
    assert f"{sealed} is damaged (its bytes are not those that were written): delete it" in message


@pytest.mark.parametrize("grows", [False, True])
def test_a_seal_is_seen_by_no_reader_and_goes_where_a_program_changes_the_file(sealed, grows):
    assert not is_damaged(sealed) and read_h5ad(sealed).shape == (200, 300)
    assert sealed.read_bytes()[-SEAL_LENGTH:].startswith(b"\nimmunomod crc32 ")
    with h5py.File(sealed, "r+") as file:
        file["X/data"][0] = 7.0
        if grows:
            file["uns"].create_dataset("more", data=range(1000))
    assert b"immunomod crc32" not in sealed.read_bytes()
    assert not is_damaged(sealed) and read_h5ad(sealed).X.data[0] == 7.0


def test_a_file_without_a_seal_tells_nothing(tmp_path):
    (tmp_path / "mine.h5ad").write_bytes(b"x")
    assert not is_damaged(tmp_path / "mine.h5ad")
    (tmp_path / "mine.h5ad").write_bytes(b"x" * 100)
    assert not is_damaged(tmp_path / "mine.h5ad")


def test_the_checksum_is_that_of_zlib_in_any_environment(sealed, monkeypatch):
    monkeypatch.setattr(files, "BYTES_AT_ONCE", 1000)
    assert not is_damaged(sealed)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert not is_damaged(sealed)


def test_what_a_killed_job_of_the_same_outputs_left_is_removed(rule, tmp_path):
    """And nothing that is another output's, or a file of the user's."""
    with atomic_path(tmp_path / "a.tsv") as temporary:
        temporary.write_text("x")
        kept = tmp_path / f"{temporary.name.removesuffix('a.tsv')}other.a.tsv"
        left = tmp_path / f".{'0' * 32}.a.tsv"
        mine = tmp_path / ".notes.a.tsv"
        for path in (kept, left, mine):
            path.write_text("x")
    with rule_job(rule):
        assert not left.exists() and kept.exists() and mine.exists()


def test_the_log_says_which_slurm_job_it_is_of(rule, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with rule_job(rule):
        pass
    assert "immunomod: SLURM job 4711 on " in Path(rule.log[0]).read_text().splitlines()[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_process_that_no_run_started_is_not_watched():
    assert ancestors() == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_job(tmp_path, monkeypatch):
    refuse_unwritable([tmp_path / "new" / "folder" / "a.tsv"])
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match="cannot write into"):
        refuse_unwritable([tmp_path / "new" / "folder" / "a.tsv"])
