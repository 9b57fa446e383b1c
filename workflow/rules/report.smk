# report: one offline HTML file, and the run's provenance.


rule write_provenance:
    output:
        config="<results>/provenance/config.yaml",
        versions="<results>/provenance/versions.tsv",
    params:
        config=RUN.config,
    log:
        "<logs>/write_provenance.log",
    benchmark:
        "<benchmarks>/write_provenance.tsv"
    conda:
        ENVIRONMENT
    script:
        "../scripts/write_provenance.py"


rule build_report:
    input:
        qc="<results>/samples/qc.tsv",
        cells=collect("<results>/samples/{sample}/cells.tsv.gz", sample=SAMPLES),
        ledger="<results>/ledger.tsv",
        atlases=collect("<results>/atlas/{atlas}.h5ad", atlas=RUN.atlases),
        effects=collect("<results>/contrasts/{contrast}/program_effects.tsv", contrast=CONTRASTS),
        genes=collect("<results>/contrasts/{contrast}/genes", contrast=CONTRASTS),
        synthesis="<results>/synthesis/program_meta.tsv",
        config="<results>/provenance/config.yaml",
        versions="<results>/provenance/versions.tsv",
    output:
        page=report(
            "<results>/report/index.html",
            caption="../report/report.rst",
            category="Report",
            labels={"page": "the whole report"},
        ),
        figures=directory("<results>/report/figures"),
    params:
        programs=RUN.config["programs"],
        contrasts=CONTRASTS,
    log:
        "<logs>/build_report.log",
    benchmark:
        "<benchmarks>/build_report.tsv"
    resources:
        mem_mb=lambda wildcards, input, attempt: max(2000, int(2 * input.size_mb)) * 2 ** (attempt - 1),
    conda:
        ENVIRONMENT
    script:
        "../scripts/build_report.py"
