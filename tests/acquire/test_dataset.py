"""From sheet rows to a manifest: GEO over http and file, local files, archives, reruns, and the user's mistakes."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from geo_server import Fault, GeoServer
from geo_tree import SAMPLES, SERIES, Tree, acquired_files, noise, tar_bytes, zip_bytes

from immunomod.acquire.archive import UnpackLimits
from immunomod.acquire.dataset import MANIFEST_COLUMNS, AcquireSettings, base_address
from immunomod.acquire.download import TransferSettings
from immunomod.errors import UserError
from immunomod.files import sha256

Sheet = Callable[..., pd.DataFrame]
Acquire = Callable[..., pd.DataFrame]


@pytest.fixture
def acquire(tree: Tree, server: GeoServer, tmp_path: Path, settings: AcquireSettings, sheet: Sheet) -> Acquire:
    (tmp_path / "sheets").mkdir()

    def run(
        *rows: dict[str, str], base_url: str = server.base_url, dataset: str = "GSE1234", folder: str = "out"
    ) -> pd.DataFrame:
        return acquired_files(
            dataset, sheet(*rows), base_url, tmp_path / folder, tmp_path / "sheets", settings, "my_samples.tsv"
        )

    return run


def files_of(manifest: pd.DataFrame, sample: str) -> list[str]:
    return sorted(manifest.loc[manifest["sample"] == sample, "file"])


ONE = {"sample": "ctrl", "source": "GSM50001"}
TWO = {"sample": "stim", "source": "GSM50002"}


def test_samples_by_accession_with_shared_files(acquire: Acquire, server: GeoServer, tmp_path: Path) -> None:
    rows = [{**row, "cells": "GSE1234_tsne.tsv.gz"} for row in (ONE, TWO)]
    manifest = acquire(*rows)
    assert list(manifest.columns) == MANIFEST_COLUMNS
    assert files_of(manifest, "") == ["GSE1234_all.genes.tsv.gz", "GSE1234_tsne.tsv.gz"]
    assert files_of(manifest, "ctrl") == ["GSM50001_a.mtx.gz", "GSM50001_barcodes.tsv.gz"]
    assert files_of(manifest, "stim") == ["GSM50002_b.mtx.gz", "GSM50002_barcodes.tsv.gz"]
    assert list(manifest.loc[manifest["role"] == "cells", "file"]) == ["GSE1234_tsne.tsv.gz"]
    for row in manifest.itertuples():
        assert Path(row.path).stat().st_size == row.bytes and sha256(row.path) == row.sha256
        assert row.url.startswith(server.base_url) and row.url.endswith(row.file)
        assert Path(row.path).is_relative_to(tmp_path / "out" / "files")
    assert "GSE1234_RAW.tar" not in server.requested()
    assert len(server.requests) == 2 + 6  # SOFT and filelist, then each file once
    assert manifest.attrs["metadata"] == ["GSE1234_family.soft.gz", "GSE1234_filelist.txt"]


def test_a_second_run_downloads_nothing_and_says_the_same(acquire: Acquire, server: GeoServer) -> None:
    first = acquire(ONE, TWO)
    server.forget()
    pd.testing.assert_frame_equal(acquire(ONE, TWO), first)
    assert server.requests == []


def test_a_second_run_mends_only_what_is_harmed(acquire: Acquire, server: GeoServer) -> None:
    first = acquire(ONE, TWO)
    Path(first.loc[first["file"] == "GSM50002_b.mtx.gz", "path"].item()).write_bytes(b"harmed")
    server.forget()
    again = acquire(ONE, TWO)
    assert server.requested() == ["GSM50002_b.mtx.gz"]
    assert again.drop(columns="retrieved").equals(first.drop(columns="retrieved"))


def test_http_file_and_plain_path_give_the_same_bytes(acquire: Acquire, tree: Tree) -> None:
    columns = ["dataset", "sample", "file", "bytes", "sha256", "role"]
    over_http = acquire(ONE, TWO)[columns]
    for number, base in enumerate((tree.path("/geo").as_uri(), tree.path("/geo").as_uri() + "/", tree.path("/geo"))):
        pd.testing.assert_frame_equal(acquire(ONE, TWO, base_url=str(base), folder=f"f{number}")[columns], over_http)


def test_every_listing_gives_the_same(acquire: Acquire, tree: Tree) -> None:
    columns = ["sample", "file", "bytes", "sha256", "role"]
    whole = acquire(ONE, TWO)[columns]
    tree.path(f"{SERIES}/suppl/filelist.txt").unlink()
    pd.testing.assert_frame_equal(acquire(ONE, TWO, folder="soft only")[columns], whole)
    tree.path(f"{SERIES}/soft/GSE1234_family.soft.gz").unlink()
    pd.testing.assert_frame_equal(acquire(ONE, TWO, folder="index only")[columns], whole)


@pytest.mark.parametrize("how", ["pattern", "name", "title"])
def test_samples_by_series(acquire: Acquire, how: str) -> None:
    rows = {
        "pattern": [
            {"sample": "ctrl", "source": "GSE1234", "files": "GSM50001_*"},
            {"sample": "stim", "source": "GSE1234", "files": "*_b.mtx.gz"},
        ],
        "name": [{"sample": "GSM50001", "source": "GSE1234"}, {"sample": "GSM50002", "source": "GSE1234"}],
        "title": [{"sample": "donor 1", "source": "GSE1234"}, {"sample": "donor 2", "source": "GSE1234"}],
    }[how]
    manifest = acquire(*rows, dataset="mine")
    assert files_of(manifest, rows[0]["sample"]) == ["GSM50001_a.mtx.gz", "GSM50001_barcodes.tsv.gz"]
    assert files_of(manifest, rows[1]["sample"]) == ["GSM50002_b.mtx.gz", "GSM50002_barcodes.tsv.gz"]
    assert files_of(manifest, "") == ["GSE1234_all.genes.tsv.gz"]


def test_files_that_stand_only_in_the_archive(acquire: Acquire, tree: Tree, server: GeoServer) -> None:
    whole = acquire(ONE, TWO, folder="whole")
    for gsm, files in tree.sample_files.items():
        for name in files:
            tree.path(f"{SAMPLES}/{gsm}/suppl/{name}").unlink()
    server.forget()
    manifest = acquire(ONE, TWO)
    columns = ["sample", "file", "bytes", "sha256", "role"]
    by_file = manifest[columns].sort_values(["sample", "file"], ignore_index=True)
    pd.testing.assert_frame_equal(by_file, whole[columns].sort_values(["sample", "file"], ignore_index=True))
    assert server.requested().count("GSE1234_RAW.tar") == 1
    assert manifest.loc[manifest["file"] == "GSM50001_a.mtx.gz", "url"].item() == (
        f"{server.base_url}{SERIES[4:]}/suppl/GSE1234_RAW.tar#GSM50001_a.mtx.gz"
    )


def test_a_series_of_which_only_the_archive_is_known(acquire: Acquire, tree: Tree, server: GeoServer) -> None:
    tree.sample_files = {"GSM50001": {}, "GSM50002": {}}  # SOFT names no file of a sample
    tree.write_soft()
    tree.path(f"{SERIES}/suppl/filelist.txt").unlink()
    manifest = acquire({"sample": "ctrl", "source": "GSE1234", "files": "GSM50001_*"})
    assert files_of(manifest, "ctrl") == ["GSM50001_a.mtx.gz", "GSM50001_barcodes.tsv.gz"]
    with pytest.raises(UserError, match=r"row 2, column files: no file in GSE1234_RAW\.tar fits GSM7\*"):
        acquire({"sample": "ctrl", "source": "GSE1234", "files": "GSM7*"})


def test_an_archive_that_arrives_damaged_is_fetched_again(acquire: Acquire, tree: Tree, server: GeoServer) -> None:
    for gsm, files in tree.sample_files.items():
        for name in files:
            tree.path(f"{SAMPLES}/{gsm}/suppl/{name}").unlink()
    raw = f"{SERIES}/suppl/GSE1234_RAW.tar"
    server.fault(raw, Fault(corrupt_at=5_000))  # within the first member, which is a gzip
    manifest = acquire(ONE, TWO)
    assert len(manifest) == 5
    assert server.requested().count("GSE1234_RAW.tar") == 2
    server.fault(raw, *[Fault(corrupt_at=5_000)] * 2)
    with pytest.raises(UserError, match=r"row 2, column source: GSE1234_RAW\.tar holds a damaged file, GSM50001_a"):
        acquire(ONE, TWO, folder="other")


def test_a_sample_that_is_an_archive(acquire: Acquire, tree: Tree, tmp_path: Path) -> None:
    folder = {
        f"s1/{name}": gzip.compress(noise(3, 99)) for name in ("matrix.mtx.gz", "genes.tsv.gz", "barcodes.tsv.gz")
    }
    tree.sample_files["GSM50001"] = {"GSM50001_s1.tar.gz": tar_bytes({**folder, "s1/web_summary.html": b"x"}, "w:gz")}
    tree.write(f"{SAMPLES}/GSM50001/suppl/GSM50001_s1.tar.gz", tree.sample_files["GSM50001"]["GSM50001_s1.tar.gz"])
    tree.write_soft()
    tree.write_filelist()
    manifest = acquire(ONE)
    assert files_of(manifest, "ctrl") == ["barcodes.tsv.gz", "genes.tsv.gz", "matrix.mtx.gz"]
    assert files_of(acquire({**ONE, "files": "s1/matrix*"}), "ctrl") == ["matrix.mtx.gz"]
    assert len(files_of(acquire({**ONE, "files": "GSM50001_s1.tar.gz"}), "ctrl")) == 4
    assert "GSM50001_s1.tar.gz" in acquire(ONE).attrs["metadata"]


TRIPLET = {name: gzip.compress(noise(5, 400)) for name in ("matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz")}


@pytest.mark.parametrize("listed", ["by sample", "in RAW.tar only"])
@pytest.mark.parametrize(
    ("name", "content", "folder"),
    [
        ("GSM50001_ac01.tar.gz", tar_bytes(TRIPLET, "w:gz"), ""),  # GSE151511: a tar of tar.gz
        ("GSM50001_BM1.tar", tar_bytes({f"BM1/{n}": c for n, c in TRIPLET.items()}), "BM1/"),  # GSE147287: of folders
        ("GSM50001_S1.zip", zip_bytes({f"S1/{n}": c for n, c in TRIPLET.items()}), "S1/"),  # GSE264607: of zips
    ],
    ids=["GSE151511", "GSE147287", "GSE264607"],
)
def test_archives_as_real_series_have_them(
    acquire: Acquire, tree: Tree, listed: str, name: str, content: bytes, folder: str
) -> None:
    tree.offer({"GSM50001": {name: content}, "GSM50002": {name.replace("50001", "50002"): content}})
    raw = tar_bytes({n: c for files in tree.sample_files.values() for n, c in files.items()})
    tree.write(f"{SERIES}/suppl/GSE1234_RAW.tar", raw)
    tree.series_files["GSE1234_RAW.tar"] = raw
    tree.write_filelist()
    if listed == "in RAW.tar only":
        tree.path(f"{SAMPLES}/GSM50001/suppl/{name}").unlink()
    manifest = acquire(ONE)
    own = manifest[manifest["sample"] == "ctrl"]
    assert {Path(row.path).name: Path(row.path).read_bytes() for row in own.itertuples()} == TRIPLET
    assert all(f"#{'' if listed == 'by sample' else name + '/'}{folder}" in row.url for row in own.itertuples())


@pytest.mark.parametrize("name", ["GSM50001_all.7z", "GSM50001_all.rar", "GSM50001_all.tar.zst", "GSM50001_m.mtx.zst"])
def test_what_is_not_unpacked_here_says_so_before_it_is_fetched(
    acquire: Acquire, tree: Tree, server: GeoServer, tmp_path: Path, name: str
) -> None:
    tree.offer({"GSM50001": {name: noise(1, 500)}})
    with pytest.raises(UserError, match=rf"row 2, column source: {name} is packed as .*, which is not unpacked here"):
        acquire(ONE)
    assert name not in server.requested()
    (tmp_path / "sheets" / "lab").mkdir()
    (tmp_path / "sheets" / "lab" / name).write_bytes(noise(1, 500))
    with pytest.raises(UserError, match=rf"row 2, column source: {name} is packed as"):
        acquire({"sample": "s", "source": "lab"}, dataset="mine")
    tree.offer({"GSM50001": {"GSM50001_all.tar": tar_bytes({name: noise(1, 500), "notes.csv": b"x"})}})
    with pytest.raises(UserError, match=rf"row 2, column files: in GSM50001_all\.tar: {name} is packed as"):
        acquire(ONE, folder="other")
    assert len(acquire({**ONE, "files": "notes.csv"}, folder="third")) == 1


def test_a_local_file_that_cannot_be_read_is_a_message(
    acquire: Acquire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sheets" / "m.csv").write_text("x")
    real = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "m.csv":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"row 2, column source: .*m\.csv cannot be read \(Permission denied\)"):
        acquire({"sample": "s", "source": "m.csv"}, dataset="mine")


def test_a_hostile_archive_names_the_row(acquire: Acquire, tree: Tree, tmp_path: Path) -> None:
    tree.sample_files["GSM50001"] = {"GSM50001_s1.tar": tar_bytes({"../../../x.csv": b"x"})}
    tree.write(f"{SAMPLES}/GSM50001/suppl/GSM50001_s1.tar", tree.sample_files["GSM50001"]["GSM50001_s1.tar"])
    tree.write_soft()
    tree.write_filelist()
    with pytest.raises(UserError, match=r"my_samples\.tsv row 2, column source: .*unsafe name '\.\./\.\./\.\./x\.csv'"):
        acquire(ONE)
    assert not list(tmp_path.rglob("x.csv"))


def test_a_hostile_listing_names_the_row(acquire: Acquire, tree: Tree) -> None:
    tree.write(f"{SERIES}/suppl/filelist.txt", b"File\t../../evil.gz\tt\t1\tX\n")
    with pytest.raises(UserError, match=r"row 2, column source: .*unsafe name"):
        acquire(ONE)


def test_transient_404s_of_listed_files_are_survived(acquire: Acquire, server: GeoServer) -> None:
    server.fault(f"{SERIES}/suppl/GSE1234_all.genes.tsv.gz", Fault(status=404), Fault(status=404))
    server.fault(f"{SERIES}/soft/GSE1234_family.soft.gz", Fault(status=404))
    assert len(acquire(ONE)) == 3


def test_local_folder_is_used_in_place(acquire: Acquire, server: GeoServer, tmp_path: Path) -> None:
    folder = tmp_path / "sheets" / "lab" / "filtered"
    folder.mkdir(parents=True)
    for name in ("matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"):
        (folder / name).write_bytes(gzip.compress(b"x"))
    for name in (".hidden", "possorted.bam", "web_summary.html"):
        (folder / name).write_bytes(b"x")
    os.utime(folder / "matrix.mtx.gz", (0, 86_400))
    manifest = acquire({"sample": "s", "source": "lab"}, dataset="mine")
    assert files_of(manifest, "s") == ["barcodes.tsv.gz", "features.tsv.gz", "matrix.mtx.gz"]
    matrix = manifest[manifest["file"] == "matrix.mtx.gz"].iloc[0]
    assert matrix["path"] == str(folder / "matrix.mtx.gz")
    assert (matrix["url"], matrix["retrieved"]) == ("", "1970-01-02T00:00:00Z")
    assert not (tmp_path / "out" / "files").exists()
    assert server.requests == []
    named = acquire({"sample": "s", "source": str(folder), "files": "*.mtx.gz,*.bam"}, dataset="mine")
    assert files_of(named, "s") == ["matrix.mtx.gz", "possorted.bam"]


def test_local_file_brings_its_triplet(acquire: Acquire, tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    for name in ("a_matrix.mtx", "a_genes.tsv", "a_barcodes.tsv", "b_genes.tsv", "dense.csv"):
        (folder / name).write_text("x\n")
    rows = [{"sample": "s", "source": "a_matrix.mtx"}, {"sample": "t", "source": "dense.csv"}]
    manifest = acquire(*rows, dataset="mine")
    assert files_of(manifest, "s") == ["a_barcodes.tsv", "a_genes.tsv", "a_matrix.mtx"]
    assert files_of(manifest, "t") == ["dense.csv"]


def test_local_archive_is_unpacked(acquire: Acquire, tmp_path: Path) -> None:
    (tmp_path / "sheets" / "s.tar.gz").write_bytes(tar_bytes({"d/a.csv": b"1\n", "d/b.csv": b"2\n"}, "w:gz"))
    manifest = acquire({"sample": "s", "source": "s.tar.gz", "files": "b.csv"}, dataset="mine")
    assert [Path(path).read_bytes() for path in manifest["path"]] == [b"2\n"]


def test_cells_table_from_disk_goes_before_the_series(acquire: Acquire, tmp_path: Path) -> None:
    table = tmp_path / "sheets" / "GSE1234_tsne.tsv.gz"
    table.write_bytes(gzip.compress(b"mine\n"))
    manifest = acquire({**ONE, "cells": table.name}, TWO)
    cells = manifest[manifest["role"] == "cells"]
    assert list(cells["path"]) == [str(table)]
    assert list(cells["sample"]) == ["ctrl"]  # the other sample does not use it


def test_a_local_matrix_can_take_its_cells_from_the_series(acquire: Acquire, tmp_path: Path) -> None:
    (tmp_path / "sheets" / "m.csv").write_text("x\n")
    manifest = acquire({"sample": "s", "source": "m.csv", "cells": "*tsne*"})
    assert sorted(manifest["file"]) == ["GSE1234_tsne.tsv.gz", "m.csv"]


def test_one_matrix_for_two_samples_must_be_meant(acquire: Acquire, tmp_path: Path) -> None:
    (tmp_path / "sheets" / "m.csv").write_text("x\n")
    rows = [{"sample": "s", "source": "m.csv"}, {"sample": "t", "source": "m.csv"}]
    with pytest.raises(UserError, match=r"row 3, column files: its source gives the same file \(m\.csv\) as row 2"):
        acquire(*rows, dataset="mine")
    lanes = [{**row, "cells_lane": row["sample"]} for row in rows]
    assert list(acquire(*lanes, dataset="mine")["sample"]) == ["s", "t"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"source": ""}, "column source: it is empty"),
        ({"source": "GSM50001x"}, "column source: 'GSM50001x' is no accession"),
        ({"source": "GPL570"}, "column source: 'GPL570' is no accession"),
        ({"source": "GSE7654"}, "column source: GSE7654 is unknown at"),
        ({"source": "GSM77777"}, "column source: GSM77777 is not a sample of GSE1234"),
        ({"source": "no/such.h5"}, r"column source: there is no file or folder .*no/such\.h5.*no GEO accession"),
        ({"source": "GSE1234"}, r"column files: GSE1234: the series holds GSM50001_a\.mtx\.gz, GSM50002_b\.mtx\.gz"),
        ({"source": "GSE1234", "files": "*.mtx.gz"}, "column files: .*fits matrices of several samples"),
        ({"source": "GSM50001", "files": "*.h5"}, r"column files: GSM50001: no file fits \*\.h5; there are"),
        ({"source": "GSM50003"}, "column files: GSM50003: the series holds"),
        ({"source": "GSM50001", "cells": "no.tsv"}, r"column cells: there is no file .*no\.tsv.*offers .*tsne"),
        ({"source": "GSM50001", "cells": "*"}, "column cells: .* fits several files"),
        ({"source": "empty"}, "column source: no file in .*empty could hold counts; there are no files"),
        ({"source": "cut.csv.gz"}, r"column source: .*cut\.csv\.gz is damaged: it ends too early"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_name_row_column_and_cure(
    acquire: Acquire, server: GeoServer, tmp_path: Path, row: dict[str, str], problem: str
) -> None:
    (tmp_path / "sheets" / "empty").mkdir()
    (tmp_path / "sheets" / "cut.csv.gz").write_bytes(gzip.compress(noise(1, 500))[:-50])
    with pytest.raises(UserError, match=rf"^my_samples\.tsv row 3, {problem}"):
        acquire(ONE, {"sample": "bad", **row})
    if not row["source"].startswith("cut"):
        assert not list((tmp_path / "out").rglob("*.mtx.gz"))  # nothing large was fetched for a mistake


def test_a_series_without_counts_is_refused(acquire: Acquire, tree: Tree) -> None:
    tree.sample_files["GSM50001"] = {"GSM50001.bam": b"x"}
    tree.write(f"{SAMPLES}/GSM50001/suppl/GSM50001.bam", b"x")
    tree.write_soft()
    tree.write_filelist()
    with pytest.raises(UserError, match="GSM50001 offers no file that could hold counts"):
        acquire(ONE)


def test_settings_come_from_the_config() -> None:
    settings = AcquireSettings.from_config(
        {"base_url": "x", "attempts": 2, "timeout_s": 5, "max_members": 7, "max_unpacked_bytes": 8}
    )
    assert settings == AcquireSettings(TransferSettings(attempts=2, timeout_s=5), UnpackLimits(members=7, bytes=8))
    with pytest.raises(UserError, match="unknown settings speed"):
        AcquireSettings.from_config({"speed": 9})


def test_base_addresses(tmp_path: Path) -> None:
    assert base_address("https://h/geo/") == "https://h/geo"
    assert base_address(str(tmp_path)) == tmp_path.resolve().as_uri()


KANG = [
    {"sample": "ctrl", "source": "GSM2560248", "cells": "GSE96583_batch2.total.tsne.df.tsv.gz"},
    {"sample": "stim", "source": "GSM2560249", "cells": "GSE96583_batch2.total.tsne.df.tsv.gz"},
]


def test_the_real_series_from_tree_and_server(
    shared: Path, tmp_path: Path, settings: AcquireSettings, sheet: Sheet
) -> None:
    """GSE96583 shares its genes table and its per-cell table at series level."""
    mirror = shared / "geo_mirror"
    manifests = {}
    with GeoServer(mirror) as server:
        for name, base in (("http", server.base_url), ("file", (mirror / "geo").as_uri())):
            manifests[name] = acquired_files("GSE96583", sheet(*KANG), base, tmp_path / name, tmp_path, settings)
    manifest = manifests["http"]
    columns = ["dataset", "sample", "file", "bytes", "sha256", "role"]
    pd.testing.assert_frame_equal(manifest[columns], manifests["file"][columns])
    assert files_of(manifest, "") == ["GSE96583_batch2.genes.tsv.gz", "GSE96583_batch2.total.tsne.df.tsv.gz"]
    assert files_of(manifest, "ctrl") == ["GSM2560248_2.1.mtx.gz", "GSM2560248_barcodes.tsv.gz"]
    assert files_of(manifest, "stim") == ["GSM2560249_2.2.mtx.gz", "GSM2560249_barcodes.tsv.gz"]
    originals = {path.name: sha256(path) for path in mirror.rglob("*.gz")}
    assert all(originals[row.file] == row.sha256 for row in manifest.itertuples())
