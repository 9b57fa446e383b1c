"""Layouts in which a library's counts come, as rows of a registry: a new layout is one file and one row.

A dense table is looked for only where there is no matrix of another layout, because the companions of a MatrixMarket
file are text tables too.
"""

from immunomod.sample.readers.dense import DENSE
from immunomod.sample.readers.h5ad import H5AD
from immunomod.sample.readers.library import Layout
from immunomod.sample.readers.loom import LOOM
from immunomod.sample.readers.rds import RDS
from immunomod.sample.readers.tenx_h5 import TENX_H5
from immunomod.sample.readers.triplet import TRIPLET
from immunomod.sample.readers.xlsx import XLSX

REGISTRY: dict[str, Layout] = {layout.name: layout for layout in (TRIPLET, TENX_H5, H5AD, LOOM, RDS, DENSE, XLSX)}

__all__ = ["REGISTRY", "Layout"]
