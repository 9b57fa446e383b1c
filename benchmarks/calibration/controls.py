"""Negative and positive controls on simulated pseudobulks of the shipped programmes (see ``floor.draw_study``)."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pandas as pd
from common import (
    ALPHA,
    REPOSITORY,
    as_weights,
    draw_pairs,
    draw_programmes,
    draw_rates,
    programme_effects,
    record,
)
from floor import PLANTED, draw_study
from scipy import stats

from immunomod.contrast.model import sign_flip_p
from immunomod.contrast.scores import measure_expression
from immunomod.programs import load_programs

LEFT_OUT = (("MSC", "msc_ifng_core", "IDO1"), ("CD4_T", "imm_Th1", "IFNG"))


def sign_flips(repeats: int) -> list[dict]:
    """All flips of the donors' labels where the true effect is strong (5 standard deviations of the donors).

    A null for the exact test alone: over all 2^n flips its p takes every value of its grid, j 2 / 2^n, equally often,
    so that the largest distance of the two distributions is 0. A t-test must reject the two flips that are the truth
    and its mirror image.
    """
    rows = []
    for n in (3, 4, 6, 8):
        grid = np.arange(1, 2 ** (n - 1) + 1) / 2 ** (n - 1)
        distance, rejected = [], []
        for repeat in range(repeats if n < 8 else max(repeats // 10, 2)):
            rng = np.random.default_rng([23, n, repeat])
            signs = np.array(list(product((1.0, -1.0), repeat=n)))
            flipped = signs * rng.normal(5, 1, n)
            exact = sign_flip_p(flipped.T, 2**n, seed=0)
            reached = (exact[:, None] <= grid + 1e-12).mean(axis=0)
            distance.append(np.abs(reached - grid).max())
            rejected.append((stats.ttest_1samp(flipped, 0, axis=1).pvalue < ALPHA).mean())
        rows.append(record("sign flips", f"{n} pairs, all flips; exact p", "distance_from_uniform", distance))
        rows.append(record("sign flips", f"{n} pairs, all flips; t-test", "rejected", rejected))
    return rows


def thinned_arm(repeats: int) -> list[dict]:
    """No true difference, the counts of the test arm thinned at random to a half or a quarter."""
    rows = []
    for kept in (0.5, 0.25):
        rejected, effects = [], []
        for repeat in range(repeats):
            rng = np.random.default_rng([24, repeat])
            rate = draw_rates(rng, 2000)
            sets = draw_programmes(rng, rate)
            counts, arms = draw_pairs(rng, rate, np.zeros((4, len(rate))), 4)
            counts[1::2] = rng.binomial(counts[1::2].astype(int), kept)
            effect, found = programme_effects(counts, arms, as_weights(sets, len(rate)), paired=True)
            rejected.append(np.where(np.isfinite(found.se), found.p_value < ALPHA, np.nan))
            effects.append(effect)
        rows.append(record("thinned arm", f"4 pairs; test arm at {kept:.0%}", "null_rejection", rejected))
        rows.append(record("thinned arm", f"4 pairs; test arm at {kept:.0%}", "mean_effect", effects))
    return rows


def programme_controls(repeats: int) -> list[dict]:
    """Planted programmes against what must not show the effect, or must keep it.

    *Matched random sets*: each gene of a planted programme replaced by one of the 50 untouched ones nearest to it.
    *Scrambled signs*: half of a planted programme's genes turned. *Wrong compartment*: programmes of MSC in T cells and
    monocytes, those of immune cells in MSC, without the genes that are planted there. *Leave one gene*: the programme
    without IDO1 or IFNG.
    """
    programmes = load_programs()
    weights, compartment = programmes.weights("human"), programmes.meta_for("human")["compartment"]
    found: dict[tuple[str, str, str], list] = {}

    def note(experiment: str, setting: str, measure: str, values: np.ndarray | list) -> None:
        found.setdefault((experiment, setting, measure), []).append(np.atleast_1d(np.asarray(values, dtype=float)))

    for repeat in range(repeats):
        rng = np.random.default_rng([25, repeat])
        study, truths = draw_study(rng, weights)
        genes = study.var_names
        full = weights.reindex(genes, fill_value=0.0)
        for cell_class, (_, _, planted) in PLANTED.items():
            counts = np.asarray(study.X[(study.obs["cell_class"] == cell_class).to_numpy()].todense(), dtype=float)
            arms = np.array(["reference", "test"] * 4, dtype=object)
            untouched = (truths[cell_class] == 0).to_numpy()
            expression = measure_expression(counts, arms, 3.0)
            foreign = compartment.index[(compartment == "MSC") != (cell_class == "MSC")]
            foreign = [name for name in foreign if compartment[name] != "both"]
            base = full[foreign].to_numpy() * untouched[:, None]
            extra = {}
            for name in planted:
                extra[name] = full[name].to_numpy()
                members = np.flatnonzero(extra[name] * expression.detected)
                pool = np.flatnonzero(expression.detected & untouched)
                matched = np.zeros(len(genes))
                for gene in members:
                    near = np.abs(expression.abundance[pool] - expression.abundance[gene])
                    matched[rng.choice(pool[np.argsort(near)[:50]])] = np.sign(extra[name][gene])
                extra[f"matched {name}"] = matched
                turned = np.sign(extra[name])
                turned[rng.permutation(members)[: len(members) // 2]] *= -1
                extra[f"scrambled {name}"] = turned
            for where, name, gene in LEFT_OUT:
                if where == cell_class:
                    extra[f"without {gene}"] = np.where(genes == gene, 0.0, extra[name])
            table = np.column_stack([base, *extra.values()])
            effect, inference = programme_effects(counts, arms, table, paired=True)
            rejected = np.where(np.isfinite(inference.se), inference.p_value < ALPHA, np.nan)
            note("wrong compartment", "all classes", "null_rejection", rejected[: len(foreign)])
            at = {name: len(foreign) + position for position, name in enumerate(extra)}
            for name in planted:
                note("matched random sets", "of planted programmes", "null_rejection", rejected[at[f"matched {name}"]])
                note("matched random sets", "of planted programmes", "mean_effect", effect[at[f"matched {name}"]])
                share = np.abs(effect[at[f"scrambled {name}"]] / effect[at[name]])
                note("scrambled signs", "of planted programmes", "share_of_effect", share)
            for where, name, gene in LEFT_OUT:
                if where == cell_class:
                    own = at[f"without {gene}"]
                    inside = inference.low[own] < planted[name] < inference.high[own]
                    covered = inside if np.isfinite(inference.se[own]) else np.nan
                    note("leave one gene", f"{name} without {gene}", "share_of_effect", effect[own] / effect[at[name]])
                    note("leave one gene", f"{name} without {gene}", "rejected", rejected[own])
                    note("leave one gene", f"{name} without {gene}", "coverage", covered)
    return [record(*key, np.concatenate(values)) for key, values in found.items()]


def leakage_only(repeats: int) -> list[dict]:
    """The arms differ by leaked partner RNA alone, a fifth of all; more studies: ``benchmarks/leakage.py``."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    from leakage import results, summarise

    rows = pd.concat(results("leakage only", 0.2, "true", repeats, 3000))
    names = {
        "untouched readouts with p < 0.05": "null_rejection",
        "studies with an untouched readout called": "studies_with_a_call",
    }
    table = []
    for corrected, chosen in rows.groupby("corrected", sort=False):
        setting = f"20% leakage, {'corrected' if corrected else 'not corrected'}, 4 donors"
        for words, value, n in summarise(chosen, "leakage only"):
            if words in names:
                table.append(record("leakage only", setting, names[words], [value]) | {"n": n})
    return table
