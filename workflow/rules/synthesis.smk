# synthesis: random-effects meta-analysis of per-dataset effects.


rule pool_effects:
    input:
        effects=collect("<results>/contrasts/{contrast}/program_effects.tsv", contrast=CONTRASTS),
    output:
        table=report(
            "<results>/synthesis/program_meta.tsv",
            caption="../report/synthesis.rst",
            category="Effects",
            labels={"table": "effects pooled over data sets"},
        ),
    log:
        "<logs>/pool_effects.log",
    benchmark:
        "<benchmarks>/pool_effects.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    params:
        organisms=RUN.organisms,
        confidence=RUN.config["contrast"]["confidence"],
    script:
        "../scripts/pool_effects.py"
