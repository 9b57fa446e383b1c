# What all rules need: the validated run, the constraints on names, and the package on the path of every script.
import re
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import sourcecache_entry
from snakemake.sourcecache import HostingProviderFile


def repository_of(rules):
    """The folder of the repository that these rules are of.

    Snakemake reads a workflow that is deployed from a host (``github(...)``) file by file out of a bare clone. The
    package and its tables need files, so that revision is unpacked beside the clone, once.
    """
    if not isinstance(rules, HostingProviderFile):
        return Path(rules.get_path_or_uri(secret_free=True)).resolve().parents[1]
    clone = rules.hosted_repo.repo
    revision = clone.commit(rules.ref).hexsha
    folder = Path(workflow.sourcecache.cache_path) / "immunomod" / revision
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as fresh, tempfile.TemporaryFile() as packed:
            clone.archive(packed, revision, format="tar")
            packed.seek(0)
            with tarfile.open(fileobj=packed) as archive:
                archive.extractall(Path(fresh) / revision, filter="data")
            (Path(fresh) / revision / ".revision").write_text(revision, encoding="utf-8")
            with suppress(OSError):  # another process was faster
                (Path(fresh) / revision).rename(folder)
    return folder


def told(paths):
    """Tables that tell the workflow what to do. Where results go to a store, they go to jobs with the workflow itself."""
    if workflow.storage_settings.default_storage_provider is None:
        return list(paths)
    return [sourcecache_entry(path, path) for path in paths]


sys.path.insert(0, str(repository_of(workflow.current_basedir) / "workflow"))

from immunomod.claims import SHIPPED as SHIPPED_CLAIMS
from immunomod.cluster import cancel_left_jobs, largest_mb, reading_memory_mb, say_why_groups_fail
from immunomod.errors import UserError
from immunomod.job import refuse_unwritable, share_package_path
from immunomod.sample.settings import SECTIONS as SAMPLE_SECTIONS
from immunomod.settings import load_run
from immunomod.summary import run_summary

share_package_path()
CONFIG_FILE = Path(workflow.configfiles[-1]) if workflow.configfiles else Path("config/config.yaml")
try:
    RUN = load_run(config, CONFIG_FILE.parent, name=str(CONFIG_FILE))
except UserError as error:
    raise WorkflowError(str(error)) from None

# The check fills the door, and passes first because its priority is highest; then samples are fetched, as many at once
# as the config allows. Were the check an input of theirs, an edited sheet would either fetch everything again or, as an
# ancient input, hide from Snakemake that anything else has changed.
DOOR = RUN.acquire_settings.jobs
workflow.register_resource("door", DOOR)
SAMPLES = list(RUN.samples["sample"])
CONTRASTS = list(RUN.contrasts["contrast"])
COMPARED = sorted({dataset for contrast in CONTRASTS for dataset in RUN.datasets_of_contrast(contrast)})
SAMPLE_TABLES = ["read.tsv", "qc.tsv", "cells.tsv.gz", "ambient.tsv", "barcode_ranks.tsv"]
ATLAS_TABLES = ["integration", "clustering", "clusters", "markers"]
PROGRAM_TABLES = ["program_effects", "program_scores", "program_genes", "program_enrichment"]
CONTRAST_TABLES = [*PROGRAM_TABLES, "composition", "fractions", "communication", "design", "gene_tests"]
POTENCY_TABLES = ["potency", "suppression", "variance"]
SHEETS = told([RUN.config["samples"], RUN.config["contrasts"]])
CLAIM_TABLES = told([str(SHIPPED_CLAIMS / name) for name in ("claims.tsv", "evidence.tsv")])
ENVIRONMENT = "../../envs/immunomod.yaml"


wildcard_constraints:
    sample="|".join(map(re.escape, SAMPLES)),
    dataset="|".join(map(re.escape, RUN.datasets)),
    atlas="|".join(map(re.escape, RUN.atlases)),
    contrast="|".join(map(re.escape, CONTRASTS)),


# Results may lie where nothing can be written; and a run on a cluster that was killed may have left jobs that write.
onstart:
    try:
        refuse_unwritable(path for job in workflow.dag.needrun_jobs() for path in job.output)
        cancel_left_jobs(workflow)
        say_why_groups_fail(logger)
    except UserError as error:
        raise WorkflowError(str(error)) from None
