"""``immunomod init``: a study's config and sheets to edit, from a series' metadata or from the names in a folder.

Every value that is not certain is marked in the sheet's column ``guessed`` with what it came from; what cannot be known
is left empty. Metadata are written by strangers: nothing of them reaches a sheet before :mod:`immunomod.init.text`
has cleaned it.
"""
