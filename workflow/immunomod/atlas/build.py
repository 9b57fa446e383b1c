"""All cells of an atlas on the genes that tell them apart: reduce, integrate, cluster, map and name.

Samples are read one at a time and only the columns of variable and marker genes are kept, so memory grows with
cells x about 2,200 genes. Samples stand in an order that follows from their cells: neither the order in which they are
given nor their names change anything. What holds Python's lock (clusters) and what needs no result of the rest (the
matrices of the atlas file) runs in processes of its own, beside the steps that use all threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod import __version__
from immunomod.atlas.annotate import Annotation, annotate
from immunomod.atlas.cluster import (
    absorb_small,
    cell_graph,
    choose_resolution,
    cluster_at,
    cut_at_borders,
    split_by,
    whole_groups,
)
from immunomod.atlas.components import Components, principal_components
from immunomod.atlas.embed import umap_layout
from immunomod.atlas.flags import FlagSettings, flag_clusters
from immunomod.atlas.integrate import Integration, IntegrationInput, integrate
from immunomod.atlas.integration.labels import provisional_labels
from immunomod.atlas.integration.learned import read_learned
from immunomod.atlas.markers import MarkerSet, load_markers
from immunomod.atlas.neighbors import fuzzy_connectivities, nearest_neighbors
from immunomod.atlas.ontology import schema_columns
from immunomod.atlas.overrides import Overrides, anchor_cells, overridden, read_overrides
from immunomod.atlas.ranks import rank_genes
from immunomod.atlas.reduce import Reduced, reduce_samples
from immunomod.atlas.settings import AtlasSettings
from immunomod.atlas.votes import ClassTree
from immunomod.atlas.witnesses import other_votes
from immunomod.atlas.write import AtlasFile, write_atlas
from immunomod.files import write_tsv
from immunomod.parallel import in_background, one_blas_thread
from immunomod.progress import Progress

if TYPE_CHECKING:
    from anndata import AnnData

# Groups that get named are finer than clusters: classes that one cluster holds (CD8 T and NK cells) are named apart.
# Their resolution does not follow the one that the user looks at, unless that is finer still.
_NAMING_RESOLUTION = 4.0
_SMALLEST_GROUP = 5
# What reaches into another cluster is a group of its own from so many cells, and from this share of its group.
_SMALLEST_PART, _SMALLEST_SHARE = 20, 0.05
# Below, a small atlas, which does not need all compiled loops.
_LARGE_BYTES = 200e6
_TOP_GENES = 5
# So many of a cluster's genes are looked at for its marks, however few are written.
_JUDGED_GENES = 50
_PACKAGES = ("anndata", "harmonypy", "igraph", "numpy", "pandas", "scikit-learn", "scipy")


@dataclass(frozen=True)
class Atlas:
    """The atlas and its tables, as written by :meth:`write`.

    ``adata``: ``X`` log-normalised float32 CSR on variable and marker genes; ``obs`` the samples' columns with
    ``cluster``, ``cell_class``, ``compartment``, ``lineage``, ``cell_class_confidence``; ``obsm`` ``X_pca``,
    ``X_<integration>``, ``X_umap``. ``sample_paths``: the files of its samples, which hold all genes. ``file``: where
    it is being written already.
    """

    adata: AnnData
    clusters: pd.DataFrame
    clustering: pd.DataFrame
    integration: pd.DataFrame
    markers: pd.DataFrame
    sample_paths: tuple[Path, ...]
    file: AtlasFile | None = None

    def write(self, h5ad: Path, folder: Path, threads: int = 1) -> None:
        """Write the atlas with all genes to ``h5ad``, sample by sample, and its tables into ``folder``."""
        for name in ("clusters", "clustering", "integration", "markers"):
            write_tsv(getattr(self, name), folder / f"{name}.tsv")
        if self.file is not None and self.file.path == h5ad:
            self.file.finish(self.adata)
        else:
            write_atlas(self.adata, self.sample_paths, h5ad, threads)


def build_atlas(
    sample_paths: Sequence[Path],
    markers_folder: Path,
    settings: AtlasSettings,
    seed: int,
    threads: int = 1,
    latent: Path | None = None,
    overrides: Path | None = None,
    h5ad: Path | None = None,
) -> Atlas:
    """Build one atlas from the ``filtered.h5ad`` of its samples.

    Parameters
    ----------
    sample_paths
        Files written by the sample floor. Samples without cells are skipped.
    markers_folder
        Folder with ``cell_classes.tsv`` and ``markers.tsv``.
    settings
        See :class:`~immunomod.atlas.settings.AtlasSettings`.
    seed
        For Harmony, Leiden, the map and the bootstraps. The same samples and seed give the same atlas, in whichever
        order the samples are given, however they are named, and on any number of ``threads``.
    latent
        What the rule ``train_scvi`` wrote, where a model was trained.
    overrides
        A table of the user's own classes (:mod:`immunomod.atlas.overrides`), which beat all evidence.
    h5ad
        Where the atlas will be written: with several threads its matrices are, beside this file, while clusters are
        sought. :meth:`Atlas.write` to it gives the file its name.

    Raises
    ------
    UserError
        No sample has cells, samples are of several organisms, cell names repeat, or the integration key is unknown.
    """
    with one_blas_thread():
        markers = load_markers(markers_folder)
        given = None if overrides is None else read_overrides(overrides, markers)
        progress = Progress("atlas")
        if sum(path.stat().st_size for path in sample_paths if path.is_file()) > _LARGE_BYTES:
            in_background(_compile_kernels, threads)  # what it compiles lies in numba's cache when it is asked for
        reduced = reduce_samples(sample_paths, markers, settings.n_variable_genes, threads)
        progress(f"read {len(reduced.obs):,} cells x {len(reduced.var):,} genes of {len(sample_paths)} samples")
        by_name = sorted(reduced.samples, key=lambda sample: sample.sample)
        file = None if h5ad is None else AtlasFile(by_name, h5ad, threads)
        try:
            atlas = _build(reduced, progress, markers, markers_folder, settings, seed, threads, latent, given)
        except BaseException:
            if file is not None:
                file.discard()
            raise
        return replace(atlas, file=file)


def _build(
    reduced: Reduced,
    progress: Progress,
    markers: MarkerSet,
    markers_folder: Path,
    settings: AtlasSettings,
    seed: int,
    threads: int,
    latent: Path | None,
    overrides: Overrides | None,
) -> Atlas:
    variable = reduced.var["highly_variable"].to_numpy(dtype=bool)
    components = principal_components(
        sparse.csr_matrix(reduced.expression[:, variable]), settings.n_components, threads
    )
    progress("principal components")
    data = IntegrationInput(
        components.scores,
        reduced.obs,
        lambda cells: provisional_labels(reduced, markers, cells, seed),
        read_learned(latent, reduced.obs.index) if latent else {},
    )
    integration = integrate(data, settings, seed, threads)
    progress(f"integration: {integration.method} over {integration.key}")

    n_neighbors = _fitting_neighbors(settings.n_neighbors, len(reduced.obs))
    neighbors = integration.neighbors or nearest_neighbors(integration.coordinates, n_neighbors, threads)
    connectivities = fuzzy_connectivities(neighbors, threads)
    progress("neighbours")
    import igraph  # noqa: F401  imported before processes are forked, so that not each of them has to
    import sklearn.metrics  # noqa: F401

    clustered = in_background(
        lambda: _cluster(connectivities, integration.coordinates, settings.leiden_resolution, seed, threads), threads
    )
    layout = umap_layout(connectivities, integration.coordinates, seed, threads)
    progress("map")
    leiden, fine, clustering = clustered()
    progress(f"clusters: {leiden.max() + 1} and {fine.max() + 1} finer groups")
    symbols = pd.Index(reduced.var["gene_symbol"])
    others = other_votes(reduced, markers, markers_folder, settings.annotation, seed, threads)
    tissues = set(reduced.obs["msc_source"]) if "msc_source" in reduced.obs else set()
    total = reduced.obs["total_counts"].to_numpy(dtype=float) if "total_counts" in reduced.obs else None
    everywhere = (reduced.var["n_samples"] == len(reduced.samples)).to_numpy(dtype=bool)
    annotation = annotate(
        reduced.expression, symbols, connectivities, fine, markers, reduced.organism, settings.annotation, seed,
        others, tissues, threads, total, everywhere,
    )  # fmt: skip
    progress("classes")
    leiden = whole_groups(leiden, fine)
    cluster = split_by(leiden, annotation.group_class)

    given = pd.Series("", index=reduced.obs.index, dtype=object)
    if overrides is not None:
        given = overridden(overrides, reduced.obs.index, cluster)
    obs = _with_classes(reduced.obs, cluster, annotation, given, markers)
    paths = tuple(file.path for file in reduced.samples)
    ranked = rank_genes(paths, {name: obs[name] for name in ("cluster", "cell_class")}, threads,
                        max(settings.n_marker_genes, _JUDGED_GENES))  # fmt: skip
    progress("marker genes")
    clusters = _cluster_table(obs, leiden, fine, annotation, given, ranked, markers, settings.marks)
    clusters["anchor_cells"] = clusters["cluster"].map(anchor_cells(reduced.obs.index, cluster, connectivities))
    for name, values in schema_columns(obs, markers.classes).items():
        obs[name] = values
    adata = _assemble(reduced, obs, components, integration)
    adata.obsm["X_umap"] = layout
    adata.uns["default_embedding"] = "X_umap"
    adata.uns["immunomod"] = {
        "floor": "atlas",
        "settings": settings.as_dict(),
        "seed": seed,
        "organism": reduced.organism,
        "integration": integration.method,
        "integration_key": integration.key,
        "integration_reason": integration.reason,
        "integration_caution": integration.caution,
        "n_neighbors": n_neighbors,
        "leiden_resolution": float(clustering.query("chosen and purpose == 'clusters'")["resolution"].iloc[0]),
        "pca_variance_ratio": components.variance_ratio,
        "versions": _versions(),
        "clusters": clusters.astype({"cluster": str}).set_index("cluster"),
    }
    adata = adata[np.argsort(adata.obs["sample"].to_numpy(dtype=str), kind="stable")].copy()
    written = ranked[ranked["rank"] <= settings.n_marker_genes].reset_index(drop=True)
    return Atlas(adata, clusters, clustering, integration.table, written, paths)


def _compile_kernels() -> None:
    """Have the compiled loops of the later steps compiled, which a fresh installation does once, for some seconds."""
    for name in ("components", "neighbors", "embed", "ranks"):
        import_module(f"immunomod.atlas.{name}_kernel")


# --- batches ---------------------------------------------------------------------------------------------------------


def _fitting_neighbors(wanted: int, n_cells: int) -> int:
    """Fewer neighbours in small atlases, so that a neighbourhood does not reach across classes."""
    return max(2, min(wanted, round(float(np.sqrt(n_cells)))))


# --- clusters and classes --------------------------------------------------------------------------------------------


def _cluster(
    connectivities: sparse.csr_matrix,
    coordinates: NDArray[np.float32],
    wanted: float | str,
    seed: int,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], pd.DataFrame]:
    """Clusters, the finer groups that get named, and the table of both."""
    graph = cell_graph(connectivities, seed)
    naming = max(_NAMING_RESOLUTION, wanted) if isinstance(wanted, float) else _NAMING_RESOLUTION
    finer_groups = in_background(lambda: cluster_at(graph.graph, naming, seed), threads)
    chosen, table = choose_resolution(graph, coordinates, wanted, seed, threads)
    finer = finer_groups()
    parts = cut_at_borders(finer.labels[graph.node_of_cell], chosen, _SMALLEST_PART, _SMALLEST_SHARE)
    fine = absorb_small(parts, connectivities, _SMALLEST_GROUP)
    sizes = np.bincount(fine)
    table.insert(0, "purpose", "clusters")
    table.loc[len(table)] = {
        "purpose": "groups that are named",
        "resolution": finer.resolution,
        "n_clusters": len(sizes),
        "smallest_cluster": int(sizes.min()),
        "stability_ari": finer.stability_ari,
        "subsample_ari": finer.subsample_ari,
        "silhouette": np.nan,
        "modularity": finer.modularity,
        "chosen": True,
        "reason": "fine, so that the classes one cluster holds are named apart",
    }
    return chosen, fine, table


def _with_classes(
    obs: pd.DataFrame, cluster: NDArray[np.object_], annotation: Annotation, given: pd.Series, markers: MarkerSet
) -> pd.DataFrame:
    classes = markers.classes
    by_user = (given != "").to_numpy()
    cell_class = pd.Series(np.where(by_user, given, annotation.cell_class), index=obs.index)
    return obs.assign(
        cluster=pd.Categorical(cluster, categories=_natural_order(set(cluster))),
        cell_class=cell_class,
        compartment=cell_class.map(classes["compartment"]).astype(str),
        lineage=cell_class.map(classes["lineage"]).astype(str),
        cell_class_confidence=np.where(by_user, np.float32(1), annotation.cell_confidence),
        cell_class_from=pd.Categorical(np.where(by_user, "user", "evidence"), categories=["evidence", "user"]),
        witnesses=_agreeing(annotation, cell_class, by_user, markers),
        **({f"cell_class_{name}": said for name, said in annotation.said.items()} if len(annotation.said) > 1 else {}),
    )


def _agreeing(
    annotation: Annotation, cell_class: pd.Series, by_user: NDArray[np.bool_], markers: MarkerSet
) -> pd.Series:
    """The witnesses that agree with every cell's class, the user among them."""
    tree = ClassTree.of(markers)
    classes = pd.Index(tree.names)
    agreeing = pd.Series(np.where(by_user, "user", ""), index=cell_class.index)
    chosen = classes.get_indexer(pd.Index(cell_class))
    for name, said in annotation.said.items():
        agrees = tree.related(chosen, classes.get_indexer(pd.Index(said))) & (chosen != tree.unassigned)
        agreeing = agreeing.where(~agrees, agreeing + np.where(agreeing == "", name, f",{name}"))
    return agreeing.astype("category")


def _natural_order(labels: set[str]) -> list[str]:
    return sorted(labels, key=lambda label: (int(label.rstrip("abcdefghijklmnopqrstuvwxyz")), label))


def _cluster_table(
    obs: pd.DataFrame,
    leiden: NDArray[np.int64],
    fine: NDArray[np.int64],
    annotation: Annotation,
    given: pd.Series,
    ranked: pd.DataFrame,
    markers: MarkerSet,
    marks: FlagSettings,
) -> pd.DataFrame:
    """One row per cluster: its class, how sure, what came second, its cells, its genes, its marks."""
    flags = flag_clusters(obs, marks, ranked).set_index("cluster")
    genes = ranked[(ranked["grouping"] == "cluster") & (ranked["rank"] <= _TOP_GENES)].groupby("group")["gene_symbol"]
    top_genes = genes.agg(",".join)
    groups = annotation.groups
    rows = []
    for cluster in obs["cluster"].cat.categories:
        cells = (obs["cluster"] == cluster).to_numpy()
        parts = pd.Series(fine[cells]).value_counts().sort_index()
        of = groups.loc[parts.index]
        main = of.iloc[int(parts.to_numpy().argmax())]
        share = parts.to_numpy() / parts.sum()
        by_user = given.to_numpy()[cells]
        set_by_user = len(set(by_user)) == 1 and by_user[0] != ""
        cell_class = by_user[0] if set_by_user else main["cell_class"]
        rows.append(
            {
                "cluster": cluster,
                "leiden": int(leiden[cells][0]),
                "cell_class": cell_class,
                "proposed_class": main["cell_class"],
                "compartment": markers.classes.loc[cell_class, "compartment"],
                "lineage": markers.lineage(cell_class),
                "confidence": float(of["confidence"].to_numpy() @ share),
                "score": float(of["score"].to_numpy() @ share),
                "runner_up": main["runner_up"],
                "runner_up_score": float(of["runner_up_score"].to_numpy() @ share),
                "n_cells": int(cells.sum()),
                "n_samples": int(obs["sample"][cells].nunique()),
                "top_markers": main["top_markers"],
                "witnesses": main["witnesses"],
                "top_genes": top_genes.get(cluster, ""),
                "marks": flags.loc[cluster, "marks"],
                "marks_reason": flags.loc[cluster, "marks_reason"],
                "reason": "set by the user" if set_by_user else main["reason"],
            }
        )
    return pd.DataFrame(rows)


# --- tables and the file ---------------------------------------------------------------------------------------------


def _assemble(reduced: Reduced, obs: pd.DataFrame, components: Components, integration: Integration) -> AnnData:
    from anndata import AnnData

    var = reduced.var.copy()
    var.index = var.index.astype(str)
    adata = AnnData(X=reduced.expression, obs=obs, var=var)
    adata.obsm["X_pca"] = components.scores
    if integration.coordinates is not components.scores:
        adata.obsm[f"X_{integration.method}"] = integration.coordinates
    loadings = np.zeros((adata.n_vars, components.loadings.shape[1]), dtype=np.float32)
    loadings[var["highly_variable"].to_numpy(dtype=bool)] = components.loadings
    adata.varm["PCs"] = loadings
    return adata


def _versions() -> Mapping[str, Any]:
    found = {"immunomod": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
