"""Integration methods, one file each; :data:`immunomod.atlas.integrate.REGISTRY` lists them."""
