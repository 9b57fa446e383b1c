# provenance: what the run was made with, and, once all else is there, how it went.

# Every table is asked for by name, those too that only other jobs read: Snakemake makes no file anew that nothing asks for
# and whose readers are up to date, such as one that a job which failed took with it.
RESULTS = [
    "<results>/report/index.html",
    collect("<results>/check/{file}", file=["problems.tsv", "coverage.tsv", "summary.txt"]),
    "<results>/ledger.tsv",
    "<results>/samples/qc.tsv",
    collect("<results>/samples/{sample}/{table}", sample=SAMPLES, table=SAMPLE_TABLES),
    collect("<results>/pseudobulk/{dataset}.leakage.tsv", dataset=COMPARED),
    "<results>/synthesis/program_meta.tsv",
    collect("<results>/synthesis/{table}.tsv", table=POTENCY_TABLES),
    "<results>/provenance/versions.tsv",
    collect("<results>/atlas/{atlas}.h5ad", atlas=RUN.atlases),
    collect("<results>/atlas/{atlas}/{table}.tsv", atlas=RUN.atlases, table=ATLAS_TABLES),
    collect("<results>/contrasts/{contrast}/{table}.tsv", contrast=CONTRASTS, table=CONTRAST_TABLES),
    collect("<results>/contrasts/{contrast}/genes", contrast=CONTRASTS),
    collect("<results>/contrasts/{contrast}/{table}.tsv", contrast=CONTRASTS, table=["disease", "msc_scores"]),
]


rule write_provenance:
    output:
        config="<results>/provenance/config.yaml",
        versions=report(
            "<results>/provenance/versions.tsv",
            caption="../report/versions.rst",
            category="Provenance",
            labels={"table": "versions"},
        ),
    log:
        "<logs>/write_provenance.log",
    benchmark:
        "<benchmarks>/write_provenance.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=RUN.config,
    script:
        "../scripts/write_provenance.py"


rule describe_run:
    input:
        made=RESULTS,
        config="<results>/provenance/config.yaml",
        sheets=SHEETS,
    output:
        crate="<results>/provenance/ro-crate-metadata.json",
        jobs="<results>/provenance/jobs.tsv",
        rules=report(
            "<results>/provenance/rules.tsv",
            caption="../report/rules.rst",
            category="Provenance",
            labels={"table": "time and memory by rule"},
        ),
        seeds="<results>/provenance/seeds.tsv",
        environment="<results>/provenance/environment.txt",
        methods="<results>/provenance/methods.md",
        references="<results>/provenance/references.bib",
        workflow=directory("<results>/provenance/workflow"),
    log:
        "<logs>/describe_run.log",
    benchmark:
        "<benchmarks>/describe_run.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        names={"samples": SAMPLES, "datasets": RUN.datasets, "contrasts": CONTRASTS, "atlases": list(RUN.atlases)},
    script:
        "../scripts/describe_run.py"
