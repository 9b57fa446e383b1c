# check: a look at the whole study before the first byte is fetched.


rule check_study:
    input:
        sheets=SHEETS,
        tables=told(RUN.tables),
        local=local([path for dataset in RUN.datasets for path in RUN.local_sources(dataset)]),
    output:
        problems="<results>/check/problems.tsv",
        coverage="<results>/check/coverage.tsv",
        summary="<results>/check/summary.txt",
    log:
        "<logs>/check_study.log",
    benchmark:
        "<benchmarks>/check_study.tsv"
    priority: 100
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 60 * attempt,
        door=DOOR,
    params:
        study={"config": RUN.config, "folder": str(RUN.folder), "name": str(CONFIG_FILE)},
    script:
        "../scripts/check_study.py"
