"""Tables inside AnnData files, of every format that anndata has written: only the columns that are asked for are read.

Reading them through anndata would load the whole table and follow links.
"""

from __future__ import annotations

import h5py
import numpy as np

from immunomod.errors import UserError
from immunomod.sample.readers.hdf5 import dataset, file_of, has_dataset, member, read_strings, subgroup

_INDEX_NAMES = ("_index", "index")


def as_text(value: object) -> str:
    """A name or an attribute, which HDF5 gives as bytes or as str."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Frame:
    """A table of an AnnData file: a group (since anndata 0.7), or a data set of records (before).

    Parameters
    ----------
    parent
        The group that holds the table.
    name
        Its name there.
    """

    def __init__(self, parent: h5py.Group, name: str) -> None:
        found = member(parent, name)
        if found is None:
            raise UserError(f"{file_of(parent)}: has no {name}; the file is cut short or of another kind")
        self._item = dataset(parent, name) if isinstance(found, h5py.Dataset) else found
        self._parent = parent
        self.is_records = isinstance(self._item, h5py.Dataset)
        fields = self._item.dtype.names if self.is_records else list(self._item)
        if not fields:
            raise UserError(f"{file_of(parent)}: {name} is no table; the file is damaged or of another kind")
        attribute = self._item.attrs.get("_index")
        known = [one for one in ([as_text(attribute)] if attribute is not None else []) if one in fields]
        known += [one for one in _INDEX_NAMES if one in fields]
        self._index = known[0] if known else str(fields[0])
        self.columns = [str(one) for one in fields if str(one) not in (self._index, "__categories")]

    def __len__(self) -> int:
        """Number of rows."""
        column = self._item if self.is_records else dataset(self._item, self._index)
        return int(column.shape[0])

    def index(self, limit: int | None = None) -> np.ndarray:
        """Names of the rows as str, at most ``limit``."""
        return self._values(self._index, limit)

    def find(self, candidates: tuple[str, ...]) -> np.ndarray | None:
        """Values (str) of the first column that is called one of ``candidates``, upper or lower case; or None."""
        lower = {column.lower(): column for column in reversed(self.columns)}
        found = next((lower[one] for one in candidates if one in lower), None)
        if found is None:
            return None
        values = self._values(found, None)
        if values.size != len(self):
            raise UserError(
                f"{file_of(self._item)}: {self._item.name}/{found} has {values.size:,} of {len(self):,} rows"
            )
        return values

    def _values(self, column: str, limit: int | None) -> np.ndarray:
        if self.is_records:
            values = self._item[: len(self) if limit is None else limit][column]
            return self._decoded(column, np.array([as_text(value) for value in values], dtype=object), values)
        found = member(self._item, column)
        if isinstance(found, h5py.Dataset):
            return self._legacy_or_plain(column, limit)
        if isinstance(found, h5py.Group) and has_dataset(found, "codes"):
            return _categorical(found, "codes", _categories(found, "categories"), limit)
        if isinstance(found, h5py.Group) and has_dataset(found, "values"):
            return read_strings(dataset(found, "values"), limit)
        raise UserError(f"{file_of(self._item)}: {self._item.name}/{column} is of a kind that cannot be read")

    def _decoded(self, column: str, text: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Codes of anndata before 0.7, whose categories stand in ``uns``."""
        uns = subgroup(self._parent.file, "uns")
        name = f"{column}_categories"
        if uns is None or values.dtype.kind not in "iu" or not has_dataset(uns, name):
            return text
        return _decode(np.asarray(values), read_strings(dataset(uns, name)), file_of(self._parent))

    def _legacy_or_plain(self, column: str, limit: int | None) -> np.ndarray:
        categories = subgroup(self._item, "__categories")
        if categories is None or not has_dataset(categories, column):
            return read_strings(dataset(self._item, column), limit)
        return _categorical(self._item, column, read_strings(dataset(categories, column)), limit)


def _categories(group: h5py.Group, name: str) -> np.ndarray:
    nullable = subgroup(group, name)
    return read_strings(dataset(group, name) if nullable is None else dataset(nullable, "values"))


def _categorical(group: h5py.Group, name: str, categories: np.ndarray, limit: int | None) -> np.ndarray:
    codes = dataset(group, name)
    return _decode(codes[: codes.shape[0] if limit is None else limit], categories, file_of(group))


def _decode(codes: np.ndarray, categories: np.ndarray, where: str) -> np.ndarray:
    if codes.dtype.kind not in "iu" or (codes.size and int(codes.max()) >= categories.size):
        raise UserError(f"{where}: a table's codes have no category; the file is damaged")
    return np.append(categories, "")[np.where(codes < 0, categories.size, codes)]
