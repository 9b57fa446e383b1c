"""Variance components: against analysis of variance, MixedLM, brute force, and simulation with known components."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from immunomod.synthesis.variance_components import error_contrasts, reml, variance_components


def study(rng, n_sources=3, n_donors=4, n_cultures=2, source=0.5, donor=0.7, culture=0.5):
    """Cultures of donors of sources; every standard deviation by name."""
    of_source = np.repeat(np.arange(n_sources), n_donors)
    level = rng.normal(0, source, n_sources)[of_source] + rng.normal(0, donor, len(of_source))
    cultures = level[:, None] + rng.normal(0, culture, (len(of_source), n_cultures))
    return of_source, cultures


def contrasts_of(of_source, cultures):
    n, r = cultures.shape
    means = cultures.mean(axis=1)
    square = float(((cultures - means[:, None]) ** 2).sum()) / (n * (r - 1)) if r > 1 else 0.0
    return error_contrasts(
        means, {"donor": range(n), "source": of_source}, "culture", np.full(n, 1 / r), square, n * (r - 1)
    )


def by_name(contrasts) -> dict[str, float]:
    return dict(zip(contrasts.factors, reml(contrasts), strict=True))


def test_balanced_designs_equal_analysis_of_variance():
    of_source, cultures = study(np.random.default_rng(3), 4, 5, 3, 1.5, 1.0, 0.5)
    found = by_name(contrasts_of(of_source, cultures)[0])
    means = cultures.mean(axis=1).reshape(4, 5)
    within = ((cultures - cultures.mean(axis=1, keepdims=True)) ** 2).sum() / (20 * 2)
    donors = 3 * ((means - means.mean(axis=1, keepdims=True)) ** 2).sum() / (4 * 4)
    sources = 15 * means.mean(axis=1).var(ddof=1)
    assert min(donors - within, sources - donors) > 0
    assert found["culture"] == pytest.approx(within, rel=1e-4)
    assert found["donor"] == pytest.approx((donors - within) / 3, rel=1e-4)
    assert found["source"] == pytest.approx((sources - donors) / 15, rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_unbalanced_designs_equal_mixedlm(seed):
    statsmodels = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(seed)
    of_source, cultures = study(rng, 5, 4, 4, 1.0, 0.8, 0.6)
    sizes = rng.integers(1, 5, len(of_source))
    kept = np.arange(4)[None, :] < sizes[:, None]
    means = np.array([row[keep].mean() for row, keep in zip(cultures, kept, strict=True)])
    df = int((sizes - 1).sum())
    square = sum(((row[keep] - row[keep].mean()) ** 2).sum() for row, keep in zip(cultures, kept, strict=True)) / df
    contrasts, left_out = error_contrasts(
        means, {"donor": range(len(means)), "source": of_source}, "culture", 1 / sizes, square, df
    )
    assert left_out == {}
    rows = [
        (of_source[i], i, cultures[i, j]) for i in range(len(of_source)) for j in range(4) if kept[i, j]
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["source", "donor", "y"])
    model = statsmodels.MixedLM.from_formula(
        "y ~ 1", groups="source", re_formula="1", vc_formula={"donor": "0 + C(donor)"}, data=table
    ).fit(reml=True)
    expected = {
        "source": float(model.cov_re.iloc[0, 0]), "donor": float(model.vcomp[0]), "culture": float(model.scale),
    }  # fmt: skip
    assert by_name(contrasts) == pytest.approx(expected, rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("study", range(1, 7))
def test_crossed_designs_equal_lme4(study):
    """R's lme4 on single cultures; donors of a source lie in several data sets. ``reference`` has script and values."""
    folder = Path(__file__).parent / "reference"
    cultures = pd.read_csv(folder / "variance_cultures.tsv", sep="\t").query("study == @study")
    expected = pd.read_csv(folder / "variance_lme4.tsv", sep="\t").query("study == @study")
    units = cultures.groupby(["donor", "dataset"]).agg(source=("source", "first"), y=("y", "mean"), n=("y", "size"))
    units = units.reset_index()
    within = cultures["y"] - cultures.groupby(["donor", "dataset"])["y"].transform("mean")
    df = len(cultures) - len(units)
    groupings = {name: units[name].tolist() for name in ("dataset", "donor", "source")}
    contrasts, left_out = error_contrasts(
        units["y"].to_numpy(), groupings, "culture", 1 / units["n"].to_numpy(), float((within**2).sum()) / df, df
    )
    assert left_out == {}
    assert by_name(contrasts) == pytest.approx(
        dict(zip(expected["component"], expected["variance"], strict=True)), rel=2e-3, abs=2e-4
    )


def test_the_restricted_likelihood_has_no_higher_point():
    """Crossed donors and data sets, unequal sizes: a global search of the normal density finds nothing better."""
    rng = np.random.default_rng(8)
    dataset, donor = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2]), np.array([0, 1, 2, 0, 1, 3, 4, 2, 5])
    sizes = np.array([1, 2, 1, 3, 1, 1, 2, 1, 1])
    y = rng.normal(0, 1, 6)[donor] + rng.normal(0, 0.5, 3)[dataset] + rng.normal(0, 0.4, 9) / np.sqrt(sizes)
    square, df = 0.2, 5
    contrasts, _ = error_contrasts(y, {"donor": donor, "dataset": dataset}, "culture", 1 / sizes, square, df)
    same = [(a[:, None] == a[None, :]).astype(float) for a in (donor, dataset)]

    def loss(theta) -> float:
        culture, *rest = np.exp(theta)
        covariance = culture * np.diag(1 / sizes) + sum(v * m for v, m in zip(rest, same, strict=True))
        inverse = np.linalg.inv(covariance)
        ones = np.ones(9)
        mean = ones @ inverse @ y / (ones @ inverse @ ones)
        value = np.linalg.slogdet(covariance)[1] + np.log(ones @ inverse @ ones) + (y - mean) @ inverse @ (y - mean)
        return 0.5 * (value + df * np.log(culture) + df * square / culture)

    best = optimize.differential_evolution(loss, [(-12, 4)] * 3, seed=1, tol=1e-10, maxiter=400)
    found = [max(by_name(contrasts)[name], 1e-9) for name in ("culture", "donor", "dataset")]
    assert loss(np.log(found)) <= best.fun + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        {"n_sources": 2},
        {"n_sources": 3, "source": 1.0},
        {"n_sources": 3, "source": 0.0, "donor": 0.0},
        {"n_sources": 4, "n_donors": 5, "n_cultures": 3, "donor": 0.2},
    ],
    ids=str,
)
def test_intervals_hold_known_components(sizes):
    rng = np.random.default_rng(1)
    truth = {"source": 0.5, "donor": 0.7, "culture": 0.5} | {
        name: sizes[name] for name in ("source", "donor") if name in sizes
    }
    n, held, sums = 250, dict.fromkeys(truth, 0), dict.fromkeys(truth, 0.0)
    for number in range(n):
        found = variance_components(contrasts_of(*study(rng, **sizes))[0], n_bootstrap=500, seed=number)
        for name, sd in truth.items():
            held[name] += found[name].low <= sd**2 <= found[name].high
            sums[name] += found[name].variance
    for name, sd in truth.items():
        assert held[name] / n >= 0.90, (name, held[name] / n)
        assert sums[name] / n == pytest.approx(sd**2, abs=0.12 + 0.1 * sd**2)


def test_the_interval_of_one_group_of_donors_is_the_chi_squared_one():
    y = np.random.default_rng(2).normal(0, 1.3, 9)
    contrasts, _ = error_contrasts(y, {"donor": range(9)}, "culture", np.ones(9), 0.0, 0)
    found = variance_components(contrasts, n_bootstrap=40_000)["donor"]
    assert found.variance == pytest.approx(y.var(ddof=1), rel=1e-5)
    limits = 8 * y.var(ddof=1) / stats.chi2.ppf([0.975, 0.025], 8)
    np.testing.assert_allclose([found.low, found.high], limits, rtol=0.05)


def test_an_estimate_of_zero_has_an_upper_limit():
    rng = np.random.default_rng(0)
    for _ in range(50):
        contrasts, _ = contrasts_of(*study(rng, source=0.0))
        found = variance_components(contrasts, n_bootstrap=500)["source"]
        if found.variance < 1e-9:
            assert found.low == 0.0 and found.high > 0.01
            return
    raise AssertionError("no study with an estimate of zero")


def test_components_that_change_together_are_named():
    y = np.arange(6.0)
    source = ["a", "a", "a", "b", "b", "b"]
    contrasts, left_out = error_contrasts(
        y, {"donor": range(6), "dataset": [0, 0, 0, 1, 1, 1], "source": source}, "culture", np.ones(6), 0.3, 4
    )
    assert left_out == {"source": "dataset"}
    assert list(contrasts.factors) == ["culture", "donor", "dataset"]
    _, left_out = error_contrasts(y, {"donor": range(6), "source": list("abcdef")}, "culture", np.ones(6), 0.3, 4)
    assert left_out == {"source": "donor"}
    _, left_out = error_contrasts(y, {"donor": range(6), "source": ["a"] * 6}, "culture", np.ones(6), 0.3, 4)
    assert left_out == {"source": ""}


def test_order_and_sign_do_not_matter():
    of_source, cultures = study(np.random.default_rng(5))
    plain = by_name(contrasts_of(of_source, cultures)[0])
    order = np.random.default_rng(6).permutation(len(of_source))
    assert by_name(contrasts_of(of_source[order], cultures[order])[0]) == pytest.approx(plain, rel=1e-3, abs=1e-6)
    assert by_name(contrasts_of(of_source, -cultures)[0]) == pytest.approx(plain, rel=1e-3, abs=1e-6)


def test_equal_values_have_no_variance():
    contrasts, _ = error_contrasts(np.ones(5), {"donor": range(5)}, "culture", np.ones(5), 0.0, 0)
    found = variance_components(contrasts)["donor"]
    assert found.variance == 0 and np.isnan(found.high)
