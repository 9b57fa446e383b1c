"""The command line: ``immunomod init``, ``check``, ``simulate`` and ``power``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from immunomod import __version__
from immunomod.errors import UserError, count_problems, exit_on_user_error

app = typer.Typer(
    help="What co-culture with mesenchymal stromal cells does to immune cells, and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@app.command()
def init(
    source: Annotated[str, typer.Argument(help="A GEO series, such as GSE96583, or a folder with matrices.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; a folder named after the series or folder by default.")
    ] = None,
    base_url: Annotated[str, typer.Option(help="A mirror of GEO: an address, or a folder laid out as its /geo/.")] = "",
) -> None:
    """Write a config and sheets to edit, from a series' own metadata or from the names of files in a folder.

    Every guess is marked, what cannot be known is left empty, and nothing is ever overwritten.
    """
    from immunomod.init.command import init_command

    with exit_on_user_error():
        typer.echo(init_command(source, out, base_url))


@app.command()
def check(
    config: Annotated[Path, typer.Option(help="The config file of the study.")] = Path("config/config.yaml"),
    results: Annotated[
        Path | None, typer.Option(help="The run's folder of results, where metadata of GEO are kept.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network, and say what was not looked at.")] = False,
    out: Annotated[Path | None, typer.Option(help="A folder for problems.tsv, coverage.tsv and summary.txt.")] = None,
) -> None:
    """Look at a study before it is run: config, sheets, programmes, files and their headers, designs, disk and memory.

    Every problem is named by file, row and column, with its fix. Exit status 1 if there is an error, 0 with warnings.
    """
    from immunomod.preflight import check_file

    with exit_on_user_error():
        findings = check_file(config, results, offline)
        if out is not None:
            findings.write(out)
        typer.echo(findings.text())
        if findings.has_errors:
            raise UserError(
                f"{config}: {count_problems(findings.problems)}. Mend what is listed above and check again."
            )


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="A new folder for the study; with --power the table to write.")],
    donors: Annotated[int, typer.Option(help="Donors, each with MSC alone, immune cells alone and a co-culture.")] = 4,
    layout: Annotated[str, typer.Option(help="triplet_v3, triplet_v2, h5 or dense_csv.")] = "triplet_v3",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    cells_scale: Annotated[float, typer.Option(help="Cells per library, relative to the demo.")] = 1.0,
    effect_scale: Annotated[float, typer.Option(help="Planted effects, relative to the demo; 0 plants none.")] = 1.0,
    donor_sd: Annotated[float, typer.Option(help="SD of an effect between donors, in log2 units.")] = 0.25,
    leakage: Annotated[float, typer.Option(help="Share of a co-culture cell's RNA that is its partners'.")] = 0.05,
    ambient: Annotated[
        float, typer.Option(help="Share of a library's RNA in droplets that is soup of all cells.")
    ] = 0.0,
    empty_droplets: Annotated[int, typer.Option(help="Droplets without a cell per library.")] = 0,
    doublet_rate: Annotated[float, typer.Option(help="Share of droplets that hold two cells.")] = 0.04,
    stimulus: Annotated[str, typer.Option(help="What stimulated the immune cells.")] = "PHA",
    archive: Annotated[bool, typer.Option(help="Write the series' RAW.tar too.")] = False,
    power: Annotated[bool, typer.Option("--power", help="Answer how many donors an effect needs instead.")] = False,
    from_results: Annotated[
        Path | None,
        typer.Option(help="With --power: take the variation between donors from this results folder of a run."),
    ] = None,
    effect: Annotated[str, typer.Option(help="With --power: log2 changes, separated by commas.")] = "1",
    target: Annotated[float, typer.Option(help="With --power: the power to reach.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="With --power: level of the test, two-sided.")] = 0.05,
    max_donors: Annotated[int, typer.Option(help="With --power: the largest number of donors looked at.")] = 100,
    studies: Annotated[int, typer.Option(help="With --power: simulated studies.")] = 20,
) -> None:
    """Write a simulated co-culture study with known truth, laid out as GEO serves it, ready to be run.

    With --power, answer how many donors a study needs for a given effect: from simulated studies, or with
    --from-results from the variation between your own donors.
    """
    from immunomod.simulate.command import simulate_command
    from immunomod.simulate.donors import donors_command
    from immunomod.simulate.settings import SimulationSettings

    with exit_on_user_error():
        if from_results is not None and not power:
            raise UserError("--from-results answers how many donors are needed. Add --power.")
        if power:
            study = SimulationSettings(
                cells_scale=cells_scale,
                donor_sd=donor_sd,
                leakage=leakage,
                ambient=ambient,
                stimulus=stimulus,
                seed=seed,
            )
            changes = numbers(effect, "--effect")
            answer = donors_command(out, from_results, changes, target, alpha, max_donors, studies, study)
            typer.echo(answer)
            return
        typer.echo(
            simulate_command(
                out,
                donors=donors,
                layout=layout,
                seed=seed,
                cells_scale=cells_scale,
                effect_scale=effect_scale,
                donor_sd=donor_sd,
                leakage=leakage,
                ambient=ambient,
                empty_droplets=empty_droplets,
                doublet_rate=doublet_rate,
                stimulus=stimulus,
                archive=archive,
            )
        )


@app.command()
def power(
    out: Annotated[Path, typer.Argument(help="The table to write (tab-separated).")],
    donors: Annotated[str, typer.Option(help="Numbers of donors, separated by commas.")] = "2,3,4,6,8",
    studies: Annotated[int, typer.Option(help="Simulated studies.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed gives the same table.")] = 1,
    cells_scale: Annotated[float, typer.Option(help="Cells per library, relative to the demo.")] = 1.0,
    effect_scale: Annotated[float, typer.Option(help="Planted effects, relative to the demo.")] = 1.0,
    donor_sd: Annotated[float, typer.Option(help="SD of an effect between donors, in log2 units.")] = 0.25,
) -> None:
    """How many donors do I need? Power of every planted programme, by simulating studies and testing them."""
    from immunomod.simulate.power import power_command

    with exit_on_user_error():
        counts = whole_numbers(donors, "--donors")
        typer.echo(power_command(out, counts, studies, seed, cells_scale, effect_scale, donor_sd))


def whole_numbers(text: str, option: str) -> list[int]:
    """The whole numbers of a comma-separated option."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: whole numbers separated by commas are needed, such as 2,3,4") from None


def numbers(text: str, option: str) -> list[float]:
    """The numbers of a comma-separated option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: numbers separated by commas are needed, such as 0.5,1") from None


def main() -> None:
    """Entry point of the ``immunomod`` command."""
    app()
