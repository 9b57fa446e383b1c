"""Simulated co-culture studies with known truth, written as GEO serves a series.

:func:`~immunomod.simulate.study.simulate_study` draws a study from
:class:`~immunomod.simulate.settings.SimulationSettings`; :mod:`~immunomod.simulate.geo_layout` writes it;
:mod:`~immunomod.simulate.power` asks how many donors an effect needs.
"""
