"""Small simulated studies, drawn once."""

import pytest

from immunomod.programs import ProgramSet, load_programs
from immunomod.simulate.profiles import Profiles, load_profiles
from immunomod.simulate.settings import SimulationSettings
from immunomod.simulate.study import Study, simulate_study


@pytest.fixture(scope="session")
def programs() -> ProgramSet:
    return load_programs()


@pytest.fixture(scope="session")
def profiles() -> Profiles:
    return load_profiles()


@pytest.fixture(scope="session")
def small_study(programs: ProgramSet, profiles: Profiles) -> Study:
    """2 donors, a quarter of the demo's cells."""
    return simulate_study(SimulationSettings(n_donors=2, cells_scale=0.25, leakage=0.05, seed=7), programs, profiles)
