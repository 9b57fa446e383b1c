"""Build the tables of ligand-receptor pairs from the wheel of liana (README.md says what is in them).

    python resources/interactions/build.py [--wheels FOLDER]

The wheel is fetched with pip into FOLDER (a temporary one by default), checked against the sum below, and one data file
is read from it. liana itself is never installed: it brings scanpy, mudata, numba and plotnine, for two columns of text
that fit in 100 kB. The same wheel gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "1.10.0"
SHA256 = "f32393dfc5388462aa414b4068cb72965d9227baa9d9e83bdbd54d30a13c2e7e"
TABLE = "liana/resource/omni_resource.csv"
#: organism -> name of the resource in liana's table
RESOURCES = {"human": "consensus", "mouse": "mouseconsensus"}


def wheel(folder: Path) -> zipfile.ZipFile:
    """The wheel, fetched where the folder lacks it, refused where its sum differs."""
    path = folder / f"liana-{VERSION}-py3-none-any.whl"
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(folder), f"liana=={VERSION}"], check=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{path.name}: sha256 is {digest}, not {SHA256}")
    return zipfile.ZipFile(path)


def pairs_of(rows: list[dict[str, str]], resource: str) -> list[tuple[str, str]]:
    """Ligand and receptor of each pair of a resource, by name, each pair once."""
    pairs = {(row["source_genesymbol"], row["target_genesymbol"]) for row in rows if row["resource"] == resource}
    return sorted(pairs)


def main() -> None:
    """Write the tables of this folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="where the wheel is, or shall be kept")
    folder = parser.parse_args().wheels
    with tempfile.TemporaryDirectory() as temporary, wheel(folder or Path(temporary)) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read(TABLE).decode())))
    for organism, resource in RESOURCES.items():
        lines = ["\t".join(pair) for pair in (("ligand", "receptor"), *pairs_of(rows, resource))]
        (HERE / f"{organism}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
