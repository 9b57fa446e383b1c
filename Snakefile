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
include: "workflow/rules/provenance.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        RESULTS,
        rules.describe_run.output,


onsuccess:
    print(run_summary(Path(workflow.pathvars.apply("<results>")), CONTRASTS, list(RUN.atlases)), file=sys.stderr)
