"""Files before a run: opened where they are here, known by their listing where not, and never fetched twice."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import io, sparse

from immunomod.acquire import acquire_samples
from immunomod.errors import Problem
from immunomod.files import read_tsv, write_tsv
from immunomod.preflight import Findings, check_file
from immunomod.settings import load_run_file
from support.geo_server import GeoServer
from support.planted_study import PlantedStudy, human_symbols, mouse_symbols, write_matrix

DEMO = "GSE900000001"
FAST = {"attempts": 1, "backoff_s": 0.01, "requests_per_s": 1000}


@pytest.fixture
def study(tmp_path: Path) -> PlantedStudy:
    return PlantedStudy(tmp_path / "study")


@pytest.fixture
def demo(repository: Path, tmp_path: Path):
    """A function that writes the demo's study with another server and changed sheets."""

    def write(base_url: str, samples: dict[str, str] | None = None) -> Path:
        for name in ("samples.tsv", "contrasts.tsv"):
            text = (repository / "config" / "demo" / name).read_text()
            for old, new in (samples or {}).items():
                text = text.replace(old, new)
            (tmp_path / name).write_text(text)
        sheets = {"samples": "samples.tsv", "contrasts": "contrasts.tsv"}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(sheets | {"geo": FAST | {"base_url": base_url}}))
        return tmp_path / "config.yaml"

    return write


def acquire(config: Path, results: Path) -> None:
    """What the rule acquire_sample does, for each sample."""
    run = load_run_file(config)
    folder = results / "acquire" / DEMO
    for sample in run.samples_of([DEMO]):
        manifest = acquire_samples(
            DEMO,
            pd.DataFrame([run.acquire_row(sample)], index=[run.row_number(sample)]),
            run.base_url(sample),
            folder,
            run.folder,
            run.acquire_settings.of_one_job(),
            run.config["samples"],
        )
        write_tsv(manifest, folder / "samples" / f"{sample}.tsv")


def told(found: Findings) -> list[tuple[str, int | None, str]]:
    return [(Path(one.file).name, one.row, one.column) for one in found.problems]


def only(found: Findings) -> Problem:
    (problem,) = found.problems
    return problem


def test_a_server_is_asked_once_and_what_it_gave_is_kept_for_the_run(demo, repository, tmp_path):
    results = tmp_path / "results"
    with GeoServer(repository / "resources" / "demo") as server:
        config = demo(server.base_url)
        first = check_file(config, results)
        asked = Counter(server.requested())
        assert first.problems == ()
        assert "headers and cells known after download" in first.summary
        assert (first.coverage["genes_found"] == first.coverage["genes_total"]).all() and len(first.coverage) == 62
        assert not [path for path in asked if "matrix.mtx" in path]
        assert sum("features.tsv" in path for path in asked) == 3

        server.forget()
        again = check_file(config, results)
        assert server.requested() == [] and again.coverage.equals(first.coverage)

        acquire(config, results)
        assert max(Counter(server.requested()).values()) == 1
        assert not set(server.requested()) & set(asked)
    for manifest in (results / "acquire" / DEMO / "samples").iterdir():
        table = read_tsv(manifest)
        fetched_before = table.loc[table["role"] == "metadata", "file"].tolist()
        assert sorted(fetched_before) == [f"{DEMO}_family.soft.gz", f"{DEMO}_filelist.txt"]
    after = check_file(config, results)
    assert "2,273 cells in 12 matrices" in after.summary and "known after download" not in after.summary


def test_without_the_network_nothing_is_asked_and_what_is_unknown_is_said(demo, repository, tmp_path):
    with GeoServer(repository / "resources" / "demo") as server:
        config = demo(server.base_url)
        found = check_file(config, tmp_path / "results", is_offline=True)
        assert server.requested() == []
        assert found.problems == ()
        assert "not looked at: without the network" in found.summary
        assert found.coverage.empty
        online = check_file(config, tmp_path / "results")
        server.forget()
        kept = check_file(config, tmp_path / "results", is_offline=True)
        assert server.requested() == []
        assert kept.coverage.equals(online.coverage) and "not looked at" not in kept.summary


def test_a_server_that_is_down_is_one_problem(demo, tmp_path):
    found = check_file(demo("http://127.0.0.1:9/geo"), tmp_path / "results")
    assert told(found) == [("samples.tsv", 2, "source")]
    assert "cannot fetch" in only(found).problem and "not looked at: the server did not answer" in found.summary


def test_every_unknown_accession_is_named(demo, repository, tmp_path):
    moved = {"GSM900000003": "GSM900000777", "GSM900000006": "GSM900000778"}
    found = check_file(demo((repository / "resources" / "demo" / "geo").as_uri(), moved), tmp_path / "results")
    assert told(found) == [("samples.tsv", 4, "source"), ("samples.tsv", 7, "source")]
    assert "GSM900000778 is not a sample of GSE900000001" in found.problems[1].problem


def test_a_series_without_pattern_lists_the_candidates(demo, repository, tmp_path):
    base_url = (repository / "resources" / "demo" / "geo").as_uri()
    found = check_file(demo(base_url, {"GSM900000003": DEMO, "D1_coculture": "mine"}), tmp_path / "results")
    assert told(found) == [("samples.tsv", 4, "files")]
    assert "Say in column files".lower() in str(only(found)).lower()


def test_a_folder_that_holds_two_matrices_asks_for_a_pattern(study):
    folder = study.folder / "two"
    folder.mkdir()
    for seed in (51, 52):
        write_matrix(folder / f"m{seed}.csv.gz", seed)
    study.samples[0]["source"] = "two"
    found = check_file(study.write(), study.folder / "results")
    assert told(found) == [("samples.tsv", 2, "files")]
    study.samples[0]["files"] = "m52*"
    assert check_file(study.write(), study.folder / "results").problems == ()


CELLS = [f"L{lane}_{bases * 3}" for lane in (1, 2) for bases in ("ACGT", "CCGT", "GCGT", "TCGT")]


@pytest.mark.parametrize(
    ("patterns", "column"),
    [
        (("L1_*", "L2_*"), ""),
        (("L1_*", "*"), "barcodes"),
        (("L1_*", "L1_A*"), "barcodes"),
        (("L1_*", "L9_*"), "barcodes"),
    ],
    ids=["apart", "all", "part", "none"],
)
def test_rows_of_one_matrix_share_no_cell(study, patterns, column):
    write_matrix(study.folder / "both.csv.gz", seed=53, cells=CELLS)
    for row, pattern in zip((0, 3), patterns, strict=True):
        study.samples[row] |= {"source": "both.csv.gz", "barcodes": pattern}
    found = check_file(study.write(), study.folder / "results")
    assert told(found) == ([("samples.tsv", 5, column)] if column else [])
    if not column:
        assert "68 cells in 12 matrices" in found.summary


@pytest.mark.parametrize("listed_only", [False, True])
def test_lanes_of_one_matrix_choose_cells_only_where_asked(study, listed_only):
    cells = [name.split("_")[1] + suffix for name, suffix in zip(CELLS, "ACGTTGCA", strict=True)]
    write_matrix(study.folder / "both.csv.gz", seed=53, cells=cells)
    lines = [f"{name}\t{'L1' if number < 4 else 'L2'}\n" for number, name in enumerate(cells)]
    (study.folder / "cells.tsv").write_text("barcode\tlane\n" + "".join(lines))
    for row, lane in ((0, "L1"), (3, "L2")):
        study.samples[row] |= {"source": "both.csv.gz", "cells": "cells.tsv", "cells_lane": lane}
    study.config["cells_tables"] = {"lab": {"barcode": "barcode", "lane": "lane", "listed_only": listed_only}}
    found = check_file(study.write(), study.folder / "results")
    assert told(found) == ([] if listed_only else [("samples.tsv", 5, "cells_lane")])


def test_one_matrix_for_two_rows_is_named(study):
    study.samples[3]["source"] = study.samples[0]["source"]
    found = check_file(study.write(), study.folder / "results")
    assert told(found) == [("samples.tsv", 5, "files")]
    assert "the same file" in only(found).problem


def test_one_matrix_by_two_names_is_named(study):
    (study.folder / "link.csv.gz").symlink_to(study.folder / "D1_msc.csv.gz")
    study.samples[3]["source"] = "link.csv.gz"
    found = check_file(study.write(), study.folder / "results")
    assert told(found) == [("samples.tsv", 5, "source")] and "row 2" in only(found).problem


@pytest.mark.parametrize("organism", ["mouse", "human"])
def test_a_mixed_matrix_serves_a_data_set_of_each_organism(study, organism):
    genes = [*(f"GRCh38_{one}" for one in human_symbols()), *(f"mm10___{one}" for one in mouse_symbols())]
    for number, row in enumerate(study.samples):
        write_matrix(study.folder / row["source"], seed=number, genes=genes)
    named = {"dataset": "xeno", "organism": organism}
    study.samples += [row | named | {"sample": f"{row['sample']}_2"} for row in study.samples]
    found = check_file(study.write(), study.folder / "results")
    if organism == "mouse":
        assert found.problems == ()
        genes_found = found.coverage.groupby("dataset")["genes_found"].sum()
        assert genes_found["lab"] > 0 and genes_found["xeno"] > 0
    else:
        assert told(found) == [("samples.tsv", row, "source") for row in range(14, 26)]
        assert all("one library would count as two" in one.problem for one in found.problems)


def triplet(folder: Path, n_cells: int = 7) -> None:
    """A 10x triplet of programme genes."""
    folder.mkdir()
    genes = human_symbols()
    counts = sparse.coo_matrix(np.random.default_rng(5).poisson(0.5, (len(genes), n_cells)))
    io.mmwrite(folder / "matrix.mtx", counts)
    (folder / "genes.tsv").write_text("".join(f"{gene}\t{gene}\n" for gene in genes))
    (folder / "barcodes.tsv").write_text("".join(f"{'ACGT' * 3}{base * 4}-1\n" for base in "ACGTNAC"[:n_cells]))


def test_a_triplet_without_its_features_is_named(study):
    triplet(study.folder / "t", n_cells=5)
    study.samples[0]["source"] = "t"
    assert check_file(study.write(), study.folder / "results").problems == ()
    (study.folder / "t" / "genes.tsv").unlink()
    found = check_file(study.write(), study.folder / "results")
    assert told(found) == [("samples.tsv", 2, "source")]
    assert "features" in only(found).problem


def test_few_genes_of_a_programme_are_a_warning_that_names_them(study):
    dropped = {"IDO1", "CD274", "CXCL9", "CXCL10", "CXCL11"}
    for number, row in enumerate(study.samples):
        genes = [gene for gene in human_symbols() if not gene.startswith(("CXCL", "GBP", "HLA-D"))]
        write_matrix(study.folder / row["source"], seed=60 + number, genes=[g for g in genes if g not in dropped])
    found = check_file(study.write(), study.folder / "results")
    assert found.problems and not found.has_errors
    low = set(found.coverage.loc[found.coverage["is_low"], "program"])
    assert low and all(one.column == "dataset" for one in found.problems)
    text = " ".join(map(str, found.problems))
    assert all(name in text for name in low)
    row = found.coverage.set_index("program").loc["msc_ifng_core"]
    assert dropped & set(str(row["missing"]).split(", "))


CELL_TABLE = {"lane": "lane", "donor": "who"}


@pytest.fixture
def pooled(study) -> PlantedStudy:
    """Two lanes of pooled donors, in rows 2 and 3, whose donors stand in a table."""
    lines = ["barcode\tlane\twho"]
    rows = []
    for lane, source in (("A", "D1_msc.csv.gz"), ("B", "D1_immune.csv.gz")):
        header = gzip.decompress((study.folder / source).read_bytes()).decode().splitlines()[0]
        for number, cell in enumerate(header.split(",")[1:]):
            lines.append(f"{cell}\t{lane}\tP{number % 3}")
        columns = {"condition": lane, "donor": "", "culture": "", "cells": "cells.tsv", "cells_lane": lane}
        rows.append(study.samples[len(rows)] | columns | {"stimulus": "", "msc_source": "", "batch": ""})
    (study.folder / "cells.tsv").write_text("\n".join(lines) + "\n")
    study.samples = rows
    study.contrasts = [study.contrast("B", "A", "")]
    study.config["cells_tables"] = {"lab": CELL_TABLE}
    return study


def test_donors_of_a_table_are_counted(pooled):
    found = check_file(pooled.write(), pooled.folder / "results")
    assert found.problems == ()
    assert "3 test, 3 reference replicates, 3 pairs" in found.summary and "3 donors" in found.summary


def test_an_absent_lane_is_named_by_row(pooled):
    pooled.samples[1]["cells_lane"] = "C"
    found = check_file(pooled.write(), pooled.folder / "results")
    assert told(found) == [("samples.tsv", 3, "cells_lane")]


def test_an_absent_column_of_the_table_is_named_in_the_config(pooled):
    pooled.config["cells_tables"] = {"lab": CELL_TABLE | {"donor": "donor_id"}}
    found = check_file(pooled.write(), pooled.folder / "results")
    assert told(found) == [("config.yaml", None, "cells_tables.lab")]
    assert "no column 'donor_id'" in only(found).problem


def test_a_table_of_other_cells_is_named(pooled):
    table = (pooled.folder / "cells.tsv").read_text().replace("\tB\t", "\tX\t").replace("\tA\t", "\tB\t")
    (pooled.folder / "cells.tsv").write_text(table.replace("\tX\t", "\tA\t"))
    found = check_file(pooled.write(), pooled.folder / "results")
    assert told(found) == [("samples.tsv", 2, "cells"), ("samples.tsv", 3, "cells")]


def test_cells_tables_of_no_data_set_are_named(study):
    study.config["cells_tables"] = {"labb": CELL_TABLE}
    found = check_file(study.write(), study.folder / "results")
    assert told(found) == [("config.yaml", None, "cells_tables.labb")]


def test_a_lonely_data_set_is_a_warning(study):
    study.samples[0]["dataset"] = "other"
    found = check_file(study.write(), study.folder / "results")
    assert [(row, column) for _, row, column in told(found)] == [(2, "dataset")]
    assert not found.has_errors


def test_suppression_without_the_msc_donor_that_it_is_of_is_a_warning(study):
    for number, row in enumerate(study.samples):
        row["suppression"] = "40" if number < 2 else ""
        row["msc_donor"] = "M1" if number == 0 else ""
    found = check_file(study.write(), study.folder / "results")
    assert [(row, column) for _, row, column in told(found)] == [(3, "suppression")]
    assert not found.has_errors
