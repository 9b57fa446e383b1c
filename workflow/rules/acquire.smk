# acquire: bytes from GEO or from disk, each one in the ledger.


rule acquire_dataset:
    input:
        local=lambda wildcards: RUN.local_sources(wildcards.dataset),
    output:
        manifest="<results>/acquire/{dataset}/manifest.tsv",
        metadata="<results>/acquire/{dataset}/metadata.tsv",
    log:
        "<logs>/acquire_dataset/{dataset}.log",
    benchmark:
        "<benchmarks>/acquire_dataset/{dataset}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 240 * attempt,
        door=1,
    params:
        rows=lambda wildcards: RUN.dataset_rows(wildcards.dataset),
        geo=RUN.config["geo"],
        config_folder=str(RUN.folder),
        sheet=RUN.config["samples"],
    script:
        "../scripts/acquire_dataset.py"


rule gather_ledger:
    input:
        reads=collect("<results>/samples/{sample}/read.tsv", sample=SAMPLES),
        acquired=collect(
            "<results>/acquire/{dataset}/{table}.tsv", dataset=RUN.datasets, table=["manifest", "metadata"]
        ),
    output:
        ledger=report(
            "<results>/ledger.tsv",
            caption="../report/ledger.rst",
            category="Provenance",
            labels={"table": "every file that was read"},
        ),
    log:
        "<logs>/gather_ledger.log",
    benchmark:
        "<benchmarks>/gather_ledger.tsv"
    conda:
        ENVIRONMENT
    script:
        "../scripts/gather_ledger.py"
