"""Square a table's numbers, after what the job is told to do wrong."""

import os
import time
from pathlib import Path

from immunomod.files import atomic_path, read_tsv
from immunomod.job import rule_job

with rule_job(snakemake):
    fault = Path(snakemake.params.fault)
    if fault.exists():
        kind = fault.read_text()
        Path(f"{fault}.pid").write_text(str(os.getpid()))
        if kind == "memory":  # as much as the second attempt may have
            held = b"\1" * 900_000_000
            time.sleep(8)
        elif kind == "slow" and snakemake.resources.runtime == 1:
            time.sleep(3600)
        elif kind == "wait":
            fault.unlink()
            time.sleep(3600)
    table = read_tsv(snakemake.input[0])
    with atomic_path(snakemake.output[0]) as temporary, temporary.open("w") as handle:
        handle.write("number\tsquare\n")
        for number in table["number"]:
            handle.write(f"{number}\t{number**2}\n")
            if fault.exists() and fault.read_text() == "half":
                handle.flush()
                fault.unlink()
                time.sleep(3600)
