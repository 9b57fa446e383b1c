"""Models of a gene's change, one file each; :data:`immunomod.contrast.genes.REGISTRY` lists them."""
