"""A CellTypist model as a witness (Dominguez Conde et al. 2022, doi:10.1126/science.abl5197).

A model is a pickle, and a pickle runs what its author likes. It is read here by an unpickler that makes numbers and
text and nothing else: scikit-learn's objects become records of their attributes, any other name ends in a refusal. What
the package does with a model is little: log-normalised expression, standardised by the model's scaler and cut at 10
from above, times the coefficients, plus the intercept; the logistic of that is the probability of each label. That is
done here over blocks of rows, so that a model of 6,000 genes needs no matrix of all cells on them, and so that
celltypist and what it needs (scanpy, leidenalg, requests) is no dependency. Results are held against the package's own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from immunomod.atlas.class_names import classes_of
from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.sample_files import EXPRESSION, ROWS_AT_ONCE, RowReader, SampleFile
from immunomod.atlas.votes import Votes
from immunomod.errors import UserError
from immunomod.genes import GeneNames
from immunomod.parallel import for_each, row_blocks

_HIGHEST = 10.0
_FEWEST_GENES = 20


class _Record:
    """Attributes of an object of scikit-learn, without its class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _array(*_: object) -> NDArray[Any]:
    """An empty array, which the pickle fills."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _number(dtype: np.dtype[Any], data: bytes = b"") -> Any:
    if dtype.hasobject:
        raise pickle.UnpicklingError("a number of Python objects")
    return np.frombuffer(data, dtype=dtype)[0]


_NUMPY: dict[str, object] = {"_reconstruct": _array, "scalar": _number, "ndarray": np.ndarray, "dtype": np.dtype}
_PARTS = ("LogisticRegression", "SGDClassifier", "StandardScaler")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY:
            return _NUMPY[name]
        if module.split(".")[0] == "sklearn" and name in _PARTS:
            return _Record
        if (module, name) == ("copyreg", "_reconstructor"):
            return lambda kind, *_: kind.__new__(kind)
        if (module, name) in (("builtins", "object"), ("__builtin__", "object")):
            return _Record
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


@dataclass(frozen=True)
class Model:
    """A linear model of cell types.

    Attributes
    ----------
    labels
        Names of its cell types.
    genes
        Gene symbols that it looks at.
    coefficients, intercept
        Cell types x genes, and cell types.
    mean, scale
        Of each gene's log-normalised expression in the training data.
    """

    labels: tuple[str, ...]
    genes: tuple[str, ...]
    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


def read_model(path: Path) -> Model:
    """Read a model file as CellTypist writes it (``.pkl``) without running anything in it.

    Raises
    ------
    UserError
        The file is missing, is no pickle of such a model, or asks for anything but numbers and text.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Correct annotation.celltypist in the config.")
    try:
        content = _Unpickler(BytesIO(path.read_bytes())).load()
        model, scaler = content["Model"], content["Scaler_"]
        genes = tuple(map(str, model.features))
        n = len(genes)
        mean, scale = getattr(scaler, "mean_", None), getattr(scaler, "scale_", None)
        coefficients, intercept = np.asarray(model.coef_, dtype=float), np.asarray(model.intercept_, dtype=float)
        labels = tuple(map(str, model.classes_))
        if len(labels) == 2 and len(coefficients) == 1:
            coefficients, intercept = np.vstack([-coefficients, coefficients]), np.concatenate([-intercept, intercept])
        read = Model(
            labels, genes, coefficients.reshape(len(labels), n), intercept.reshape(len(labels)),
            np.zeros(n) if mean is None else np.asarray(mean, dtype=float).reshape(n),
            np.ones(n) if scale is None else np.asarray(scale, dtype=float).reshape(n),
        )  # fmt: skip
    except Exception as error:  # a hostile pickle may raise anything
        raise UserError(f"{path} is no CellTypist model that can be read safely ({error}). Give a model's .pkl file as "
                        "celltypist writes it.") from error  # fmt: skip
    numbers = (read.coefficients, read.intercept, read.mean, read.scale)
    if not all(np.isfinite(part).all() for part in numbers) or (read.scale <= 0).any():
        raise UserError(f"{path}: the model holds numbers that are not finite. Download or train it again.")
    return read


def votes_of_model(
    path: Path,
    name: str,
    samples: Sequence[SampleFile],
    markers: MarkerSet,
    tables: Sequence[Path],
    organism: str,
    threads: int = 1,
) -> Votes:
    """What a model says of every cell of ``samples``, in their order.

    A cell type's vote is its share of the sum of all probabilities, times the highest of them: a cell that no type fits
    says little. Cell types that stand for no class vote for ``unassigned``.

    Raises
    ------
    UserError
        The file is no model, none of its labels is a class, or too few of its genes are among those of the samples.
    """
    model = read_model(path)
    of_label = classes_of(model.labels, markers, tables, str(path))
    gather = np.zeros((len(model.labels), len(markers.classes)), dtype=np.float32)
    gather[np.arange(len(of_label)), of_label] = 1
    names = GeneNames.load(organism)
    axis = pd.Index([names.symbol(gene) for gene in model.genes])
    axis_place = pd.Series(np.arange(len(axis)), index=axis)
    axis_place = axis_place[~axis_place.index.duplicated()]

    def of_sample(sample: SampleFile) -> NDArray[np.float32]:
        gene = np.full(sample.n_columns, -1, dtype=np.int64)
        symbols = pd.Index(sample.var["gene_symbol"].astype(str))
        place = axis_place.reindex(symbols).fillna(-1).to_numpy(dtype=np.int64)
        place[symbols.duplicated() & (place >= 0)] = -1
        gene[sample.columns] = place
        shared = np.unique(gene[gene >= 0])
        if len(shared) < min(_FEWEST_GENES, len(model.genes)):
            raise UserError(
                f"{path}: only {len(shared)} of the model's {len(model.genes)} genes are among those of sample "
                f"{sample.sample}. Give a model for the same organism, with gene symbols."
            )
        scorer = _scorer(model, shared)
        blocks = []
        import h5py

        with h5py.File(sample.path, "r") as file:
            reader = RowReader(file, EXPRESSION)
            for rows in row_blocks(reader.shape[0], ROWS_AT_ONCE):
                block = reader.rows(rows)
                probability = expit(scorer(_on_genes(block.indptr, block.indices, block.data, gene, len(axis))))
                whole = probability.sum(axis=1, keepdims=True)
                share = np.divide(probability, whole, out=np.zeros_like(probability), where=whole > 0)
                blocks.append((share * probability.max(axis=1, keepdims=True)).astype(np.float32) @ gather)
        return np.concatenate(blocks) if blocks else np.zeros((0, gather.shape[1]), dtype=np.float32)

    shares = np.concatenate(for_each(list(samples), of_sample, threads))
    return Votes(name, shares, gather.sum(axis=0) > 0)


def probabilities(model: Model, expression: sparse.csr_matrix, symbols: Sequence[str]) -> NDArray[np.float64]:
    """Probability of every label (cells x labels), as ``celltypist.annotate`` gives it.

    Parameters
    ----------
    model
        See :func:`read_model`.
    expression
        Natural log of 1 + counts per 10,000, cells x genes.
    symbols
        Symbols of its genes; of one that comes twice the first is taken.
    """
    place = pd.Series(np.arange(len(model.genes)), index=pd.Index(model.genes))
    columns = pd.Index(symbols)
    gene = place.reindex(columns).fillna(-1).to_numpy(dtype=np.int64)
    gene[columns.duplicated()] = -1
    matrix = expression.tocsr()
    aligned = _on_genes(matrix.indptr, matrix.indices, matrix.data, gene, len(model.genes))
    return np.asarray(expit(_scorer(model, np.unique(gene[gene >= 0]))(aligned)), dtype=np.float64)


def _on_genes(
    indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any], gene: NDArray[np.int64], n_genes: int
) -> sparse.csr_matrix:
    """Rows on the model's genes; entries of other genes are dropped."""
    place = gene[indices]
    kept = place >= 0
    starts = np.concatenate([[0], np.cumsum(kept)])[indptr]
    return sparse.csr_matrix((data[kept].astype(np.float64), place[kept], starts), shape=(len(indptr) - 1, n_genes))


def _scorer(model: Model, shared: NDArray[np.int64]) -> Callable[[sparse.csr_matrix], NDArray[np.float64]]:
    """The linear predictor over the ``shared`` genes, for sparse rows on all genes of the model.

    What a zero gives is the same for every cell; only what is stored is standardised, and it is cut there.
    """
    of_zero = np.minimum(-model.mean / model.scale, _HIGHEST)
    coefficients = np.zeros_like(model.coefficients)
    coefficients[:, shared] = model.coefficients[:, shared]
    constant = coefficients @ of_zero + model.intercept

    def score(rows: sparse.csr_matrix) -> NDArray[np.float64]:
        at = rows.indices
        beyond = np.minimum((rows.data - model.mean[at]) / model.scale[at], _HIGHEST) - of_zero[at]
        stored = sparse.csr_matrix((beyond, at, rows.indptr), shape=rows.shape)
        return np.asarray(stored @ coefficients.T + constant, dtype=np.float64)

    return score
