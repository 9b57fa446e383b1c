import gzip
import re
import tarfile

import numpy as np
import pandas as pd
import pytest
import yaml

from immunomod.errors import UserError
from immunomod.simulate.command import simulate_command
from immunomod.simulate.geo_layout import (
    LAYOUTS,
    accession_stub,
    series_folder,
    study_libraries,
    write_archive,
    write_geo_tree,
)


def read_back(layout, folder, prefix):
    """Genes x cells with symbols and barcodes, by readers that know nothing of the writer."""
    if layout == "h5":
        import scanpy as sc

        adata = sc.read_10x_h5(folder / f"{prefix}_filtered_feature_bc_matrix.h5")
        return adata.X.T.toarray(), list(adata.var_names), list(adata.var["gene_ids"]), list(adata.obs_names)
    if layout == "dense_csv":
        table = pd.read_csv(folder / f"{prefix}_counts.csv.gz", index_col=0)
        return table.to_numpy(), list(table.index), None, list(table.columns)
    if layout == "triplet_v3":
        import scanpy as sc

        adata = sc.read_10x_mtx(folder, var_names="gene_symbols", prefix=f"{prefix}_")
        return adata.X.T.toarray(), list(adata.var_names), list(adata.var["gene_ids"]), list(adata.obs_names)
    from scipy.io import mmread

    with gzip.open(folder / f"{prefix}_matrix.mtx.gz") as handle:
        matrix = mmread(handle).toarray()
    genes = pd.read_csv(folder / f"{prefix}_genes.tsv.gz", sep="\t", header=None)
    assert genes.shape[1] == 2
    barcodes = pd.read_csv(folder / f"{prefix}_barcodes.tsv.gz", header=None)[0]
    return matrix, list(genes[1]), list(genes[0]), list(barcodes)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_layout_reads_back_to_the_same_counts(layout, small_study, tmp_path):
    write_geo_tree(small_study, tmp_path, layout)
    library = study_libraries(small_study)[2]
    folder = tmp_path / "samples" / "GSM900000nnn" / library.accession / "suppl"
    counts, symbols, ids, barcodes = read_back(layout, folder, library.prefix)
    np.testing.assert_array_equal(counts, library.counts.toarray().T)
    assert symbols == library.genes["gene_symbol"].tolist()
    assert ids is None or ids == library.genes["gene_id"].tolist()
    assert barcodes == library.barcodes


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_same_study_gives_the_same_bytes(layout, small_study):
    library = study_libraries(small_study)[0]
    assert LAYOUTS[layout](library) == LAYOUTS[layout](library)


def test_soft_names_every_sample_and_every_file_that_is_there(small_study, tmp_path):
    write_geo_tree(small_study, tmp_path)
    home = series_folder(tmp_path)
    soft = gzip.decompress((home / "soft" / "GSE900000001_family.soft.gz").read_bytes()).decode()
    accessions = re.findall(r"^\^SAMPLE = (GSM\d+)$", soft, re.M)
    assert accessions == re.findall(r"^!Series_sample_id = (GSM\d+)$", soft, re.M)
    links = re.findall(r"^!Sample_supplementary_file_\d+ = ftp://ftp.ncbi.nlm.nih.gov/geo/(.*)$", soft, re.M)
    there = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("samples/*/*/suppl/*"))
    assert sorted(links) == there
    assert len(there) == 3 * len(accessions) == 18
    assert "SIMULATED" in soft
    assert soft.count("!Sample_characteristics_ch1 = stimulus: PHA") == 4
    listed = pd.read_csv(home / "suppl" / "filelist.txt", sep="\t")
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("samples/*/*/suppl/*")}
    assert dict(zip(listed["Name"], listed["Size"], strict=True)) == sizes


def test_archive_holds_the_files_and_is_listed(small_study, tmp_path):
    write_geo_tree(small_study, tmp_path)
    archive = write_archive(tmp_path)
    first = archive.read_bytes()
    with tarfile.open(archive) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    assert members == {path.name: path.read_bytes() for path in tmp_path.glob("samples/*/*/suppl/*")}
    listed = pd.read_csv(archive.parent / "filelist.txt", sep="\t")
    assert listed.loc[0, ["#Archive/File", "Name", "Size"]].tolist() == ["Archive", archive.name, len(first)]
    soft = gzip.decompress((archive.parents[1] / "soft" / "GSE900000001_family.soft.gz").read_bytes()).decode()
    assert (
        f"!Series_supplementary_file = ftp://ftp.ncbi.nlm.nih.gov/geo/series/GSE900000nnn/GSE900000001/suppl/{archive.name}"
        in soft
    )
    assert write_archive(tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("accession", "stub"),
    [("GSE96583", "GSE96nnn"), ("GSM2560248", "GSM2560nnn"), ("GSE900000001", "GSE900000nnn"), ("GSE123", "GSEnnn")],
)
def test_stub_of_an_accession(accession, stub):
    assert accession_stub(accession) == stub


def test_unknown_layout_is_refused_before_anything_is_written(small_study, tmp_path):
    with pytest.raises(UserError, match=r"loom.*triplet_v3"):
        write_geo_tree(small_study, tmp_path / "tree", "loom")
    assert not (tmp_path / "tree").exists()


def test_command_writes_a_run_that_is_ready(tmp_path):
    out = tmp_path / "study"
    said = simulate_command(out, donors=2, cells_scale=0.2, seed=3)
    assert str(out / "config.yaml") in said
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (out / config["geo"]["base_url"] / "series").is_dir()
    samples = pd.read_csv(out / config["samples"], sep="\t", keep_default_na=False)
    for accession in samples["source"]:
        assert list((out / "geo" / "samples" / accession_stub(accession) / accession / "suppl").iterdir())
    contrasts = pd.read_csv(out / config["contrasts"], sep="\t")
    levels = {contrasts.loc[0, "test"], *contrasts.loc[0, "reference"].split(",")}
    assert levels == set(samples["condition"])
    cells = pd.read_csv(out / "truth" / "truth_cells.tsv.gz", sep="\t")
    assert cells.groupby("sample").size().index.tolist() == sorted(samples["sample"])
    with pytest.raises(UserError, match="not an empty folder"):
        simulate_command(out)


def test_a_bad_layout_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="layout"):
        simulate_command(tmp_path / "study", layout="rds")
    assert not (tmp_path / "study").exists()
