"""Who is who in a pooled lane: by hashtags, by genotype, and how far the two agree.

:mod:`~immunomod.sample.demultiplex.names` reads the sheet's column ``hashtags``;
:mod:`~immunomod.sample.demultiplex.calls` calls each droplet's hashtag by a method of its registry;
:mod:`~immunomod.sample.demultiplex.genotypes` knows the tables of demuxlet, freemuxlet, vireo and souporcell;
:mod:`~immunomod.sample.demultiplex.cells` puts them together for one sample.
"""
