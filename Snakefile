# The door: config, includes and targets. What a rule does is in workflow/rules/, how is in workflow/immunomod/.
from snakemake.utils import min_version

min_version("9.19")

# Only where the user named no config: Snakemake would merge the two, and settings of one study leak into another.
if not workflow.configfiles:

    configfile: "config/config.yaml"


# Everything a run writes lies under <results>, which is `results` unless the user says otherwise.
pathvars:
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


include: "workflow/rules/common.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/acquire.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/atlas.smk"
include: "workflow/rules/contrast.smk"
include: "workflow/rules/synthesis.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        "<results>/report/index.html",
        "<results>/check/problems.tsv",
        "<results>/ledger.tsv",
        "<results>/samples/qc.tsv",
        "<results>/synthesis/program_meta.tsv",
        collect("<results>/synthesis/{table}.tsv", table=POTENCY_TABLES),
        "<results>/provenance/versions.tsv",
        collect("<results>/atlas/{atlas}.h5ad", atlas=RUN.atlases),
        collect("<results>/atlas/{atlas}/{table}.tsv", atlas=RUN.atlases, table=ATLAS_TABLES),
        collect("<results>/contrasts/{contrast}/{table}.tsv", contrast=CONTRASTS, table=CONTRAST_TABLES),
        collect("<results>/contrasts/{contrast}/genes", contrast=CONTRASTS),
        collect("<results>/contrasts/{contrast}/disease.tsv", contrast=CONTRASTS),
