"""What co-culture with mesenchymal stromal cells does to immune cells, and back, with honest uncertainty.

One sub-package per floor of the workflow: ``acquire``, ``sample``, ``atlas``, ``contrast``, ``synthesis``, ``report``;
``simulate`` draws studies with known truth.
"""

__version__ = "0.1.0"
