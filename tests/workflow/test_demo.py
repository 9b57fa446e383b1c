"""The embedded demo, whose truth is known: every floor's result against what was planted."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest

from immunomod.dictionary import columns_of_tables, table_of
from immunomod.files import read_tsv
from immunomod.tables import load_schema
from support.workflow import Outcome, snakemake

pytestmark = pytest.mark.slow

CONFIG = "config/demo/config.yaml"
CONTRAST = "coculture_vs_alone"
ATLAS = "GSE900000001"


@pytest.fixture(scope="module")
def demo(demo_run: Outcome) -> Outcome:
    return demo_run


@pytest.fixture(scope="module")
def truth(repository: Path) -> Path:
    return repository / "resources" / "demo" / "truth"


@pytest.fixture(scope="module")
def against_truth(demo: Outcome, truth: Path) -> pd.DataFrame:
    """Tested effects beside the planted ones."""
    effects = read_tsv(demo.results / "contrasts" / CONTRAST / "program_effects.tsv")
    planted = read_tsv(truth / "truth_effects.tsv")
    return effects[effects["status"] == "tested"].merge(planted, on=["cell_class", "program"])


def test_cells_get_their_true_class(demo, truth):
    obs = anndata.read_h5ad(demo.results / "atlas" / f"{ATLAS}.h5ad").obs
    cells = read_tsv(truth / "truth_cells.tsv.gz", dtype=str).set_index(["sample", "barcode"])
    true_class = cells["true_class"].reindex(pd.MultiIndex.from_frame(obs[["sample", "barcode"]].astype(str)))
    assert true_class.notna().all()
    agree = obs["cell_class"].astype(str).to_numpy() == true_class.to_numpy()
    assert agree.mean() > 0.9
    is_msc = true_class.to_numpy() == "MSC"
    assert (obs["compartment"].astype(str).to_numpy() == "MSC")[is_msc].mean() > 0.98
    assert (obs["compartment"].astype(str).to_numpy() == "MSC")[~is_msc].mean() < 0.02


def test_planted_effects_have_their_sign(against_truth):
    planted = against_truth[against_truth["planted"]]
    assert len(planted) >= 9
    assert (planted["effect"] * planted["true_effect"] > 0).all()


def test_positive_controls_agree_with_biology(demo):
    effects = read_tsv(demo.results / "contrasts" / CONTRAST / "program_effects.tsv")
    core = effects[(effects["program"] == "msc_ifng_core") & (effects["cell_class"] == "MSC")].iloc[0]
    assert core["fdr"] < 0.05 and core["effect"] > 0 and core["n_pairs"] == 4
    # 5% of partner RNA dilutes what MSC answer, and brings class II that they do not make
    assert core["effect_raw"] != core["effect"] and abs(core["effect_raw"] - core["effect"]) < 0.3
    class_ii = effects[(effects["program"] == "msc_mhc2") & (effects["cell_class"] == "MSC")].iloc[0]
    assert class_ii["effect_raw"] > class_ii["effect"] > 0


def test_what_leaked_is_told_per_replicate(demo):
    leakage = read_tsv(next((demo.results / "pseudobulk").glob("*.leakage.tsv")))
    mixed = leakage["sample"].str.endswith("coculture")
    assert leakage.loc[mixed, "leaked_fraction"].between(0.03, 0.08).all()
    assert (leakage.loc[~mixed, "leaked_fraction"] == 0).all()


def test_untouched_programmes_are_not_called(against_truth):
    untouched = against_truth[~against_truth["shares_gene_with_planted"] & ~against_truth["planted"]]
    assert len(untouched) > 30
    assert (untouched["fdr"] < 0.05).mean() <= 0.05


def test_the_report_is_one_offline_page(demo):
    page = (demo.results / "report" / "index.html").read_text(encoding="utf-8")
    assert len(page) < 15_000_000
    assert "msc_ifng_core" in page or "IFN-gamma licensing" in page
    assert not [part for part in ('src="http', "src='http", 'rel="stylesheet"') if part in page]


def test_a_second_run_has_nothing_to_do(demo, repository):
    again = snakemake(demo.results.parent, repository / CONFIG).check()
    assert again.job_count() == 0


def test_no_file_of_the_repository_changed_hands(demo):
    """The results folder holds everything; nothing temporary is left."""
    leftovers = [
        path for path in demo.results.rglob("*") if path.name.startswith(".") and path.suffix in (".tsv", ".h5ad")
    ]
    assert not leftovers


def test_the_dictionary_describes_the_columns_of_every_table(demo):
    columns = columns_of_tables()
    always = columns["only_where"] == ""
    described = {name: list(rows["column"]) for name, rows in columns[always].groupby("table", sort=False)}
    found = set()
    for path in sorted(demo.results.rglob("*.tsv*")):
        name = table_of(path.relative_to(demo.results))
        if name is not None:
            found.add(name)
            assert list(read_tsv(path, nrows=1, dtype=str).columns) == described[name], path
    assert found == set(described) - {"atlas/<atlas>.h5ad"}


def test_the_dictionary_describes_the_columns_of_the_atlas(demo):
    columns = columns_of_tables()
    described = columns.loc[(columns["table"] == "atlas/<atlas>.h5ad") & (columns["only_where"] == ""), "column"]
    obs = anndata.read_h5ad(demo.results / "atlas" / f"{ATLAS}.h5ad", backed="r").obs
    sheet = read_tsv(demo.results / "provenance" / "samples.tsv", dtype=str, nrows=1).columns
    known = {*load_schema("samples")["properties"], *sheet}
    own = [re.sub("^score_.*", "score_<program>", name) for name in obs.columns if name not in known]
    assert list(dict.fromkeys(own)) == list(described)


def test_every_table_is_traced_back_to_files_of_the_ledger(demo, repository):
    """By what Snakemake remembers of each file: its inputs, theirs, and so on to the files that were acquired."""
    summary = snakemake(demo.results.parent, repository / CONFIG, "--detailed-summary").check().printed
    rows = [line.split("\t") for line in summary.splitlines() if line.count("\t") == 7]
    column = rows[0].index("input-file(s)")
    inputs_of = {row[0]: {name for name in row[column].split(",") if name not in ("", "-")} for row in rows[1:]}
    ledger = read_tsv(demo.results / "ledger.tsv", dtype=str)
    sha_of = dict(zip(ledger["path"], ledger["sha256"], strict=True))

    def samples_behind(name: str, seen: set[str]) -> set[str]:
        made = next((output for output in (name, *map(str, Path(name).parents)) if output in inputs_of), None)
        if made is None or made in seen:
            return set()
        seen.add(made)
        found = {Path(made).stem} if made.startswith("results/acquire/") else set()
        return found.union(*(samples_behind(other, seen) for other in inputs_of[made]))

    sheet = {row.stem for row in demo.results.glob("acquire/*/samples/*.tsv")}
    tables = {path.relative_to(demo.results.parent).as_posix() for path in demo.results.rglob("*.tsv*")}
    # What holds nothing of the data: times, versions, copies of the sheets, and mistakes in them.
    tables = {name for name in tables if not re.match("results/(benchmarks|provenance|check)/", name)}
    tables = {name for name in tables if "/files/" not in name}
    assert len(tables) > 100
    for name in sorted(tables):
        part = re.match(r"results/(?:samples|pseudobulk|acquire/[^/]+/samples)/([^/.]+)(?:/|\.tsv)", name)
        of_one = {part[1]} & sheet if part else set()
        assert samples_behind(name, set()) == (of_one or sheet), name
    for sample in sorted(sheet):
        (manifest,) = demo.results.glob(f"acquire/*/samples/{sample}.tsv")
        for row in read_tsv(manifest, dtype=str).to_dict("records"):
            bytes_read = (demo.results.parent / row["path"]).read_bytes()
            assert hashlib.sha256(bytes_read).hexdigest() == row["sha256"] == sha_of[row["path"]]


@pytest.fixture(scope="module")
def snakemake_report(demo: Outcome, repository: Path) -> str:
    """Snakemake's own report, made where no network can be reached."""
    page = demo.results.parent / "snakemake.html"
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), "--report", str(page)]
    command += ["--directory", str(page.parent), "--configfile", str(repository / CONFIG)]
    without_network = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*without_network, "true"], capture_output=True).returncode == 0:
        command = without_network + command
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | proxies, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return page.read_text(encoding="utf-8")


def test_the_report_of_snakemake_opens_offline(snakemake_report):
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="?http', snakemake_report)


def test_the_report_of_snakemake_holds_every_table_and_figure_with_its_caption(snakemake_report, demo):
    script = snakemake_report.split('<script id="results">')[1].split("=", 1)[1].lstrip()
    listed, _ = json.JSONDecoder().raw_decode(script)
    listed = {name.removeprefix("results/"): entry for name, entry in listed.items()}
    figures = {f"report/figures/{path.name}" for path in (demo.results / "report" / "figures").glob("*.svg")}
    assert len(figures) == 24 and figures <= set(listed)
    tables = {path.relative_to(demo.results).as_posix() for path in (demo.results / "contrasts").glob("*/*.tsv")}
    left_out = {f"contrasts/{CONTRAST}/{name}.tsv" for name in ("msc_scores", "program_genes")}
    more = {"ledger.tsv", "samples/qc.tsv", "provenance/versions.tsv", "provenance/rules.tsv", "report/index.html"}
    more |= {f"atlas/{ATLAS}/{name}.tsv" for name in ("clusters", "markers", "integration", "clustering")}
    more |= {f"synthesis/{name}.tsv" for name in ("program_meta", "potency", "suppression", "variance")}
    assert (tables - left_out) | more <= set(listed)
    for name, entry in listed.items():
        assert entry["caption"] and entry["labels"], name
    forest = listed[f"report/figures/forest_{CONTRAST}.svg"]
    assert forest["labels"] == {"figure": "forest", "of": CONTRAST}
    categories = snakemake_report.split('<script id="categories">')[1].split("</script>")[0]
    for category in ("Report", "Effects", "Figures", "Quality", "Cells", "Provenance"):
        assert f'"{category}": ' in categories, category


def test_a_run_ends_by_naming_the_report_and_what_to_look_at(demo):
    end = demo.printed.rsplit("The report is ", 1)[1]
    assert end.startswith("results/report/index.html") and "could be tested" in end and "to look at, of 12" in end
