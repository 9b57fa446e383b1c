# acquire: bytes from GEO or from disk, each one in the ledger.


# A job for each sample, so that a row that is added or edited has no other sample fetched or read again; what several
# samples need is fetched by the first that asks, while the others wait.
rule acquire_sample:
    input:
        local=lambda wildcards: local(RUN.local_files(wildcards.sample)),
    output:
        manifest="<results>/acquire/{dataset}/samples/{sample}.tsv",
    log:
        "<logs>/acquire_sample/{dataset}/{sample}.log",
    benchmark:
        "<benchmarks>/acquire_sample/{dataset}/{sample}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * 2 ** (attempt - 1),
        # a job that is ended for its time goes on where it was
        runtime=lambda wildcards, attempt: 60 * 2 ** (attempt - 1),
        door=1,
    params:
        row=lambda wildcards: RUN.acquire_row(wildcards.sample),
        base_url=lambda wildcards: RUN.base_url(wildcards.sample),
        config_folder=str(RUN.folder),
        sheet=RUN.config["samples"],
        # These change no result. Snakemake does not hold what is asked of the input against the last run's.
        row_number=lambda wildcards, input: RUN.row_number(wildcards.sample),
        geo=lambda wildcards, input: RUN.config["geo"],
    script:
        "../scripts/acquire_sample.py"


rule gather_ledger:
    input:
        reads=collect("<results>/samples/{sample}/read.tsv", sample=SAMPLES),
        acquired=collect(
            "<results>/acquire/{dataset}/samples/{sample}.tsv",
            zip,
            dataset=list(RUN.samples["dataset"]),
            sample=SAMPLES,
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
    localrule: True
    conda:
        ENVIRONMENT
    script:
        "../scripts/gather_ledger.py"
