"""From counts per replicate to what a condition changes: programmes, genes and composition, each with its uncertainty.

``run.run_contrast`` answers one row of ``contrasts.tsv``. Every test compares replicates (donors), never cells.
"""
