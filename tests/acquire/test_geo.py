"""Accessions, SOFT, filelist and listings."""

import gzip
from pathlib import Path

import pytest
from geo_server import GeoServer
from geo_tree import FAST, SAMPLES, SERIES, Tree

from immunomod.acquire.download import Client
from immunomod.acquire.geo import (
    FilelistRow,
    GeoSite,
    RemoteFile,
    accession_folder,
    is_accession,
    link_path,
    parse_accession,
    parse_filelist,
    parse_soft,
    read_soft,
    safe_name,
    stub,
)
from immunomod.errors import UserError


def site(base_url: str, folder: Path) -> GeoSite:
    return GeoSite(base_url, Client(FAST), folder)


@pytest.mark.parametrize(
    ("accession", "folder"),
    [
        ("GSE96583", "series/GSE96nnn/GSE96583"),
        ("GSE301305", "series/GSE301nnn/GSE301305"),
        ("GSE1234", "series/GSE1nnn/GSE1234"),
        ("GSE123", "series/GSEnnn/GSE123"),
        ("GSE12", "series/GSEnnn/GSE12"),
        ("GSE1", "series/GSEnnn/GSE1"),
        ("GSM2560248", "samples/GSM2560nnn/GSM2560248"),
    ],
)
def test_folders_have_the_servers_names(accession: str, folder: str) -> None:
    assert accession_folder(accession) == folder
    assert stub(accession) == folder.split("/")[1]


def test_accessions() -> None:
    assert parse_accession(" gse96583 ") == "GSE96583"
    for text in ("GSE", "GSE0", "GSE96583x", "GSM12 ", "GPL570", "GSE99999999999", "../GSE1"):
        if text == "GSM12 ":
            assert parse_accession(text) == "GSM12"
        else:
            with pytest.raises(UserError, match="no accession"):
                parse_accession(text)
    assert all(is_accession(text) for text in ("GSE1", "gsm2560248", "GSM25602x8", "GPL570"))
    assert not any(is_accession(text) for text in ("data/GSE1", "./GSE96583", "GSE1.csv", "counts", "GSEfolder"))


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".hidden", "a/b", "/a", "a\\b", "a\nb", "a\0b", "a\x7fb", "a\u202eb", "\ud800", "x" * 201),
        *("=cmd()", "+1", "@x", "-rf"),
    ],
)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="unsafe name"):
        safe_name(name)


def test_ordinary_names_pass() -> None:
    for name in ("GSM1_a b (2).csv.gz", "GSM1_β-cells,1.txt", "features.tsv.gz"):
        assert safe_name(name) == name


def test_links_keep_their_path_below_geo() -> None:
    ftp = "ftp://ftp.ncbi.nlm.nih.gov"
    coded = f"{ftp}/geo/series/GSE96nnn/GSE96583/suppl/GSE96583%5Fbatch2%2Egenes%2Etsv%2Egz"
    assert link_path(coded) == ["series", "GSE96nnn", "GSE96583", "suppl", "GSE96583_batch2.genes.tsv.gz"]
    for elsewhere in ("NONE", "ftp://ftp-trace.ncbi.nlm.nih.gov/sra/SRX1", f"{ftp}/geo/", f"{ftp}/geo/series/"):
        assert link_path(elsewhere) is None
    for hostile in (
        f"{ftp}/geo/series/../../etc/passwd",
        f"{ftp}/geo/a/%2e%2e/x",
        f"{ftp}/geo/a/x%2Fy",
        f"{ftp}/geo//x",
    ):
        with pytest.raises(UserError, match="unsafe name"):
            link_path(hostile)


def test_soft(tree: Tree) -> None:
    series = read_soft(tree.path(f"{SERIES}/soft/GSE1234_family.soft.gz"))
    assert (series.accession, series.title, series.summary) == ("GSE1234", "A study", "One.\nTwo.")
    assert [sample.accession for sample in series.samples] == ["GSM50001", "GSM50002", "GSM50003"]
    first = series.samples[0]
    assert (first.title, first.organism) == ("donor 1", "Homo sapiens")
    assert first.characteristics == {"stimulation": "IFN: beta", "": "fresh"}
    assert [link.rpartition("/")[2] for link in first.links] == ["GSM50001_a.mtx.gz", "GSM50001_barcodes.tsv.gz"]
    assert series.samples[2].links == ()
    assert series.sample("GSM50002") is series.samples[1] and series.sample("GSM9") is None


def test_soft_of_several_organisms_and_no_series() -> None:
    lines = ["^SERIES = GSE1", "^PLATFORM = GPL1", "!Series_title = not the series'", "^SAMPLE = GSM1"]
    lines += ["!Sample_organism_ch1 = Homo sapiens", "!Sample_organism_ch1 = Mus musculus", "#ID_REF = x", "1\t2"]
    series = parse_soft(lines)
    assert series.title == ""
    assert series.samples[0].organism == "Homo sapiens; Mus musculus"
    with pytest.raises(UserError, match="no series record"):
        parse_soft(["^SAMPLE = GSM1"])
    with pytest.raises(UserError, match="no accession"):
        parse_soft(["^SERIES = ../../x"])


def test_a_soft_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunomod.acquire.geo.LARGEST_SOFT_BYTES", 10_000)
    path = tmp_path / "x.soft.gz"
    path.write_bytes(gzip.compress(b"^SERIES = GSE1\n" + b"x" * 20_000))
    with pytest.raises(UserError, match="refused"):
        read_soft(path)


def test_filelist() -> None:
    text = "#Archive/File\tName\tTime\tSize\tType\r\nArchive\tGSE1_RAW.tar\t1/1/2017\t3430400\tTAR\r\n"
    assert parse_filelist(text + "File\tGSM1_a b.gz\t1/1/2017\t?\tX\n\nFile\t._x\tt\t1\tX\n") == [
        FilelistRow("archive", "GSE1_RAW.tar", 3430400),
        FilelistRow("file", "GSM1_a b.gz", None),
    ]
    with pytest.raises(UserError, match="unsafe name"):
        parse_filelist("File\t../../x\tt\t1\tX\n")


def sizes(files: tuple[RemoteFile, ...]) -> dict[str, int | None]:
    return {file.name: file.bytes for file in files}


def test_listing_joins_soft_and_filelist(tree: Tree, server: GeoServer, tmp_path: Path) -> None:
    over_http = site(server.base_url, tmp_path / "h")
    listing = over_http.series_listing("GSE1234")
    raw = len(tree.series_files["GSE1234_RAW.tar"])
    assert sizes(listing.own) == {
        "GSE1234_all.genes.tsv.gz": None,
        "GSE1234_tsne.tsv.gz": None,
        "GSE1234_RAW.tar": raw,
    }
    members = {name: len(content) for files in tree.sample_files.values() for name, content in files.items()}
    assert sizes(listing.members) == members
    assert {file.owner for file in listing.own} == {"GSE1234"}
    assert [file.owner for file in listing.members] == ["GSM50001"] * 2 + ["GSM50002"] * 2
    assert listing.members[0].url == f"{server.base_url}{SAMPLES[4:]}/GSM50001/suppl/GSM50001_a.mtx.gz"
    assert {file.archive_url for file in listing.members} == {f"{server.base_url}{SERIES[4:]}/suppl/GSE1234_RAW.tar"}
    tree_base = tree.path("/geo").as_uri()
    from_tree = site(tree_base, tmp_path / "f").series_listing("GSE1234")
    assert repr(from_tree).replace(tree_base, server.base_url) == repr(listing)


def test_a_second_run_asks_nothing(tree: Tree, server: GeoServer, tmp_path: Path) -> None:
    tree.path(f"{SERIES}/suppl/filelist.txt").unlink()
    first = site(server.base_url, tmp_path)
    listing, files = first.series_listing("GSE1234"), first.sample_files("GSM50001", "GSE1234")
    server.forget()
    again = site(server.base_url, tmp_path)
    assert (again.series_listing("GSE1234"), again.sample_files("GSM50001", "GSE1234")) == (listing, files)
    assert server.requests == []


def test_a_file_tree_that_changed_is_listed_anew(tree: Tree, tmp_path: Path) -> None:
    base = tree.path("/geo").as_uri()
    before = site(base, tmp_path).series_listing("GSE1234")
    tree.series_files["GSE1234_new.csv.gz"] = b""
    tree.write_soft()
    after = site(base, tmp_path).series_listing("GSE1234")
    assert {file.name for file in after.own} - {file.name for file in before.own} == {"GSE1234_new.csv.gz"}


def test_without_filelist_soft_tells(tree: Tree, server: GeoServer, tmp_path: Path) -> None:
    whole = site(server.base_url, tmp_path / "1").series_listing("GSE1234")
    tree.path(f"{SERIES}/suppl/filelist.txt").unlink()
    listing = site(server.base_url, tmp_path / "2").series_listing("GSE1234")
    assert [(file.name, file.url, file.owner, file.archive_url) for file in listing.members] == [
        (file.name, file.url, file.owner, file.archive_url) for file in whole.members
    ]
    assert set(sizes(listing.members).values()) == {None}


@pytest.mark.parametrize("filelist", ["with", "without"])
def test_without_soft_the_index_tells(tree: Tree, server: GeoServer, tmp_path: Path, filelist: str) -> None:
    tree.path(f"{SERIES}/soft/GSE1234_family.soft.gz").unlink()
    if filelist == "without":
        tree.path(f"{SERIES}/suppl/filelist.txt").unlink()
    there = site(server.base_url, tmp_path)
    listing = there.series_listing("GSE1234")
    assert set(sizes(listing.own)) == set(tree.series_files)
    names = {file.name for file in there.sample_files("GSM50001", "GSE1234")}
    assert names == set(tree.sample_files["GSM50001"])


def test_a_sample_alone_is_listed_by_its_folder(tree: Tree, server: GeoServer, tmp_path: Path) -> None:
    files = site(server.base_url, tmp_path).sample_files("GSM50002", None)
    assert [file.name for file in files] == sorted(tree.sample_files["GSM50002"])


def test_unknown_accessions_are_named(tree: Tree, server: GeoServer, tmp_path: Path) -> None:
    for base in (server.base_url, tree.path("/geo").as_uri()):
        there = site(base, tmp_path)
        with pytest.raises(UserError, match=r"GSE4321 is unknown at .*check the accession"):
            there.series("GSE4321")
        with pytest.raises(UserError, match="GSM99999 has no files"):
            there.sample_files("GSM99999", None)
        with pytest.raises(UserError, match="GSM99999 is not a sample of GSE1234, which holds GSM50001, GSM50002"):
            there.sample_files("GSM99999", "GSE1234")
        assert there.sample_files("GSM50003", "GSE1234") == ()


def test_addresses_are_encoded(tmp_path: Path) -> None:
    assert site("https://h/geo/", tmp_path).url("a", "b c%#.gz") == "https://h/geo/a/b%20c%25%23.gz"
