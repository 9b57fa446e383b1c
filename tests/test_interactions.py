"""Ligand-receptor pairs: what ships, and what a user brings."""

import hashlib
import importlib.util

import pytest

from immunomod.errors import StudyError
from immunomod.interactions import load_interactions, subunits
from immunomod.preflight.tables import examine_interactions
from immunomod.settings import resolve_config


def test_shipped_pairs():
    pairs = load_interactions()
    assert len(pairs["human"]) == 4620 and len(pairs["mouse"]) == 3988  # two mouse rows are one under current symbols
    for organism, known in (
        ("human", [("CXCL10", "CXCR3"), ("CD274", "PDCD1"), ("IFNG", "IFNGR1_IFNGR2"), ("HGF", "MET")]),
        ("mouse", [("Cxcl10", "Cxcr3"), ("Cd274", "Pdcd1"), ("Ifng", "Ifngr1_Ifngr2"), ("Hgf", "Met")]),
    ):
        table = pairs[organism]
        assert not table.duplicated().any()
        assert set(known) <= set(table.itertuples(index=False, name=None))
        assert all(subunits(name) == sorted(set(subunits(name))) for name in table["receptor"])
    assert "TDGF1" not in set(pairs["human"]["ligand"])  # CRIPTO today


def test_pairs_of_ones_own(tmp_path):
    (tmp_path / "human.tsv").write_text("ligand\treceptor\nIL8\tCXCR2_CXCR1\nCXCL8\tCXCR1_CXCR2\n")
    own = load_interactions(tmp_path, ["human"])["human"]
    assert own.to_dict("records") == [{"ligand": "CXCL8", "receptor": "CXCR1_CXCR2"}]
    with pytest.raises(StudyError, match=r"mouse\.tsv"):
        load_interactions(tmp_path)
    (tmp_path / "human.tsv").write_text("ligand\treceptor\nIL8\t\n")
    with pytest.raises(StudyError, match="row 2"):
        load_interactions(tmp_path, ["human"])
    with pytest.raises(ValueError, match="rat"):
        load_interactions(tmp_path, ["rat"])


def test_a_faulty_table_is_found_before_the_run(tmp_path):
    (tmp_path / "human.tsv").write_text("ligand\treceptor\tscore\nIL6\tIL6R IL6ST\t1\n")
    problems = examine_interactions(str(tmp_path), ["human", "mouse"])
    assert {problem.column for problem in problems if problem.row == 2} >= {"receptor"}
    assert any("mouse.tsv does not exist" in problem.problem for problem in problems)
    assert examine_interactions("resources/interactions", []) == []


def test_the_folder_is_relative_to_the_config(tmp_path, repository):
    assert resolve_config({}, tmp_path)["interactions"] == str(repository / "resources" / "interactions")
    assert resolve_config({"interactions": "own"}, tmp_path)["interactions"] == str(tmp_path / "own")


def test_the_script_keeps_each_pair_once_and_only_its_resource(repository, tmp_path):
    path = repository / "resources" / "interactions" / "build.py"
    spec = importlib.util.spec_from_file_location("build_interactions", path)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    names = ("source_genesymbol", "target_genesymbol", "resource")
    rows = [
        dict(zip(names, row, strict=True))
        for row in (("B", "C_D", "consensus"), ("A", "C", "consensus"), ("A", "C", "consensus"), ("A", "X", "italk"))
    ]
    assert build.pairs_of(rows, "consensus") == [("A", "C"), ("B", "C_D")]
    wheel = tmp_path / f"liana-{build.VERSION}-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    assert hashlib.sha256(b"something else").hexdigest() != build.SHA256
    with pytest.raises(SystemExit, match="sha256"):
        build.wheel(tmp_path)
