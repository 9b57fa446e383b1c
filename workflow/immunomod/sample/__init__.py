"""The floor that sees one sample at a time: files to counts, quality, doublets, programme scores."""
