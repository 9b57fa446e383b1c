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


rule rank_potency:
    input:
        scores=collect("<results>/contrasts/{contrast}/msc_scores.tsv", contrast=CONTRASTS),
        effects=collect("<results>/contrasts/{contrast}/program_effects.tsv", contrast=CONTRASTS),
    output:
        potency=report(
            "<results>/synthesis/potency.tsv",
            caption="../report/potency.rst",
            category="Effects",
            labels={"table": "response of each MSC donor"},
        ),
        suppression=report(
            "<results>/synthesis/suppression.tsv",
            caption="../report/suppression.rst",
            category="Effects",
            labels={"table": "measured suppression and responses"},
        ),
        variance=report(
            "<results>/synthesis/variance.tsv",
            caption="../report/variance.rst",
            category="Effects",
            labels={"table": "variance between MSC"},
        ),
    log:
        "<logs>/rank_potency.log",
    benchmark:
        "<benchmarks>/rank_potency.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        samples=RUN.msc_rows,
        programs=RUN.config["programs"],
        potency=RUN.config["potency"],
        confidence=RUN.config["contrast"]["confidence"],
        seed=RUN.config["seed"],
    script:
        "../scripts/rank_potency.py"
