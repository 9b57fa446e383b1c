# contrast: pseudobulks (small tables) -> programme effects, genes, composition, communication.


rule sum_pseudobulks:
    input:
        filtered=lambda wildcards: collect(
            "<results>/samples/{sample}/filtered.h5ad", sample=RUN.samples_of([wildcards.dataset])
        ),
        qc=lambda wildcards: collect("<results>/samples/{sample}/qc.tsv", sample=RUN.samples_of([wildcards.dataset])),
        atlas=lambda wildcards: f"<results>/atlas/{RUN.atlas_of(wildcards.dataset)}.h5ad",
    output:
        pseudobulk="<results>/pseudobulk/{dataset}.h5ad",
        leakage=report(
            "<results>/pseudobulk/{dataset}.leakage.tsv",
            caption="../report/leakage.rst",
            category="Quality",
            labels={"table": "partner RNA in replicates", "dataset": "{dataset}"},
        ),
    log:
        "<logs>/sum_pseudobulks/{dataset}.log",
    benchmark:
        "<benchmarks>/sum_pseudobulks/{dataset}.tsv"
    conda:
        ENVIRONMENT
    resources:
        # one sample at a time is in memory
        mem_mb=lambda wildcards, input, attempt: int(3000 + 4 * largest_mb(input.filtered)) * 2 ** (attempt - 1),
        runtime=lambda wildcards, input, attempt: max(60, int(input.size_mb / 100)) * attempt,
    params:
        keep_failed=RUN.config["qc"]["keep_failed"],
        correct_leakage=RUN.config["contrast"]["correct_leakage"],
        markers=RUN.config["annotation"]["markers"],
        programs=RUN.config["programs"],
    script:
        "../scripts/sum_pseudobulks.py"


rule test_contrast:
    input:
        pseudobulks=lambda wildcards: collect(
            "<results>/pseudobulk/{dataset}.h5ad", dataset=RUN.datasets_of_contrast(wildcards.contrast)
        ),
    output:
        program_effects=report(
            "<results>/contrasts/{contrast}/program_effects.tsv",
            caption="../report/program_effects.rst",
            category="Effects",
            labels={"table": "programme effects", "contrast": "{contrast}"},
        ),
        composition=report(
            "<results>/contrasts/{contrast}/composition.tsv",
            caption="../report/composition.rst",
            category="Effects",
            labels={"table": "composition", "contrast": "{contrast}"},
        ),
        fractions=report(
            "<results>/contrasts/{contrast}/fractions.tsv",
            caption="../report/fractions.rst",
            category="Effects",
            labels={"table": "regulatory and cycling cells", "contrast": "{contrast}"},
        ),
        design=report(
            "<results>/contrasts/{contrast}/design.tsv",
            caption="../report/design.rst",
            category="Effects",
            labels={"table": "what was compared", "contrast": "{contrast}"},
        ),
        gene_tests=report(
            "<results>/contrasts/{contrast}/gene_tests.tsv",
            caption="../report/gene_tests.rst",
            category="Effects",
            labels={"table": "which classes were tested for genes", "contrast": "{contrast}"},
        ),
        program_scores=report(
            "<results>/contrasts/{contrast}/program_scores.tsv",
            caption="../report/program_scores.rst",
            category="Effects",
            labels={"table": "programme scores of replicates", "contrast": "{contrast}"},
        ),
        msc_scores="<results>/contrasts/{contrast}/msc_scores.tsv",
        program_genes="<results>/contrasts/{contrast}/program_genes.tsv",
        program_enrichment=report(
            "<results>/contrasts/{contrast}/program_enrichment.tsv",
            caption="../report/program_enrichment.rst",
            category="Effects",
            labels={"table": "programmes by CAMERA", "contrast": "{contrast}"},
        ),
        genes=directory("<results>/contrasts/{contrast}/genes"),
    log:
        "<logs>/test_contrast/{contrast}.log",
    benchmark:
        "<benchmarks>/test_contrast/{contrast}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, input, attempt: int(3000 + 10 * input.size_mb) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        row=lambda wildcards: RUN.contrast_row(wildcards.contrast),
        programs=RUN.config["programs"],
        contrast=RUN.config["contrast"],
        seed=RUN.config["seed"],
    script:
        "../scripts/test_contrast.py"


rule test_communication:
    input:
        pseudobulks=lambda wildcards: collect(
            "<results>/pseudobulk/{dataset}.h5ad", dataset=RUN.datasets_of_contrast(wildcards.contrast)
        ),
        genes="<results>/contrasts/{contrast}/genes",
    output:
        communication=report(
            "<results>/contrasts/{contrast}/communication.tsv",
            caption="../report/communication.rst",
            category="Effects",
            labels={"table": "ligand-receptor changes", "contrast": "{contrast}"},
        ),
    log:
        "<logs>/test_communication/{contrast}.log",
    benchmark:
        "<benchmarks>/test_communication/{contrast}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, input, attempt: int(3000 + 10 * input.size_mb) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        row=lambda wildcards: RUN.contrast_row(wildcards.contrast),
        interactions=RUN.config["interactions"],
        organisms=lambda wildcards: RUN.organisms_of(RUN.datasets_of_contrast(wildcards.contrast)),
        contrast=RUN.config["contrast"],
    script:
        "../scripts/test_communication.py"


rule test_diseases:
    input:
        pseudobulks=lambda wildcards: collect(
            "<results>/pseudobulk/{dataset}.h5ad", dataset=RUN.datasets_of_contrast(wildcards.contrast)
        ),
        tables=told(RUN.disease_tables),
    output:
        disease=report(
            "<results>/contrasts/{contrast}/disease.tsv",
            caption="../report/disease.rst",
            category="Effects",
            labels={"table": "disease signatures", "contrast": "{contrast}"},
        ),
    log:
        "<logs>/test_diseases/{contrast}.log",
    benchmark:
        "<benchmarks>/test_diseases/{contrast}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, input, attempt: int(3000 + 10 * input.size_mb) * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        row=lambda wildcards: RUN.contrast_row(wildcards.contrast),
        programs=RUN.config["programs"],
        diseases=RUN.config["diseases"],
        contrast=RUN.config["contrast"],
        seed=RUN.config["seed"],
    script:
        "../scripts/test_diseases.py"
