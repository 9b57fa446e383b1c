"""How many cells get their class, over many seeds: blood cells with their authors' classes, and simulated co-cultures.

Run from the repository: ``python benchmarks/naming.py [--seeds N] [--only STUDY ...] [--shared FOLDER]``.
Writes ``benchmarks/results/naming.tsv``, one row per study and seed; with
``--only``, the other studies keep their rows.

*GSE96583*: 2,000 blood cells of eight donors in two libraries, read from the mirror (``<shared>/geo_mirror``) and
processed by the workflow; the truth is the authors' class of eight, which the workflow reads but never uses. *half the
counts*: the same cells, every molecule kept with probability 0.5. *co-culture*: simulated studies of four donors, MSC
and seven immune classes, with 0, 10 and 20% of the partner's RNA, and a shallow one (a third of the molecules);
doublets and damaged cells are left out of the shares.

Only the atlas step is repeated, each time with another seed. ``class_share``, ``lineage_share``: cells that get their
class, their lineage. ``recall_*``, ``precision_*``: of the lineages T, NK and B, and of classes. ``false_msc``: immune
cells that are named MSC.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))
sys.path.insert(0, str(REPOSITORY / "tests"))

from immunomod.atlas.build import build_atlas  # noqa: E402
from immunomod.atlas.settings import AtlasSettings  # noqa: E402
from immunomod.files import write_h5ad  # noqa: E402
from immunomod.programs import load_programs  # noqa: E402
from immunomod.sample.process import log_normalise, process_sample  # noqa: E402
from immunomod.sample.settings import SampleSettings  # noqa: E402
from immunomod.simulate.settings import SimulationSettings  # noqa: E402
from immunomod.simulate.study import simulate_study  # noqa: E402
from support.gse96583 import AUTHORS_CLASSES  # noqa: E402

CONFIG = REPOSITORY / "config" / "examples" / "GSE96583" / "config.yaml"
LINEAGES = {
    **dict.fromkeys(("T", "CD4_T", "CD8_T", "Treg"), "T"),
    **dict.fromkeys(("monocyte", "CD14_monocyte", "CD16_monocyte", "macrophage"), "monocyte"),
    "plasma": "B",
    "pDC": "DC",
}
MEASURED = ("T", "NK", "B", "CD14_monocyte", "CD4_T", "CD8_T", "MSC")


def blood(folder: Path, shared: Path) -> tuple[list[Path], pd.Series]:
    """The two processed libraries of GSE96583, and the author's class of every cell."""
    mirror = (shared / "geo_mirror" / "geo").resolve().as_uri()
    names = [f"results/samples/{name}/filtered.h5ad" for name in ("ctrl", "stim")]
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(CONFIG), "--cores", "2", "--quiet", "--config", f"geo={{base_url: '{mirror}'}}"]
    subprocess.run([*command, "--", *names], check=True)
    paths = [folder / name for name in names]
    labels = pd.concat([anndata.read_h5ad(path, backed="r").obs["author_label"].astype(str) for path in paths])
    return paths, labels.map(AUTHORS_CLASSES)


def thinned_blood(folder: Path, shared: Path) -> tuple[list[Path], pd.Series]:
    """As :func:`blood`, with half the molecules."""
    paths, truth = blood(folder, shared)
    rng = np.random.default_rng(1)
    thin = []
    for path in paths:
        sample = anndata.read_h5ad(path)
        counts = sample.layers["counts"].tocsr().copy()
        counts.data = rng.binomial(counts.data.astype(np.int64), 0.5).astype(counts.data.dtype)
        counts.eliminate_zeros()
        sample.layers["counts"], sample.X = counts, log_normalise(counts)
        sample.obs["total_counts"] = np.asarray(counts.sum(axis=1)).ravel()
        thin.append(path.with_name("half.h5ad"))
        write_h5ad(sample, thin[-1])
    return thin, truth


def coculture(folder: Path, settings: SimulationSettings) -> tuple[list[Path], pd.Series]:
    """The processed libraries of a simulated study, and the class of every single undamaged cell."""
    programs = load_programs()
    study = simulate_study(replace(settings, seed=4000), programs)
    paths = []
    for sample, obs in study.adata.obs.groupby("sample", observed=True, sort=False):
        library = study.adata[obs.index].copy()
        truth = ["true_class", "true_doublet", "second_class", "damaged", "leaked_counts", "ambient_counts", "empty"]
        library.obs = obs.drop(columns=truth).assign(dataset="simulated")
        paths.append(folder / f"{sample}.h5ad")
        write_h5ad(process_sample(library, programs, SampleSettings()).filtered, paths[-1])
    obs = study.adata.obs
    return paths, obs["true_class"][~obs["true_doublet"] & ~obs["damaged"] & ~obs["empty"]].astype(str)


SIMULATED = {
    "co-culture": SimulationSettings(leakage=0.0),
    "co-culture, 10% leaked": SimulationSettings(leakage=0.1),
    "co-culture, 20% leaked": SimulationSettings(leakage=0.2),
    "co-culture, shallow": SimulationSettings(leakage=0.1, depth=SimulationSettings().depth / 3),
}
Source = Callable[[Path, Path], tuple[list[Path], pd.Series]]
STUDIES: dict[str, Source] = {
    "GSE96583": blood,
    "GSE96583, half the counts": thinned_blood,
    **{
        name: (lambda folder, shared, settings=settings: coculture(folder, settings))
        for name, settings in SIMULATED.items()
    },
}


def measures(found: pd.Series, truth: pd.Series) -> dict[str, float]:
    """Shares of cells named right, over the cells of which the truth is known."""
    cells = found.index.intersection(truth.dropna().index)
    wanted = truth[cells]
    named = found[cells].replace({"Treg": "CD4_T"})  # neither truth has a class for them
    lineage, right_lineage = named.replace(LINEAGES), wanted.replace(LINEAGES)
    row = {
        "n_cells": len(cells),
        "class_share": (named == wanted).mean(),
        "lineage_share": (lineage == right_lineage).mean(),
        "treg_share": (found[cells] == "Treg").mean(),
        "unassigned_share": (named == "unassigned").mean(),
        "false_msc": int(((named == "MSC") & (wanted != "MSC")).sum()),
    }
    for name in MEASURED:
        said, true = (lineage, right_lineage) if name in ("T", "NK", "B") else (named, wanted)
        if (true == name).any():
            row[f"recall_{name}"] = (said[true == name] == name).mean()
            row[f"precision_{name}"] = (true[said == name] == name).mean()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=tuple(STUDIES), default=tuple(STUDIES))
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    arguments = parser.parse_args()
    rows = []
    for study in arguments.only:
        if study.startswith("GSE96583") and not (arguments.shared / "geo_mirror").is_dir():
            print(f"{study} left out: {arguments.shared / 'geo_mirror'} does not exist")
            continue
        with tempfile.TemporaryDirectory() as folder:
            paths, truth = STUDIES[study](Path(folder), arguments.shared)
            for seed in range(1, arguments.seeds + 1):
                atlas = build_atlas(paths, REPOSITORY / "resources" / "markers", AtlasSettings(), seed, threads=2)
                rows.append(
                    {"study": study, "seed": seed, **measures(atlas.adata.obs["cell_class"].astype(str), truth)}
                )
                print({key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()})
    result = REPOSITORY / "benchmarks" / "results" / "naming.tsv"
    kept = pd.read_csv(result, sep="\t") if result.is_file() else pd.DataFrame({"study": []})
    table = pd.concat([kept[~kept["study"].isin(arguments.only)], pd.DataFrame(rows)])
    table.to_csv(result, sep="\t", index=False, float_format="%.4g")
    print(f"written to {result.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
