"""An executor for tests: every job in an empty folder of its own, as in a pod of Kubernetes.

A job brings nothing along but the archive of sources that Snakemake left in the store, and leaves nothing but what it
puts there. The environment variable ``PODS`` names the folder of the folders.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

# As those of the executor plugin for Kubernetes 0.5, which also has pip fetch the storage plugin in every pod.
common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=True,
    job_deploy_sources=True,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=0,
)


class ExecutorSettings(ExecutorSettingsBase):
    """None."""


class Executor(RemoteExecutor):
    """Jobs as processes that share no folder."""

    def __post_init__(self) -> None:
        self.folder = Path(os.environ["PODS"])

    def run_job(self, job: JobExecutorInterface) -> None:
        pod = Path(tempfile.mkdtemp(prefix=f"{'-'.join(sorted(job.rules))}.", dir=self.folder))
        with (self.folder / f"{pod.name}.log").open("w") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", self.format_job_exec(job)],
                cwd=pod,
                env=os.environ | self.envvars() | {"HOME": str(pod), "XDG_CACHE_HOME": str(pod / ".cache")},
                stdout=log,
                stderr=log,
            )
        self.report_job_submission(SubmittedJobInfo(job=job, external_jobid=pod.name, aux={"process": process}))

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        for info in active_jobs:
            status = info.aux["process"].poll()
            if status is None:
                yield info
            elif status == 0:
                self.report_job_success(info)
            else:
                self.report_job_error(info, aux_logs=[str(self.folder / f"{info.external_jobid}.log")])

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        for info in active_jobs:
            info.aux["process"].terminate()
