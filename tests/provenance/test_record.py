"""The record of a run: time and memory, seeds, software, methods and sources."""

import re

import pandas as pd
import pytest

from immunomod.files import read_tsv
from immunomod.provenance.record import PARTS
from immunomod.provenance.references import REFERENCES, bibtex
from immunomod.provenance.seeds import DRAWS, seed_table
from immunomod.provenance.software import direct_dependencies, environment_text
from immunomod.report.sources import SOURCES


def test_every_file_of_the_record_is_there_and_holds_something(recorded):
    for name in (*PARTS, "README.md", "ro-crate-metadata.json", "workflow/Snakefile"):
        assert (recorded.folder / name).stat().st_size > 0, name


def test_jobs_stand_in_the_order_in_which_they_began_without_those_of_older_runs(recorded):
    jobs = read_tsv(recorded.folder / "jobs.tsv")
    assert list(zip(jobs["rule"], jobs["job"].fillna(""), strict=True)) == [
        ("acquire_sample", "demo/D1_msc_alone"), ("filter_cells", "D1_msc_alone"), ("filter_cells", "D2_msc_alone"),
        ("gather_qc", ""), ("build_atlas", "demo"),
    ]  # fmt: skip
    atlas = jobs.iloc[-1]
    assert atlas["started"] == "1970-01-01T00:33:10Z" and atlas["ended"] == "1970-01-01T00:33:20Z"
    assert atlas["max_rss_mb"] == 500 and atlas["cpu_seconds"] == 8 and atlas["mb_written"] == 2.5
    assert pd.isna(jobs["max_rss_mb"][3])


def test_rules_sum_time_and_take_the_largest_memory(recorded):
    rules = read_tsv(recorded.folder / "rules.tsv").set_index("rule")
    assert rules.loc["filter_cells", ["jobs", "seconds", "longest_seconds", "max_rss_mb"]].tolist() == [2, 20, 10, 700]
    assert rules["jobs"].sum() == len(read_tsv(recorded.folder / "jobs.tsv"))


def test_every_rule_that_is_given_a_seed_is_named(repository):
    texts = [path.read_text() for path in (repository / "workflow" / "rules").glob("*.smk")]
    rules = [part for text in texts for part in re.split(r"^(?=rule )", text, flags=re.MULTILINE)[1:]]
    seeded = {re.match(r"rule (\w+)", rule)[1] for rule in rules if 'seed=RUN.config["seed"]' in rule}
    assert seeded == set(DRAWS)
    assert set(seed_table({"seed": 3}, {"build_atlas", "gather_qc"})["rule"]) == {"build_atlas"}


def test_the_environment_lists_every_dependency_by_version():
    lines = environment_text().splitlines()
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]) for line in lines if "==" in line}
    assert {name.lower() for name in direct_dependencies()} <= pinned
    assert not [line for line in lines if "/" in line or line.startswith("immunomod")]


def test_the_references_are_those_of_the_methods_and_no_other(recorded):
    methods = (recorded.folder / "methods.md").read_text()
    text, _, listed = methods.partition("## References")
    cited = set(re.findall(r"@(\w+)", text))
    entries = re.findall(r"^@\w+\{(\w+),", (recorded.folder / "references.bib").read_text(), flags=re.MULTILINE)
    assert cited and cited == set(entries) == set(re.findall(r"^- `(\w+)`", listed, flags=re.MULTILINE))
    assert len(entries) == len(set(entries))
    assert "celltypist" not in cited  # no model votes in this run


@pytest.mark.parametrize("key", sorted(SOURCES))
def test_an_entry_says_what_the_list_of_sources_says(key):
    entry = bibtex([key, key])
    assert entry.count("@") == 1 and entry.count("{") == entry.count("}")
    authors, _, year = SOURCES[key].authors.rpartition(" ")
    assert f"year = {{{year}}}" in entry
    first = re.split(r" and | others", authors)[0]
    assert REFERENCES.get(key) is None or first.split()[-1] in re.sub(r"\\'|[{}\\]", "", REFERENCES[key].authors)
    assert SOURCES[key].url in entry


def test_a_source_without_a_reference_of_its_own_is_cited_all_the_same(monkeypatch):
    monkeypatch.setattr("immunomod.provenance.references.REFERENCES", {})
    assert bibtex(["umap"]).startswith("@misc{umap,\n  author = {McInnes and others},\n  title = {UMAP},")


def test_the_sheets_are_those_that_the_run_read(recorded):
    for name in ("samples", "contrasts"):
        assert (recorded.folder / f"{name}.tsv").read_text() == (recorded.results.parent / f"{name}.tsv").read_text()
