"""What several data sets say together: random-effects meta-analysis of their per-dataset effects."""
