# atlas: cells x variable genes only -> integrate -> cluster -> annotate.
from immunomod.atlas.integration.settings import IntegrationSettings


rule build_atlas:
    input:
        filtered=lambda wildcards: collect(
            "<results>/samples/{sample}/filtered.h5ad", sample=RUN.samples_of(RUN.atlases[wildcards.atlas])
        ),
        latent=branch(
            bool(IntegrationSettings.from_config(RUN.config["atlas"]).learned),
            then="<results>/atlas/{atlas}/scvi.h5ad",
        ),
        overrides=lambda wildcards: told(RUN.overrides_of(wildcards.atlas)),
        witnesses=local(RUN.witnesses),
    output:
        atlas="<results>/atlas/{atlas}.h5ad",
        integration=report(
            "<results>/atlas/{atlas}/integration.tsv",
            caption="../report/integration.rst",
            category="Cells",
            labels={"table": "integration methods", "atlas": "{atlas}"},
        ),
        clustering=report(
            "<results>/atlas/{atlas}/clustering.tsv",
            caption="../report/clustering.rst",
            category="Cells",
            labels={"table": "resolutions", "atlas": "{atlas}"},
        ),
        clusters=report(
            "<results>/atlas/{atlas}/clusters.tsv",
            caption="../report/clusters.rst",
            category="Cells",
            labels={"table": "clusters and their cell classes", "atlas": "{atlas}"},
        ),
        markers=report(
            "<results>/atlas/{atlas}/markers.tsv",
            caption="../report/markers.rst",
            category="Cells",
            labels={"table": "marker genes", "atlas": "{atlas}"},
        ),
    log:
        "<logs>/build_atlas/{atlas}.log",
    benchmark:
        "<benchmarks>/build_atlas/{atlas}.tsv"
    conda:
        ENVIRONMENT
    # the atlas is the same on any number of threads
    threads: 8
    resources:
        # 100,000 cells, 3.3 GB of files: 1.4 GB of memory; what grows is cells x variable genes
        mem_mb=lambda wildcards, input, attempt: max(4000, int(1500 + 0.4 * input.size_mb)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, input, attempt: max(120, int(input.size_mb / 100)) * attempt,
    params:
        atlas=RUN.config["atlas"],
        annotation={key: value for key, value in RUN.config["annotation"].items() if key != "overrides"},
        seed=RUN.config["seed"],
    script:
        "../scripts/build_atlas.py"


rule train_scvi:
    input:
        filtered=lambda wildcards: collect(
            "<results>/samples/{sample}/filtered.h5ad", sample=RUN.samples_of(RUN.atlases[wildcards.atlas])
        ),
    output:
        latent="<results>/atlas/{atlas}/scvi.h5ad",
    log:
        "<logs>/train_scvi/{atlas}.log",
    benchmark:
        "<benchmarks>/train_scvi/{atlas}.tsv"
    conda:
        "../../envs/scvi.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, input, attempt: max(8000, int(2 * input.size_mb)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 600 * attempt,
    params:
        atlas=RUN.config["atlas"],
        markers=RUN.config["annotation"]["markers"],
        seed=RUN.config["seed"],
    script:
        "../scripts/train_scvi.py"


# Part of no run unless it is asked for: `snakemake vitessce`.
rule export_vitessce:
    input:
        atlas="<results>/atlas/{atlas}.h5ad",
    output:
        store=directory("<results>/atlas/{atlas}/vitessce.zarr"),
        config="<results>/atlas/{atlas}/vitessce.json",
    log:
        "<logs>/export_vitessce/{atlas}.log",
    benchmark:
        "<benchmarks>/export_vitessce/{atlas}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, input, attempt: max(2000, int(1000 + input.size_mb)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 60 * attempt,
    script:
        "../scripts/export_vitessce.py"


rule vitessce:
    input:
        collect("<results>/atlas/{atlas}/vitessce.json", atlas=RUN.atlases),
