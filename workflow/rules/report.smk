# report: one offline HTML file.


rule build_report:
    input:
        qc="<results>/samples/qc.tsv",
        cells=collect("<results>/samples/{sample}/cells.tsv.gz", sample=SAMPLES),
        ambient=collect("<results>/samples/{sample}/ambient.tsv", sample=SAMPLES),
        ranks=collect("<results>/samples/{sample}/barcode_ranks.tsv", sample=SAMPLES),
        ledger="<results>/ledger.tsv",
        atlases=collect("<results>/atlas/{atlas}.h5ad", atlas=RUN.atlases),
        clusters=collect("<results>/atlas/{atlas}/{table}.tsv", atlas=RUN.atlases, table=ATLAS_TABLES),
        contrasts=collect("<results>/contrasts/{contrast}/{table}.tsv", contrast=CONTRASTS, table=CONTRAST_TABLES),
        genes=collect("<results>/contrasts/{contrast}/genes", contrast=CONTRASTS),
        diseases=collect("<results>/contrasts/{contrast}/disease.tsv", contrast=CONTRASTS),
        msc_scores=collect("<results>/contrasts/{contrast}/msc_scores.tsv", contrast=CONTRASTS),
        synthesis="<results>/synthesis/program_meta.tsv",
        potency=collect("<results>/synthesis/{table}.tsv", table=POTENCY_TABLES),
        leakage=collect("<results>/pseudobulk/{dataset}.leakage.tsv", dataset=COMPARED),
        coverage="<results>/check/coverage.tsv",
        claims=CLAIM_TABLES,
        config="<results>/provenance/config.yaml",
        versions="<results>/provenance/versions.tsv",
    output:
        page=report(
            "<results>/report/index.html",
            caption="../report/report.rst",
            category="Report",
            labels={"page": "the whole report"},
        ),
        figures=report(
            directory("<results>/report/figures"),
            patterns=["{figure,[a-z]+}_{of}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            subcategory="{figure}",
            labels={"figure": "{figure}", "of": "{of}"},
        ),
        tables=report(
            directory("<results>/report/tables"),
            patterns=["{table,[a-z]+}-{of}.tsv"],
            caption="../report/shown.rst",
            category="Report",
            labels={"table": "{table}", "of": "{of}"},
        ),
    log:
        "<logs>/build_report.log",
    benchmark:
        "<benchmarks>/build_report.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, input, attempt: max(2000, int(2 * input.size_mb)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        programs=RUN.config["programs"],
        samples_sheet=RUN.config["samples"],
        contrasts_sheet=RUN.config["contrasts"],
        samples=SAMPLES,
        contrasts=CONTRASTS,
        atlases=list(RUN.atlases),
    script:
        "../scripts/build_report.py"
