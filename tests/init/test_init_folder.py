"""A folder becomes a sheet whose rows mean exactly the files of each library, in every usual arrangement."""

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from init_helpers import GENES, Study, dense, triplet

from immunomod.acquire import acquire_samples
from immunomod.errors import UserError
from immunomod.init.command import init_command
from immunomod.tables import read_table

ARMS = ("D1_ctrl", "D1_LPS", "D2_ctrl", "D2_LPS")


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    return path


def put_triplet(folder: Path, seed: int, name: str = "{}", zipped: str = ".gz") -> set[str]:
    """A triplet whose files are called ``name`` with the role put in; returns the paths."""
    content = triplet(seed)
    made = set()
    for role, text in content.items():
        stem, dot, end = role.partition(".")
        made.add(str(put(folder / (name.format(role, stem=stem, end=dot + end) + zipped), text).resolve()))
    return made


def put_h5(path: Path) -> Path:
    """A 10x h5 of two cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([b"ACGTACGTACGTACGT-1", b"ACGTACGTACGTAAAA-1"])
        group["data"] = np.array([1, 2], dtype="int32")
        group["indices"] = np.array([0, 1])
        group["indptr"] = np.array([0, 1, 2])
        group["shape"] = np.array([len(GENES), 2], dtype="int32")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{n:011d}".encode() for n in range(len(GENES))])
        features["name"] = np.array([gene.encode() for gene in GENES])
        features["feature_type"] = np.array([b"Gene Expression"] * len(GENES))
        features["genome"] = np.array([b"GRCh38"] * len(GENES))
    return path


def propose(data: Path) -> Study:
    out = data.parent / "my study"
    return Study(out, init_command(str(data), out))


def files_of(study: Study, scratch: Path) -> dict[str, set[str]]:
    """The count files of each sample, as a run finds them; of an archive, its members."""
    sheet = read_with_donors(study)
    manifest = acquire_samples("x", sheet, "file:///", scratch, study.folder)
    counts = manifest[manifest["role"] == "counts"]
    return {
        sample: {str(Path(path).resolve()) for path in counts.loc[counts["sample"].isin([sample, ""]), "path"]}
        for sample in sheet["sample"]
    }


def read_with_donors(study: Study):
    """The sheet with what must be filled in filled in."""
    text = study.samples.copy()
    text["donor"] = text["donor"].where(text["donor"] != "", "someone")
    text["condition"] = text["condition"].where(text["condition"] != "", "something")
    path = study.folder / "filled.tsv"
    text.to_csv(path, sep="\t", index=False)
    return read_table(path, "samples")


def test_a_folder_per_library(tmp_path):
    data = tmp_path / "counts"
    wanted = {name: put_triplet(data / name, n) for n, name in enumerate(ARMS)}
    study = propose(data)
    assert files_of(study, tmp_path / "run") == wanted
    sheet = study.samples
    assert sheet["source"].tolist() == sorted(f"../counts/{name}" for name in ARMS) and "files" not in sheet
    assert sheet.loc[list(ARMS), "donor"].tolist() == ["D1", "D1", "D2", "D2"]
    assert sheet.loc[list(ARMS), "condition"].tolist() == ["control", "LPS", "control", "LPS"]
    assert set(sheet["organism"]) == {"human"} and set(sheet["dataset"]) == {"counts"}
    assert {"condition", "donor", "organism", "dataset"} <= set(study.guesses("D1_ctrl"))
    (question,) = study.contrasts.to_dict("records")
    assert (question["test"], question["reference"]) == ("LPS", "control")


@pytest.mark.parametrize("name", ["D{n}_{arm}_{{}}", "D{n}_{arm}.{{}}", "{{stem}}_D{n}_{arm}{{end}}"])
def test_several_triplets_in_one_folder(tmp_path, name):
    data = tmp_path / "counts"
    made = {f"D{n}_{arm}": put_triplet(data, n, name.format(n=n, arm=arm)) for n in (1, 2) for arm in ("ctrl", "LPS")}
    study = propose(data)
    assert files_of(study, tmp_path / "run") == made


def test_a_name_that_begins_another_name(tmp_path):
    data = tmp_path / "counts"
    wanted = {"S1": put_triplet(data, 1, "S1_{}"), "S1_b": put_triplet(data, 2, "S1_b_{}")}
    assert files_of(propose(data), tmp_path / "run") == wanted


def test_one_gene_table_for_all(tmp_path):
    data = tmp_path / "counts"
    wanted = {name: put_triplet(data, n, f"{name}_{{}}") for n, name in enumerate(("a", "b"))}
    for name in ("a", "b"):
        (data / f"{name}_features.tsv.gz").unlink()
    genes = str(put(data / "features.tsv.gz", triplet()["features.tsv"]).resolve())
    wanted = {name: {path for path in paths if "features" not in path} | {genes} for name, paths in wanted.items()}
    assert files_of(propose(data), tmp_path / "run") == wanted


def test_cellranger_trees(tmp_path):
    data = tmp_path / "runs"
    for n, name in enumerate(ARMS):
        outs = data / name / "outs"
        put_triplet(outs / "filtered_feature_bc_matrix", n)
        put_triplet(outs / "raw_feature_bc_matrix", n)
        put_h5(outs / "raw_feature_bc_matrix.h5")
        put_h5(outs / "molecule_info.h5")
        put(outs / "analysis" / "clustering" / "graphclust" / "clusters.csv", b"Barcode,Cluster\nACGTACGTACGT-1,1\n")
        put(outs / "metrics_summary.csv", b"a,b\n1,2\n")
        put(outs / "web_summary.html", b"<html>")
        if n % 2:
            put_h5(outs / "filtered_feature_bc_matrix.h5")
    study = propose(data)
    sheet = study.samples
    assert sorted(sheet["sample"]) == sorted(ARMS)
    for n, name in enumerate(ARMS):
        wanted = "filtered_feature_bc_matrix.h5" if n % 2 else "filtered_feature_bc_matrix"
        assert sheet.at[name, "source"] == f"../runs/{name}/outs/{wanted}"
    assert "filtered matrix taken, raw one left" in study.comments()
    assert study.comments().count("h5 taken, mtx of the same cells left") == 2
    assert all(len(files) == (1 if "LPS" in name else 3) for name, files in files_of(study, tmp_path / "run").items())


def test_cellranger_multi(tmp_path):
    data = tmp_path / "run"
    for name in ("ctrl", "LPS"):
        put_h5(data / "outs" / "per_sample_outs" / name / "count" / "sample_filtered_feature_bc_matrix.h5")
    assert sorted(propose(data).samples["sample"]) == ["LPS", "ctrl"]


def test_dense_tables_beside_other_tables(tmp_path):
    data = tmp_path / "tables"
    cells = [f"ACGTACGTACGTAC{a}{b}" for a in "ACGT" for b in "ACGT"]
    for name in ("donor1_resting", "donor1_stimulated", "donor2_resting", "donor2_stimulated"):
        put(data / f"{name}_counts.csv.gz", dense(cells))
    put(data / "metadata.csv", b"cell,age\na,1\nb,2\n")
    put(data / "readme.txt", b"some words\nand more\n")
    study = propose(data)
    sheet = study.samples
    assert sheet["source"].tolist() == [f"../tables/{name}_counts.csv.gz" for name in sheet["sample"]]
    assert len(sheet) == 4
    assert sheet["donor"].tolist() == ["D1", "D1", "D2", "D2"]
    assert sheet["condition"].tolist() == ["resting", "stimulated"] * 2
    assert all(len(files) == 1 for files in files_of(study, tmp_path / "run").values())


def test_antibodies_beside_rna_are_one_library(tmp_path):
    data = tmp_path / "tables"
    for name in ("S1", "S2"):
        put(data / f"{name}_gex.csv", dense(["ACGTACGTACGT", "ACGTACGTAAAA"]))
        put(data / f"{name}_adt.csv", b"antibody,ACGTACGTACGT,ACGTACGTAAAA\nCD3_TotalSeqB,1,2\nCD4_TotalSeqB,3,4\n")
    found = files_of(propose(data), tmp_path / "run")
    names = sorted(sorted(Path(path).name for path in files) for files in found.values())
    assert names == [["S1_adt.csv", "S1_gex.csv"], ["S2_adt.csv", "S2_gex.csv"]]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives_are_listed_by_their_members(tmp_path, kind):
    data, made = tmp_path / "data", tmp_path / "made"
    for n, name in enumerate(("ctrl", "LPS")):
        put_triplet(made / name, n)
    data.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(data / "all.zip", "w") as bundle:
            for path in sorted(made.rglob("*.gz")):
                bundle.write(path, path.relative_to(made))
    else:
        with tarfile.open(data / f"all.{kind}", "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(made, arcname="inside")
    study = propose(data)
    assert set(study.samples["source"]) == {f"../data/all.{kind}"}
    found = files_of(study, tmp_path / "run")
    assert sorted(found) == ["LPS", "ctrl"]
    for sample, files in found.items():
        assert len(files) == 3 and all(Path(path).parent.name == sample for path in files)


def test_hostile_archives_are_left_out_in_words(tmp_path):
    data = tmp_path / "data"
    put_triplet(data / "ok", 1)
    with tarfile.open(data / "evil.tar", "w") as tar:
        tar.add(data / "ok" / "matrix.mtx.gz", arcname="../../matrix.mtx.gz")
    put(data / "broken.zip", b"PK\x03\x04 not a zip")
    study = propose(data)
    assert len(study.samples) == 1
    assert study.said.count("left out:") == 2


NAMES = ["a, b", "GSM123_x", "=1+1", "-rf", "#no", "[ab]", "*", "it's", "sp ace", "ü"]


def test_names_of_all_kinds_mean_their_files(tmp_path):
    data = tmp_path / "GSE12 data"
    wanted = [put_triplet(data / name, n) for n, name in enumerate(NAMES)]
    wanted += [
        put_triplet(data / "flat", n, f"{name}_{{}}".replace("*", "")) for n, name in enumerate(('q"', "x,y", "[z]"))
    ]
    study = propose(data)
    found = files_of(study, tmp_path / "run")
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, wanted))
    assert len({name.lower() for name in found}) == len(wanted)


def test_names_with_control_characters_are_left_out(tmp_path):
    data = tmp_path / "data"
    put_triplet(data / "good", 1)
    put_triplet(data / "bad\tname\x1b", 2)
    study = propose(data)
    assert study.samples["sample"].tolist() == ["good"]
    assert "control characters: rename it" in study.comments()


def test_a_per_cell_table_names_donors_and_lanes(tmp_path):
    data = tmp_path / "data"
    lanes = {"ctrl": "ACGTACGTAC", "stim": "TTGTACGTAC"}
    rows = ["barcode,lane,donor,celltype,droplet"]
    for n, (lane, start) in enumerate(lanes.items()):
        barcodes = [f"{start}{a}{b}AAAA-1" for a in "ACGT" for b in "ACGT"]
        for role, content in triplet(n, barcodes).items():
            put(data / lane / f"{role}.gz", content)
        rows += [
            f"{b},{lane},P{k % 3},{'TB'[k % 2]} cell,{'doublet' if k == 0 else 'singlet'}"
            for k, b in enumerate(barcodes)
        ]
    put(data / "cells_metadata.csv", "\n".join(rows).encode())
    study = propose(data)
    sheet = study.samples
    assert sheet["cells_lane"].to_dict() == {"ctrl": "ctrl", "stim": "stim"}
    assert set(sheet["cells"]) == {"../data/cells_metadata.csv"} and set(sheet["donor"]) == {""}
    assert sheet["condition"].to_dict() == {"ctrl": "ctrl", "stim": "stim"}
    text = (study.folder / "config.yaml").read_text()
    for line in ("lane: lane", "donor: donor", "label: celltype", "doublet: droplet"):
        assert line in text
    assert "stim_vs_ctrl" in study.contrasts["contrast"].tolist()


def test_nothing_to_read_is_one_message(tmp_path):
    data = tmp_path / "data"
    put(data / "notes.txt", b"words\n")
    with pytest.raises(UserError, match=r"holds no file that could be a matrix of counts; there are notes\.txt"):
        propose(data)
    assert not (tmp_path / "my study").exists()


def test_the_genuine_files(shared, tmp_path):
    out = tmp_path / "out"
    init_command(str(shared / "data" / "tenx"), out)
    sheet = Study(out, "").samples
    assert len(sheet) == 5 and set(sheet["organism"]) == {"human"}
    for source in sheet["source"]:
        assert (out / source).exists() and not os.path.isabs(source)  # noqa: PTH117
