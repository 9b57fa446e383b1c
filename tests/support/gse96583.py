"""What the authors of GSE96583 call their cells, in the classes of this project."""

#: The authors' label of a cell and its class.
AUTHORS_CLASSES = {
    "CD4 T cells": "CD4_T",
    "CD8 T cells": "CD8_T",
    "CD14+ Monocytes": "CD14_monocyte",
    "FCGR3A+ Monocytes": "CD16_monocyte",
    "B cells": "B",
    "NK cells": "NK",
    "Dendritic cells": "DC",
    "Megakaryocytes": "megakaryocyte",
}
