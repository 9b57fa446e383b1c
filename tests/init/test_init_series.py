"""A series becomes a sheet: certain things stated, guesses marked, the rest empty; whatever strangers wrote in it."""

import gzip
import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import yaml
from init_helpers import HUMAN, MOUSE, Sample, Study, dense, init_series, write_series
from typer.testing import CliRunner

from immunomod.cli import app
from immunomod.errors import UserError
from immunomod.init.command import init_command
from immunomod.settings import load_run_file
from immunomod.simulate.command import simulate_command
from immunomod.tables import read_table
from support.geo_server import GeoServer

LICENSING = [
    Sample("BM-MSC donor 1, control", ["cell type: bone marrow MSC", "treatment: none"]),
    Sample("BM-MSC donor 1, IFN-γ + TNF-α 24h", ["cell type: bone marrow MSC", "treatment: IFNg and TNFa"]),
    Sample("BM-MSC donor 2, control", ["cell type: bone marrow MSC", "treatment: none"]),
    Sample("BM-MSC donor 2, IFN-γ + TNF-α 24h", ["cell type: bone marrow MSC", "treatment: IFNg and TNFa"]),
]
COCULTURE = [
    Sample(f"{told} {who}", [f"pbmc donor: {who}", f"stimulation: {stimulus}", *more], source)
    for who in ("P7", "P9")
    for told, stimulus, more, source in (
        ("PBMC alone", "anti-CD3/CD28, 48 h", [], "PBMC"),
        ("UC-MSC alone", "none", [f"msc donor: M{who[1]}"], "UC-MSC"),
        (
            "PBMC co-cultured with UC-MSC",
            "anti-CD3/CD28, 48 h",
            [f"msc donor: M{who[1]}", "ratio: MSC:PBMC 1:10"],
            "both",
        ),
    )
]


def test_licensing_with_two_donors(tmp_path):
    study = init_series(tmp_path, LICENSING, title="MSC")
    sheet = study.samples
    assert sheet["condition"].tolist() == ["resting", "licensed"] * 2
    assert sheet["donor"].tolist() == ["D1", "D1", "D2", "D2"]
    assert set(sheet["culture"]) == {"msc"} and set(sheet["msc_source"]) == {"bone_marrow"}
    assert sheet["stimulus"].tolist() == ["none", "IFN-gamma+TNF"] * 2
    assert sheet["time_h"].tolist() == ["", "24", "", "24"]
    assert sheet["source"].tolist() == ["GSM50001", "GSM50002", "GSM50003", "GSM50004"]
    assert set(sheet["organism"]) == {"human"} and set(sheet["dataset"]) == {"GSE1234"}
    (question,) = study.contrasts.to_dict("records")
    assert (question["test"], question["reference"], question["pair_by"]) == ("licensed", "resting", "donor")


def test_every_guess_is_marked_with_what_it_came_from(tmp_path):
    study = init_series(tmp_path, LICENSING)
    licensed = study.samples.index[1]
    assert study.guesses(licensed) == {
        "condition": "stimulus",
        "donor": 'title "donor 1"',
        "culture": "title",
        "stimulus": 'characteristics "treatment"',
        "msc_source": 'characteristics "cell type"',
        "time_h": "title",
    }
    certain = {"sample", "dataset", "source", "organism", "guessed"}
    for name, row in study.samples.iterrows():
        filled = {column for column, value in row.items() if value} - certain
        assert filled == set(study.guesses(str(name)))


def test_coculture_with_donors_in_characteristics(tmp_path):
    study = init_series(tmp_path, COCULTURE)
    sheet = study.samples
    assert sheet["condition"].tolist() == ["immune_alone", "msc_alone", "coculture"] * 2
    assert sheet["culture"].tolist() == ["immune", "msc", "coculture"] * 2
    assert sheet["donor"].tolist() == ["P7"] * 3 + ["P9"] * 3
    assert sheet["msc_donor"].tolist() == ["", "M7", "M7", "", "M9", "M9"]
    assert sheet["msc_source"].tolist() == ["", "umbilical_cord", "umbilical_cord"] * 2
    assert sheet["stimulus"].tolist() == ["anti-CD3/CD28", "none", "anti-CD3/CD28"] * 2
    assert sheet["dose"].tolist() == ["", "", "0.1"] * 2
    assert sheet["time_h"].tolist() == ["48", "", "48"] * 2
    (question,) = study.contrasts.to_dict("records")
    assert (question["test"], question["reference"]) == ("coculture", "msc_alone,immune_alone")
    load_run_file(study.folder / "config.yaml")


def test_what_a_simulated_study_says_of_itself_comes_back(tmp_path):
    simulate_command(tmp_path / "sim", donors=3, cells_scale=0.2)
    study = Study(tmp_path / "out", init_command("GSE900000001", tmp_path / "out", str(tmp_path / "sim" / "geo")))
    truth = read_table(tmp_path / "sim" / "samples.tsv", "samples").set_index("sample", drop=False)
    ours = study.samples
    for column in (
        "sample",
        "dataset",
        "source",
        "condition",
        "donor",
        "culture",
        "msc_source",
        "msc_donor",
        "organism",
    ):
        assert ours[column].tolist() == truth[column].tolist(), column
    assert ours["stimulus"].replace("none", "").tolist() == truth["stimulus"].tolist()
    asked = read_table(tmp_path / "sim" / "contrasts.tsv", "contrasts")
    columns = ["dataset", "variable", "test", "reference", "pair_by"]
    assert study.contrasts[columns].to_numpy().tolist() == asked[columns].to_numpy().tolist()


def test_replicate_numbers_are_no_donors(tmp_path):
    samples = [Sample(f"PBMC {arm}, rep{n}") for arm in ("control", "LPS") for n in (1, 2)]
    study = init_series(tmp_path, samples)
    assert (study.samples["donor"] == "").all()
    assert study.samples["condition"].tolist() == ["control", "control", "LPS", "LPS"]
    assert "a replicate number is no donor" in study.comments()
    assert "replicate numbers and no donor" in study.said
    question = next(line for line in study.lines("contrasts.tsv") if line.startswith("#LPS_vs_control"))
    assert question.split("\t")[3:5] == ["LPS", "control"]
    assert "donor is empty in 2 of the 2 samples" in study.comments("contrasts.tsv")


def test_one_sample_per_cell_becomes_one_row_per_donor_and_arm(tmp_path):
    arms = [(donor, arm) for donor in ("Donor1", "Donor2") for arm in ("naïve", "IFNγ+TNFα")]
    cells = [(donor, arm, number) for donor, arm in arms for number in range(20)]
    alias = [f"C{arms.index((donor, arm))}.{number:02d}" for donor, arm, number in cells]
    samples = [
        Sample(f"{donor} {arm} [{name}]", [f"donor id: {donor}", f"treatment: {arm}", f"well: {name}"], files=[])
        for (donor, arm, _), name in zip(cells, alias, strict=True)
    ]
    matrix = {"GSE1234_counts.csv.gz": gzip.compress(dense(alias))}
    study = init_series(tmp_path, samples, title="hUC-MSC, cell by cell", at_series=matrix)
    sheet = study.samples
    assert len(sheet) == 4
    assert set(sheet["source"]) == {"GSE1234"} and set(sheet["cells"]) == {"GSE1234_family.soft.gz"}
    assert sheet["cells_lane"].tolist() == [f"{donor} | {arm}" for donor, arm in arms]
    assert sheet["condition"].tolist() == ["resting", "licensed"] * 2
    assert sheet["donor"].tolist() == ["Donor1", "Donor1", "Donor2", "Donor2"]
    assert set(sheet["culture"]) == {"msc"} and set(sheet["msc_source"]) == {"umbilical_cord"}
    section = yaml.safe_load((study.folder / "config.yaml").read_text())["cells_tables"]["GSE1234"]
    assert section == {
        "barcode": "title",
        "lane": ["donor id", "treatment"],
        "listed_only": True,
        "barcode_pattern": r"\[([^]]+)\]",
    }
    assert "20 cells, each a sample of its own" in study.comments()
    assert re.fullmatch(section["barcode_pattern"], f"[{alias[0]}]").group(1) == alias[0]


def test_antibodies_of_the_same_cells_join_their_rna(tmp_path):
    samples = [
        Sample("Donor A resting, GEX"),
        Sample("Donor A resting, ADT", strategy="OTHER"),
        Sample("Donor B LPS, GEX"),
        Sample("Donor B LPS, ADT", strategy="OTHER"),
        Sample("pooled hashtags", strategy="OTHER", files=["HTO_counts.csv.gz"]),
        Sample("Donor A TCR-seq", strategy="OTHER"),
        Sample("Donor A scATAC", strategy="ATAC-seq"),
        Sample("Donor B bulk RNA-seq"),
    ]
    study = init_series(tmp_path, samples)
    sheet = study.samples
    assert sheet["source"].tolist() == ["GSM50001,GSM50002", "GSM50003,GSM50004"]
    assert sheet["donor"].tolist() == ["A", "B"]
    assert "titles" in study.guesses(sheet.index[0])["source"]
    aside = [line for line in study.lines("samples.tsv") if re.match(r"#\S+\tGSE1234", line)]
    assert [line.split("\t")[2] for line in aside] == ["GSM50005", "GSM50006", "GSM50007", "GSM50008"]
    for reason in ("hashtags", "immune receptors", "chromatin (ATAC)", "bulk RNA"):
        assert f"left out: {reason}" in study.comments()


def test_cite_seq_alone_and_t_cell_receptor_stimulation_are_rna(tmp_path):
    study = init_series(tmp_path, [Sample("CITE-seq of PBMC, control"), Sample("PBMC, TCR stimulation 4h")])
    assert len(study.samples) == 2


def test_counts_at_series_level_are_told_by_names(tmp_path):
    matrices = {f"GSE1234_{name}_counts.csv.gz": gzip.compress(dense(["a", "b"])) for name in ("ctrl_D1", "lps_D1")}
    samples = [Sample("LPS D1", files=[]), Sample("ctrl D1", files=[]), Sample("something else", files=[])]
    samples[0].title, samples[1].title = "lps_D1", "ctrl_D1"
    study = init_series(tmp_path, samples, at_series=matrices)
    assert study.samples["source"].tolist() == ["GSE1234"] * 3
    assert study.samples["files"].tolist() == ["GSE1234_lps_D1_counts.csv.gz", "GSE1234_ctrl_D1_counts.csv.gz", ""]
    assert "which matrix is its own? GSE1234_ctrl_D1_counts.csv.gz" in study.comments()


@pytest.mark.parametrize(
    ("ends", "patterns"), [(["ctrl_{}", "lps_{}"], ["ctrl_*", "lps_*"]), (["{}-1", "{}-2"], ["", ""])]
)
def test_cells_of_a_combined_matrix_are_told_by_their_names_or_left_open(tmp_path, ends, patterns):
    cells = [end.format(f"ACGTACGTAC{base}A") for end in ends for base in "ACGT"]
    matrix = {
        "GSE1234_matrix.mtx.gz": b"",
        "GSE1234_features.tsv.gz": b"",
        "GSE1234_barcodes.tsv.gz": gzip.compress("".join(f"{cell}\n" for cell in cells).encode()),
    }
    samples = [Sample("PBMC ctrl 1", files=[]), Sample("PBMC LPS 2", files=[])]
    study = init_series(tmp_path, samples, at_series=matrix)
    assert study.samples.get("barcodes", pd.Series(["", ""])).tolist() == patterns
    if not any(patterns):
        assert "the cells are named *-1, *-2; which are this library's?" in study.comments()


def test_a_series_without_counts_says_so_and_keeps_what_it_knows(tmp_path):
    samples = [Sample("PBMC control", files=[]), Sample("PBMC LPS", files=[])]
    study = init_series(tmp_path, samples, at_series={"GSE1234_readme.pdf": b"x"})
    assert study.samples["source"].tolist() == ["", ""]
    assert study.samples["condition"].tolist() == ["control", "LPS"]
    assert "2 samples have no count matrix on GEO" in study.said and "source: rows" in study.said


def test_filtered_matrices_are_named_where_raw_ones_stand_beside(tmp_path):
    names = ["raw_feature_bc_matrix.h5", "filtered_feature_bc_matrix.h5"]
    study = init_series(tmp_path, [Sample("PBMC control", files=names), Sample("PBMC LPS", files=names)])
    assert study.samples["files"].tolist() == [f"GSM5000{n}_filtered_feature_bc_matrix.h5" for n in (1, 2)]
    assert "raw one left" in study.guesses(study.samples.index[0])["files"]


def test_mouse_and_mixed_organisms(tmp_path):
    samples = [
        Sample("MSC a", organism=MOUSE),
        Sample("MSC b"),
        Sample("MSC c"),
        Sample("MSC d", organism="Rattus rattus"),
    ]
    samples.append(Sample("MSC e", organism=f"{HUMAN};{MOUSE}"))
    study = init_series(tmp_path, samples)
    sheet = study.samples
    assert sheet["organism"].tolist() == ["mouse", "human", "human", "human"]
    assert sheet["dataset"].tolist() == ["mouse_GSE1234", "GSE1234", "GSE1234", "GSE1234"]
    assert "organism" not in study.guesses(sheet.index[0]) and "organism" in study.guesses(sheet.index[3])
    assert "left out: organism Rattus rattus" in study.comments()
    assert "two organisms" in study.said


def test_two_hundred_samples(tmp_path):
    samples = [
        Sample(f"PBMC {arm} from patient {number}", [f"treatment: {arm}"])
        for number in range(1, 101)
        for arm in ("vehicle", "IFN-beta")
    ]
    study = init_series(tmp_path, samples)
    sheet = study.samples
    assert len(sheet) == 200 and sheet["sample"].is_unique
    assert sheet["donor"].nunique() == 100 and sheet["donor"].value_counts().eq(2).all()
    (question,) = study.contrasts.to_dict("records")
    assert (question["test"], question["reference"]) == ("IFN-beta", "vehicle")
    assert len(study.said.split("\n")) < 60


HOSTILE = [
    '=HYPERLINK("http://x","PBMC") control',
    "+cmd|' /C calc'!A0 <script>alert(1)</script> LPS",
    "../../../etc/passwd PBMC &lt;img src=x&gt;",
    '"PBMC\tcontrol\x07\u202e\u2028\u200b',
    "#PBMC " + "x" * 100_000,
    "@SUM(A1) -donor =1+1",
    "$(rm -rf /) `id` ; PBMC \x1b[31m",
    "PBMC",
    "PBMC",
    "",
    "患者 一",
    "a" * 60 + "1",
    "a" * 60 + "2",
]


def test_hostile_metadata_reach_no_sheet(tmp_path):
    samples = [
        Sample(title, [f"donor: {title}", f"treatment: {title}", f"batch: {title}", f"{title}: {title}"], title)
        for title in HOSTILE
    ]
    study = init_series(tmp_path, samples, title=HOSTILE[1])
    for name in ("samples.tsv", "contrasts.tsv", "config.yaml"):
        text = (study.folder / name).read_text(encoding="utf-8")
        assert "<script" not in text and "<img" not in text and "../" not in text
        assert not [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
        assert max(map(len, text.split("\n"))) < 3000
    sheet = study.samples
    assert len(sheet) == len(HOSTILE) and sheet["sample"].str.lower().is_unique
    for column in sheet:
        assert not sheet[column].str.match(r"[=+@\-\"'#`|%\s]").any(), column
    assert sheet["sample"].str.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").all()
    assert not sheet["condition"].str.contains(",").any()
    assert isinstance(yaml.safe_load((study.folder / "config.yaml").read_text())["title"], str)


def test_what_init_writes_is_read_as_written(tmp_path):
    study = init_series(tmp_path, [*LICENSING, Sample('MSC "quoted" donor 3, control')])
    sheet = read_table(study.folder / "samples.tsv", "samples")
    assert sheet["sample"].tolist() == study.samples["sample"].tolist()
    lines = (study.folder / "samples.tsv").read_text().split("\n")
    for number, row in sheet.iterrows():
        assert lines[number - 1].startswith(f"{row['sample']}\t")


def test_it_never_overwrites_and_writes_all_or_nothing(tmp_path, monkeypatch):
    address = write_series(tmp_path / "geo", LICENSING)
    out = tmp_path / "mine"
    out.mkdir()
    (out / "contrasts.tsv").write_text("kept")
    done = CliRunner().invoke(app, ["init", "GSE1234", "--out", str(out), "--base-url", address])
    assert done.exit_code == 1 and "contrasts.tsv already" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in out.iterdir()] == ["contrasts.tsv"] and (out / "contrasts.tsv").read_text() == "kept"

    def fails(text: str, path: Path) -> None:
        if Path(path).name == "config.yaml":
            raise OSError("disk full")
        Path(path).parent.mkdir(exist_ok=True, parents=True)
        Path(path).write_text(text)

    monkeypatch.setattr("immunomod.init.write.write_text", fails)
    (out / "contrasts.tsv").unlink()
    for folder in (out, tmp_path / "new"):
        with pytest.raises(UserError, match="disk full"):
            init_command("GSE1234", folder, address)
    assert list(out.iterdir()) == [] and sorted(path.name for path in tmp_path.iterdir()) == ["geo", "mine"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("GSE999", "GSE999 is unknown"),
        ("GSM50001", "is a sample. Name its series"),
        ("GSE12x", "no accession"),
        ("nowhere", "neither a folder nor the accession"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(tmp_path, monkeypatch, source, message):
    address = write_series(tmp_path / "geo", LICENSING)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["init", source, "--base-url", address])
    assert done.exit_code == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["geo"]


def test_an_accession_is_the_series_though_a_folder_has_its_name(tmp_path, monkeypatch):
    address = write_series(tmp_path / "geo", LICENSING)
    monkeypatch.chdir(tmp_path)
    Path("GSE1234").mkdir()
    first = CliRunner().invoke(app, ["init", "GSE1234", "--base-url", address])
    assert first.exit_code == 0, first.stderr
    assert load_run_file("GSE1234/config.yaml").datasets == ["GSE1234"]
    again = CliRunner().invoke(app, ["init", "GSE1234", "--base-url", address])
    assert again.exit_code == 1 and "never overwrites" in again.stderr
    as_folder = CliRunner().invoke(app, ["init", "./GSE1234", "--out", "mine"])
    assert as_folder.exit_code == 1 and "GSE1234" in as_folder.stderr and not Path("mine").exists()


def test_the_commands_to_type_next_name_what_was_written(tmp_path, monkeypatch):
    address = write_series(tmp_path / "geo", LICENSING)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["init", "gse1234", "--base-url", address])
    assert done.exit_code == 0, done.stderr
    assert "check --config GSE1234/config.yaml" in done.stdout
    command = next(line for line in done.stdout.split("\n") if "snakemake" in line)
    found = re.search(r"-s (\S+) --directory GSE1234 --configfile GSE1234/config.yaml --cores 2", command)
    assert found and Path(found.group(1)).is_file()
    assert load_run_file("GSE1234/config.yaml").config["geo"]["base_url"] == address


# --- a real series ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kang(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    out = tmp_path_factory.mktemp("kang") / "study"
    return Study(out, init_command("GSE96583", out, (shared / "geo_mirror" / "geo").as_uri()))


def test_gse96583_comes_out_as_the_shipped_example(kang, repository):
    shipped = repository / "config" / "examples" / "GSE96583"
    example = read_table(shipped / "samples.tsv", "samples").set_index("source")
    ours = read_table(kang.folder / "samples.tsv", "samples").set_index("source")
    assert ours.index.tolist() == example.index.tolist()
    for column in ("sample", "dataset", "condition", "donor", "culture", "stimulus", "organism", "cells", "cells_lane"):
        assert ours[column].tolist() == example[column].tolist(), column
    config, wanted = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (kang.folder, shipped))
    assert config["cells_tables"] == wanted["cells_tables"]
    asked, question = (read_table(f / "contrasts.tsv", "contrasts").iloc[0] for f in (kang.folder, shipped))
    for column in ("dataset", "variable", "test", "reference", "pair_by"):
        assert asked[column] == question[column]


def test_a_server_gives_what_a_folder_gives(kang, shared, tmp_path):
    with GeoServer(shared / "geo_mirror") as server:
        init_command("GSE96583", tmp_path / "study", server.base_url)
    for name in ("samples.tsv", "contrasts.tsv"):
        assert (tmp_path / "study" / name).read_bytes() == (kang.folder / name).read_bytes()


def test_gse96583_runs_once_the_guesses_are_confirmed(kang, tmp_path):
    for name in ("config.yaml", "contrasts.tsv"):
        (tmp_path / name).write_bytes((kang.folder / name).read_bytes())
    lines = [line.split("\t") for line in (kang.folder / "samples.tsv").read_text().split("\n")]
    confirmed = [
        "\t".join([*fields[:-1], ""]) if len(fields) > 5 and fields[0] != "sample" else "\t".join(fields)
        for fields in lines
    ]
    (tmp_path / "samples.tsv").write_text("\n".join(confirmed))
    done = CliRunner().invoke(app, ["check", "--config", str(tmp_path / "config.yaml")])
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "column guessed" not in done.stdout


@pytest.fixture
def mirror(shared: Path, tmp_path: Path) -> Path:
    """A copy of the mirror that a test may change."""
    real = shared / "geo_mirror" / "geo"
    for path in real.rglob("*"):
        if path.is_file() and path.suffix != ".tar":
            target = tmp_path / "geo" / path.relative_to(real)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "geo"


def rewrite_soft(mirror: Path, *changes: tuple[str, str]) -> None:
    (soft,) = mirror.rglob("*.soft.gz")
    text = gzip.decompress(soft.read_bytes()).decode()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    soft.write_bytes(gzip.compress(text.encode()))


def propose_kang(mirror: Path) -> Study:
    out = mirror.parent / "out"
    return Study(out, init_command("GSE96583", out, mirror.as_uri()))


def test_lanes_are_told_by_barcodes_whatever_the_titles_say(mirror):
    """The two samples' titles exchanged: the barcodes still tell which lane is whose."""
    rewrite_soft(
        mirror,
        ("patients, control", "patients, X"),
        ("patients, IFN-beta stimulated", "patients, control"),
        ("patients, X", "patients, IFN-beta stimulated"),
    )
    study = propose_kang(mirror)
    assert study.samples.set_index("source")["cells_lane"].to_dict() == {"GSM2560248": "ctrl", "GSM2560249": "stim"}


def test_the_series_with_its_first_batch_too(mirror):
    """As the public server lists it, as far as that is known: a second gene table, and libraries of another table."""
    (genes,) = mirror.rglob("*batch2.genes.tsv.gz")
    suppl = genes.parent
    (suppl / "GSE96583_batch1.genes.tsv.gz").write_bytes(genes.read_bytes())
    lanes = {"A": "TT", "B": "GG"}
    barcodes = {lane: [f"{start}CATACAATG{x}{y}A-1" for x in "ACGT" for y in "ACGT"] for lane, start in lanes.items()}
    rows = ["tsne1\tbatch\tind\tcell\tmultiplets"]
    rows += [
        f"{name}\t1.5\t{lane}\t{k % 3 + 1}\t{'B cells' if k % 2 else 'NK cells'}\t{'singlet' if k else 'doublet'}"
        for lane, names in barcodes.items()
        for k, name in enumerate(names)
    ]
    table = "GSE96583_batch1.total.tsne.df.tsv.gz"
    (suppl / table).write_bytes(gzip.compress(("\n".join(rows) + "\n").encode()))
    ftp, records = "ftp://ftp.ncbi.nlm.nih.gov/geo", []
    for number, (lane, names) in enumerate(barcodes.items()):
        gsm = f"GSM256024{5 + number}"
        home = mirror / "samples" / "GSM2560nnn" / gsm / "suppl"
        home.mkdir(parents=True)
        for name, content in (
            (f"{gsm}_{lane}.mat.gz", b"%%MatrixMarket"),
            (f"{gsm}_barcodes.tsv.gz", "\n".join(names).encode()),
        ):
            (home / name).write_bytes(gzip.compress(content))
        links = [
            f"!Sample_supplementary_file_1 = {ftp}/samples/GSM2560nnn/{gsm}/suppl/{path.name}"
            for path in home.iterdir()
        ]
        records += [
            f"^SAMPLE = {gsm}",
            f"!Sample_title = PBMC pool {lane}",
            "!Sample_organism_ch1 = Homo sapiens",
            *links,
        ]
    first = f"!Series_supplementary_file = {ftp}/series/GSE96nnn/GSE96583/suppl/GSE96583_batch1"
    rewrite_soft(
        mirror,
        ("^SAMPLE = GSM2560248", "\n".join([*records, "^SAMPLE = GSM2560248"])),
        (
            "!Series_sample_id = GSM2560248",
            f"{first}.total.tsne.df.tsv.gz\n{first}.genes.tsv.gz\n!Series_sample_id = X",
        ),
    )
    study = propose_kang(mirror)
    sheet = study.samples.set_index("source")
    assert sheet.index.tolist() == ["GSM2560245", "GSM2560246", "GSM2560248", "GSM2560249"]
    assert sheet["cells_lane"].tolist() == ["", "", "ctrl", "stim"]
    assert sheet["files"].tolist() == ["", "", "GSE96583_batch2.genes.tsv.gz", "GSE96583_batch2.genes.tsv.gz"]
    assert f"cells left empty: {table} describes it" in study.comments()
    assert "files left empty: several files could be its features table" in study.comments()
    assert study.contrasts[["test", "reference"]].to_numpy().tolist() == [["stim", "ctrl"]]
