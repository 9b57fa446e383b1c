"""``immunomod simulate``: write a simulated co-culture study with its truth, ready to be run."""

from __future__ import annotations

import os
from pathlib import Path

from immunomod.errors import UserError
from immunomod.simulate.geo_layout import SERIES, write_archive, write_geo_tree, write_run, write_truth
from immunomod.simulate.settings import SimulationSettings
from immunomod.simulate.study import simulate_study


def simulate_command(
    out: Path,
    donors: int = 4,
    layout: str = "triplet_v3",
    seed: int = 1,
    cells_scale: float = 1.0,
    effect_scale: float = 1.0,
    donor_sd: float = 0.25,
    leakage: float = 0.05,
    ambient: float = 0.0,
    empty_droplets: int = 0,
    doublet_rate: float = 0.04,
    stimulus: str = "PHA",
    archive: bool = False,
    config: Path | None = None,
) -> str:
    """Write a study under ``out``: ``geo/`` (the mirror), ``truth/``, and ``config.yaml`` with its two sheets.

    Parameters
    ----------
    out
        A folder that does not exist or holds nothing.
    donors, seed, cells_scale, effect_scale, donor_sd, leakage, ambient, empty_droplets, doublet_rate, stimulus
        See :class:`immunomod.simulate.settings.SimulationSettings`.
    layout
        One of :data:`immunomod.simulate.geo_layout.LAYOUTS`.
    archive
        Write the series' ``RAW.tar`` too, as GEO does.
    config
        Folder of the config and the sheets; ``out`` where it is not given.

    Returns
    -------
    What was written, in a sentence, and how to run it.

    Raises
    ------
    UserError
        A value is out of range, or ``out`` holds files already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder. Name another one, or remove it first.")
    settings = SimulationSettings(
        n_donors=donors,
        cells_scale=cells_scale,
        effect_scale=effect_scale,
        donor_sd=donor_sd,
        leakage=leakage,
        ambient=ambient,
        empty_droplets=empty_droplets,
        doublet_rate=doublet_rate,
        stimulus=stimulus,
        seed=seed,
    )
    study = simulate_study(settings)
    write_geo_tree(study, out / "geo", layout)
    if archive:
        write_archive(out / "geo")
    write_truth(study, out / "truth")
    config = config or out
    write_run(study, config, Path(os.path.relpath(out / "geo", config)).as_posix())
    return (
        f"{SERIES}: {study.adata.n_obs} droplets x {study.adata.n_vars} genes in {len(study.libraries)} libraries of "
        f"{donors} donors, under {out}. Run it with: snakemake --configfile {config / 'config.yaml'} --cores 2"
    )
