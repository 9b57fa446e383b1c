# sample: counts -> quality control -> programme scores. Never sees two samples; memory is bounded by one.


rule read_counts:
    input:
        manifest=lambda wildcards: f"<results>/acquire/{RUN.dataset_of(wildcards.sample)}/samples/{wildcards.sample}.tsv",
    output:
        counts="<results>/samples/{sample}/counts.h5ad",
        read="<results>/samples/{sample}/read.tsv",
    log:
        "<logs>/read_counts/{sample}.log",
    benchmark:
        "<benchmarks>/read_counts/{sample}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, input, attempt: max(2000, reading_memory_mb(input.manifest)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        row=lambda wildcards: RUN.read_row(wildcards.sample),
        reading=RUN.config["reading"],
        cells_table=lambda wildcards: RUN.config["cells_tables"].get(RUN.dataset_of(wildcards.sample), {}),
    script:
        "../scripts/read_counts.py"


# Part of a run only where ambient.method asks for it: it has an environment of its own, and takes hours without a
# graphics card.
rule remove_background:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
    output:
        background="<results>/samples/{sample}/cellbender.h5",
    log:
        "<logs>/remove_background/{sample}.log",
    benchmark:
        "<benchmarks>/remove_background/{sample}.tsv"
    conda:
        "../../envs/cellbender.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, input, attempt: max(16000, int(20 * input.size_mb)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 600 * attempt,
    params:
        ambient=RUN.config["ambient"],
        lower=RUN.config["calling"]["lower"],
    script:
        "../scripts/remove_background.py"


rule filter_cells:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        background=branch(
            RUN.config["ambient"]["method"] == "cellbender", then="<results>/samples/{sample}/cellbender.h5"
        ),
    output:
        filtered="<results>/samples/{sample}/filtered.h5ad",
        cells="<results>/samples/{sample}/cells.tsv.gz",
        qc="<results>/samples/{sample}/qc.tsv",
        ambient="<results>/samples/{sample}/ambient.tsv",
        ranks="<results>/samples/{sample}/barcode_ranks.tsv",
    log:
        "<logs>/filter_cells/{sample}.log",
    benchmark:
        "<benchmarks>/filter_cells/{sample}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, input, attempt: max(3000, int(1000 + 8 * input.size_mb)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, input, attempt: max(30, int(input.size_mb / 10)) * attempt,
    params:
        programs=RUN.config["programs"],
        markers=RUN.config["annotation"]["markers"],
        sections={name: RUN.config[name] for name in SAMPLE_SECTIONS},
        own_limits=lambda wildcards: RUN.sample_limits(wildcards.sample),
        seed=RUN.config["seed"],
    script:
        "../scripts/filter_cells.py"


rule gather_qc:
    input:
        rows=collect("<results>/samples/{sample}/qc.tsv", sample=SAMPLES),
    output:
        table=report(
            "<results>/samples/qc.tsv",
            caption="../report/qc.rst",
            category="Quality",
            labels={"table": "quality control per sample"},
        ),
    log:
        "<logs>/gather_qc.log",
    benchmark:
        "<benchmarks>/gather_qc.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    script:
        "../scripts/gather_qc.py"
