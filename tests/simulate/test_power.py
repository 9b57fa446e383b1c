import pytest

from immunomod.errors import UserError
from immunomod.simulate.power import power_command, power_table
from immunomod.simulate.settings import CELL_CLASSES, PlantedEffect, SimulationSettings

SMALL = SimulationSettings(
    cell_classes=tuple(cells for cells in CELL_CLASSES if cells.name in ("MSC", "CD4_T")),
    effects=(PlantedEffect("msc_ifng_core", ("MSC",), 1.5), PlantedEffect("imm_T_prolif_G2M", ("T",), -0.3)),
    composition_shift=(),
)


@pytest.mark.slow
def test_power_grows_with_donors_and_with_the_effect():
    table = power_table(SMALL, donors=(2, 5), n_studies=6).set_index(["donors", "program"])
    assert table.at[(5, "msc_ifng_core"), "power"] == 1.0
    assert table.at[(5, "msc_ifng_core"), "power"] >= table.at[(5, "imm_T_prolif_G2M"), "power"]
    assert table.at[(5, "msc_ifng_core"), "half_width"] < table.at[(2, "msc_ifng_core"), "half_width"]
    assert table.at[(5, "msc_ifng_core"), "effect"] == pytest.approx(1.5, abs=0.25)
    assert table["studies"].le(6).all()


def test_power_needs_replicates():
    with pytest.raises(UserError, match="1 donors"):
        power_table(SMALL, donors=(1, 3))


@pytest.mark.slow
def test_power_command_writes_its_table(tmp_path):
    said = power_command(tmp_path / "power.tsv", donors=(2, 3), studies=1, cells_scale=0.5)
    assert "msc_ifng_core" in said
    assert (tmp_path / "power.tsv").read_text().startswith("donors\tcell_class\tprogram")
