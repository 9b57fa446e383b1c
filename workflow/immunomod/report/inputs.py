"""What the report reads: one record of paths, and the tables behind them.

The report computes no statistic of its own. It reads what the floors above wrote, and every loader here tolerates a
table without rows: an empty stratum is a result to be shown, not an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from immunomod.files import read_tsv
from immunomod.tables import split_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from immunomod.programs import ProgramSet

PROGRAM_EFFECT_COLUMNS: tuple[str, ...] = (
    "contrast", "dataset", "cell_class", "program", "role", "n_test", "n_reference", "n_pairs", "cells_test",
    "cells_reference", "genes_found", "genes_total", "effect", "se", "ci_low", "ci_high", "df", "p_value", "fdr",
    "hedges_g", "p_sign_flip", "null_z", "effect_raw", "expected_sign", "agrees", "status", "reason",
)  # fmt: skip
_NUMERIC_EFFECT_COLUMNS = (
    "n_test", "n_reference", "n_pairs", "cells_test", "cells_reference", "genes_found", "genes_total", "effect", "se",
    "ci_low", "ci_high", "df", "p_value", "fdr", "hedges_g", "p_sign_flip", "null_z", "effect_raw",
)  # fmt: skip
_TEXT_NAMES = (
    "sample", "dataset", "donor", "condition", "contrast", "cell_class", "compartment", "lineage", "program", "role",
    "arm", "status", "reason", "verdict", "cluster", "runner_up", "gene", "expected_sign", "model",
    "group", "calling_method", "doublet_method", "hashtag_method", "organism", "block",
    # diseases, shares of cells, communication, potency
    "disease", "signature", "pushes", "fraction", "direction", "source", "target", "ligand", "receptor", "ligand_gene",
    "receptor_gene", "msc_donor", "msc_source", "component",
)  # fmt: skip
_TEXT_COLUMNS = dict.fromkeys(_TEXT_NAMES, str)


@dataclass(frozen=True)
class ReportInputs:
    """Paths of everything that the report shows.

    Attributes
    ----------
    samples_sheet, contrasts_sheet
        The user's two sheets.
    contrasts
        Folder of each contrast: ``program_effects.tsv``, ``genes/<cell_class>.tsv.gz``, and the tables that
        :class:`Contrast` names; those of later versions may be absent.
    qc
        ``samples/qc.tsv``, one row per sample.
    cells
        ``cells.tsv.gz`` of each sample, one row per droplet that may hold a cell.
    ambient, ranks
        ``ambient.tsv`` and ``barcode_ranks.tsv`` of each sample; runs of older versions wrote none.
    atlases
        ``<atlas>.h5ad`` of each atlas; the folder of the same name beside it holds ``clusters.tsv``,
        ``integration.tsv``, ``clustering.tsv`` and, where genes were ranked, ``markers.tsv``.
    synthesis
        ``program_meta.tsv``; beside it ``potency.tsv``, ``suppression.tsv`` and ``variance.tsv``.
    pseudobulks
        Folder of ``<dataset>.leakage.tsv``.
    coverage
        ``check/coverage.tsv``: the genes of each programme that each data set lists.
    ledger, config, versions
        ``ledger.tsv``, the resolved configuration (YAML), and ``versions.tsv`` (name, version).
    """

    samples_sheet: Path
    contrasts_sheet: Path
    contrasts: Mapping[str, Path]
    qc: Path
    cells: Mapping[str, Path]
    ambient: Mapping[str, Path]
    ranks: Mapping[str, Path]
    atlases: Mapping[str, Path]
    synthesis: Path
    pseudobulks: Path
    coverage: Path
    ledger: Path
    config: Path
    versions: Path

    @classmethod
    def from_results(
        cls,
        results: Path,
        *,
        samples_sheet: Path,
        contrasts_sheet: Path,
        samples: Iterable[str],
        contrasts: Iterable[str],
        atlases: Iterable[str],
    ) -> ReportInputs:
        """Paths by the layout of ``results/``. Names are given, not searched for: leftovers of old runs stay out."""
        of_sample = {name: results / "samples" / name for name in samples}
        return cls(
            samples_sheet=samples_sheet,
            contrasts_sheet=contrasts_sheet,
            contrasts={name: results / "contrasts" / name for name in contrasts},
            qc=results / "samples" / "qc.tsv",
            cells={name: folder / "cells.tsv.gz" for name, folder in of_sample.items()},
            ambient={name: folder / "ambient.tsv" for name, folder in of_sample.items()},
            ranks={name: folder / "barcode_ranks.tsv" for name, folder in of_sample.items()},
            atlases={name: results / "atlas" / f"{name}.h5ad" for name in atlases},
            synthesis=results / "synthesis" / "program_meta.tsv",
            pseudobulks=results / "pseudobulk",
            coverage=results / "check" / "coverage.tsv",
            ledger=results / "ledger.tsv",
            config=results / "provenance" / "config.yaml",
            versions=results / "provenance" / "versions.tsv",
        )


@dataclass(frozen=True)
class Contrast:
    """Tables of one contrast.

    Attributes
    ----------
    sheet
        Its row of the contrasts sheet (empty where the sheet has no such row).
    effects
        ``program_effects.tsv`` joined with ``title``, ``caveat``, ``sign_confidence`` and ``positive_control``.
    genes
        Gene table of each cell class.
    fractions, enrichment, communication, disease, msc_scores, program_genes
        ``program_enrichment.tsv`` and the tables of these names; without columns where the run wrote none.
    """

    name: str
    sheet: Mapping[str, str]
    effects: pd.DataFrame
    scores: pd.DataFrame
    composition: pd.DataFrame
    design: pd.DataFrame
    genes: Mapping[str, pd.DataFrame]
    fractions: pd.DataFrame = field(default_factory=pd.DataFrame)
    enrichment: pd.DataFrame = field(default_factory=pd.DataFrame)
    communication: pd.DataFrame = field(default_factory=pd.DataFrame)
    disease: pd.DataFrame = field(default_factory=pd.DataFrame)
    msc_scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    program_genes: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Atlas:
    """What the report shows of one atlas: ``cells`` (obs and ``umap_1``, ``umap_2``) and its small tables.

    ``markers`` has no columns where the run ranked no genes.
    """

    name: str
    cells: pd.DataFrame
    clusters: pd.DataFrame
    integration: pd.DataFrame
    clustering: pd.DataFrame
    markers: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class ReportTables:
    """Every table of the report, read and typed."""

    samples: pd.DataFrame
    contrasts: list[Contrast]
    qc: pd.DataFrame
    cells: Mapping[str, pd.DataFrame]
    ambient: Mapping[str, pd.DataFrame]
    ranks: Mapping[str, pd.DataFrame]
    atlases: list[Atlas]
    synthesis: pd.DataFrame
    ledger: pd.DataFrame
    config: Mapping[str, Any]
    versions: pd.DataFrame
    programs: ProgramSet = field(repr=False)
    potency: pd.DataFrame = field(default_factory=pd.DataFrame)
    suppression: pd.DataFrame = field(default_factory=pd.DataFrame)
    variance: pd.DataFrame = field(default_factory=pd.DataFrame)
    coverage: pd.DataFrame = field(default_factory=pd.DataFrame)
    leakage: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def organisms(self) -> dict[str, str]:
        """Organism of each data set of the sheet; human where the sheet does not say."""
        return _organism_of_datasets(self.samples)

    @property
    def datasets(self) -> list[str]:
        """Data sets of the sheet, by name."""
        return sorted(set(self.samples.get("dataset", pd.Series(dtype=str))))


def load_tables(inputs: ReportInputs, programs: ProgramSet) -> ReportTables:
    """Read everything that ``inputs`` names; ``programs`` lends titles, caveats and which are positive controls."""
    sheet = _read_sheet(inputs.contrasts_sheet)
    rows = {row["contrast"]: row for row in records(sheet)} if "contrast" in sheet else {}
    samples = _read_sheet(inputs.samples_sheet)
    organisms = _organism_of_datasets(samples)
    synthesis = inputs.synthesis.parent
    return ReportTables(
        samples=samples,
        contrasts=[
            _load_contrast(name, folder, rows.get(name, {}), programs, organisms)
            for name, folder in inputs.contrasts.items()
        ],
        qc=_read(inputs.qc),
        cells={sample: _read(path) for sample, path in inputs.cells.items()},
        ambient={sample: _read_optional(path) for sample, path in inputs.ambient.items()},
        ranks={sample: _read_optional(path) for sample, path in inputs.ranks.items()},
        atlases=[_load_atlas(name, path) for name, path in inputs.atlases.items()],
        synthesis=_read_optional(inputs.synthesis),
        ledger=_read_optional(inputs.ledger),
        config=yaml.safe_load(inputs.config.read_text(encoding="utf-8")) or {},
        versions=_read_optional(inputs.versions),
        programs=programs,
        potency=_read_optional(synthesis / "potency.tsv"),
        suppression=_read_optional(synthesis / "suppression.tsv"),
        variance=_read_optional(synthesis / "variance.tsv"),
        coverage=_read_optional(inputs.coverage),
        leakage={
            dataset: _read_optional(inputs.pseudobulks / f"{dataset}.leakage.tsv")
            for dataset in sorted(set(samples.get("dataset", pd.Series(dtype=str))))
        },
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of ``table``, each by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def as_bool(values: pd.Series) -> NDArray[np.bool_]:
    """Truth of a column that may hold booleans, ``True``/``true``/``1`` as text, or nothing (false)."""
    return values.map(lambda value: str(value).strip().lower() in {"true", "1", "1.0", "yes"}).to_numpy(dtype=bool)


def _organism_of_datasets(samples: pd.DataFrame) -> dict[str, str]:
    """Organism of each dataset of the sheet; human where the sheet does not say."""
    if "dataset" not in samples or "organism" not in samples:
        return {}
    return {str(dataset): str(rows["organism"].iloc[0]) or "human" for dataset, rows in samples.groupby("dataset")}


def _load_contrast(
    name: str, folder: Path, sheet: Mapping[str, str], programs: ProgramSet, organisms: Mapping[str, str]
) -> Contrast:
    genes = {path.name.removesuffix(".tsv.gz"): _read(path) for path in sorted((folder / "genes").glob("*.tsv.gz"))}
    return Contrast(
        name=name,
        sheet=sheet,
        effects=_annotate(_read(folder / "program_effects.tsv"), programs, organisms),
        scores=_read_optional(folder / "program_scores.tsv"),
        composition=_read_optional(folder / "composition.tsv"),
        design=_read_optional(folder / "design.tsv"),
        genes=genes,
        fractions=_read_optional(folder / "fractions.tsv"),
        enrichment=_read_optional(folder / "program_enrichment.tsv"),
        communication=_read_optional(folder / "communication.tsv"),
        disease=_read_optional(folder / "disease.tsv"),
        msc_scores=_read_optional(folder / "msc_scores.tsv"),
        program_genes=_read_optional(folder / "program_genes.tsv"),
    )


def _annotate(effects: pd.DataFrame, programs: ProgramSet, organisms: Mapping[str, str]) -> pd.DataFrame:
    """Join what is known of each programme; a programme without metadata keeps its own name as its title."""
    effects = effects.reindex(columns=list(dict.fromkeys([*PROGRAM_EFFECT_COLUMNS, *effects.columns])))
    for column in _NUMERIC_EFFECT_COLUMNS:
        effects[column] = pd.to_numeric(effects[column], errors="coerce")
    for column in ("dataset", "cell_class", "program", "role", "expected_sign", "status", "reason"):
        effects[column] = effects[column].fillna("").astype(str)
    known = programs.table.reindex(effects["program"])
    for column in ("title", "caveat", "sign_confidence", "compartment", "positive_control_in"):
        effects[column] = known[column].fillna("").astype(str).to_numpy()
    effects["title"] = effects["title"].where(effects["title"] != "", effects["program"])
    effects["positive_control"] = [
        organisms.get(dataset, "human") in organism_list.split(",")
        for dataset, organism_list in zip(effects["dataset"], effects["positive_control_in"], strict=True)
    ]
    return effects


def _load_atlas(name: str, path: Path) -> Atlas:
    """Read ``obs`` and the map only: the matrix of a large atlas never enters memory."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        cells: pd.DataFrame = read_elem(file["obs"])
        umap = np.asarray(file["obsm/X_umap"][:, :2]) if "X_umap" in file["obsm"] else np.full((len(cells), 2), np.nan)
    cells = cells.assign(umap_1=umap[:, 0], umap_2=umap[:, 1])
    folder = path.parent / name
    return Atlas(
        name=name,
        cells=cells,
        clusters=_read_optional(folder / "clusters.tsv"),
        integration=_read_optional(folder / "integration.tsv"),
        clustering=_read_optional(folder / "clustering.tsv"),
        markers=_read_optional(folder / "markers.tsv"),
    )


def _read(path: Path) -> pd.DataFrame:
    """Table at ``path``; a file without even a header (an empty stratum) is a table without columns."""
    try:
        table: pd.DataFrame = read_tsv(path, dtype=_TEXT_COLUMNS)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return table


def _read_optional(path: Path) -> pd.DataFrame:
    """Table at ``path``, or one without rows where the run wrote none."""
    return _read(path) if path.exists() else pd.DataFrame()


def _read_sheet(path: Path) -> pd.DataFrame:
    """Sheet as the run reads it: every value as stripped text, empty where absent; no byte-order mark, no comments.

    The run validated it; what a run took is shown here whatever it holds.
    """
    (_, header), *rows = split_rows(path, path.read_text(encoding="utf-8-sig"))
    filled = [fields + [""] * (len(header) - len(fields)) for _, fields in rows]
    sheet = pd.DataFrame(filled, columns=[name.strip() for name in header], dtype=str)
    stripped: pd.DataFrame = sheet.apply(lambda column: column.str.strip())
    return stripped
