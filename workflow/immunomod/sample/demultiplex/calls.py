"""Which hashtag each droplet of a pooled lane carries: methods as rows of a registry, and what is believed of them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError
from immunomod.sample.demultiplex.mixture import fit_mixture
from immunomod.sample.settings import DemultiplexSettings

SINGLET, DOUBLET, NEGATIVE = "singlet", "doublet", "negative"
#: Below this mean probability of the calls the tags are said to separate badly.
_SURE_MEAN = 0.95
_FEW_CELLS = 50
#: Where one tag's two components lie closer than so many times, they are halves of one.
_ONE_MODE = 5.0


@dataclass(frozen=True)
class HashtagCalls:
    """What a method makes of each droplet.

    ``hashtag`` (droplets,): the tag of a singlet, else empty. ``status``: ``singlet``, ``doublet`` (two tags) or
    ``negative`` (none, or none surely). ``probability``: of the call; NaN where the method could not judge. ``note`` is
    empty where all is well.
    """

    hashtag: NDArray[np.object_]
    status: NDArray[np.object_]
    probability: NDArray[np.float64]
    note: str

    def share(self, status: str) -> float:
        """Share of the droplets with a status."""
        return float(np.mean(self.status == status)) if len(self.status) else 0.0


@dataclass(frozen=True)
class Method:
    """A way to call hashtags. ``run(counts, settings, seed)`` takes droplets x hashtags of a lane, all with counts."""

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[pd.DataFrame, DemultiplexSettings, int], HashtagCalls]


def _run_mixture(counts: pd.DataFrame, _settings: DemultiplexSettings, _seed: int) -> HashtagCalls:
    fit = fit_mixture(counts.to_numpy(dtype=np.int64))
    if counts.shape[1] == 1 and fit.signal[0] < _ONE_MODE * fit.background[0]:
        # Nothing sets stained cells of the one tag apart: the counts are one heap, which was cut in two.
        name = counts.columns[0]
        everyone = np.full(len(counts), name, dtype=object)
        singlets = np.full(len(counts), SINGLET, dtype=object)
        note = f"counts of {name} have one mode: every cell is taken to carry it"
        return HashtagCalls(everyone, singlets, np.ones(len(counts)), note)
    calls = _most_likely(fit.negative, fit.singlet, fit.doublet, counts.columns)
    carried = pd.Series(calls.hashtag).value_counts().reindex(counts.columns, fill_value=0)
    unused = [str(name) for name in carried.index[carried == 0]]
    return replace(calls, note=f"no cell carries {', '.join(unused)} alone" if unused else "")


def _run_hashsolo(counts: pd.DataFrame, _settings: DemultiplexSettings, _seed: int) -> HashtagCalls:
    """HashSolo through scanpy. Its default takes all but two tags for noise, which are none where there are two.

    It ranks a droplet's tags, and equal counts in the order of the columns: they are put in the order of their names.
    """
    counts = counts[sorted(counts.columns)]
    n, n_tags = counts.shape
    if n_tags < 2:
        return no_calls(n, "hashsolo needs two hashtags with counts: set `demultiplexing: {method: mixture}`")
    import scanpy.external as sce
    from anndata import AnnData

    names = [f"tag{number}" for number in range(n_tags)]
    obs = pd.DataFrame(counts.to_numpy(dtype=np.float64), columns=names, index=np.arange(n).astype(str))
    adata = AnnData(np.zeros((n, 1), dtype=np.float32), obs=obs)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        sce.pp.hashsolo(adata, names, number_of_noise_barcodes=max(n_tags - 2, 1))
    found = adata.obs
    of = {
        status: found[f"{status}_hypothesis_probability"].to_numpy(dtype=np.float64)
        for status in (NEGATIVE, SINGLET, DOUBLET)
    }
    if not np.isfinite(of[SINGLET]).all():
        return no_calls(n, "hashsolo gave no probabilities: set `demultiplexing: {method: mixture}`")
    singlet = np.zeros((n, n_tags))
    singlet[np.arange(n), counts.to_numpy().argmax(axis=1)] = of[SINGLET]
    return _most_likely(of[NEGATIVE], singlet, of[DOUBLET], counts.columns)


def _most_likely(
    negative: NDArray[np.float64], singlet: NDArray[np.float64], doublet: NDArray[np.float64], names: pd.Index
) -> HashtagCalls:
    """The most likely of all states; a singlet's probability is that of its tag."""
    tag = singlet.argmax(axis=1)
    of = np.stack([negative, singlet[np.arange(len(tag)), tag], doublet])
    status = np.array([NEGATIVE, SINGLET, DOUBLET], dtype=object)[of.argmax(axis=0)]
    hashtag = np.where(status == SINGLET, names.to_numpy(dtype=object)[tag], "")
    return HashtagCalls(hashtag, status, of.max(axis=0), "")


def no_calls(n_droplets: int, note: str) -> HashtagCalls:
    """Calls of a method that did not judge: nobody is named."""
    nobody = np.full(n_droplets, "", dtype=object)
    return HashtagCalls(nobody, np.full(n_droplets, NEGATIVE, dtype=object), np.full(n_droplets, np.nan), note)


REGISTRY: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="mixture",
            citation="after Klein 2023, Bioinformatics 39:btad481, doi:10.1093/bioinformatics/btad481",
            needs="counts of one lane's hashtags; one tag or more",
            limits="does not see doublets of one tag; takes tags to be alike where few cells carry one",
            run=_run_mixture,
        ),
        Method(
            name="hashsolo",
            citation="Bernstein et al. 2020, Cell Syst. 11:95, doi:10.1016/j.cels.2020.05.010",
            needs="counts of one lane's hashtags; three tags or more by its design, two at least",
            limits="takes the share of doublets and negatives as given (19% and 1%), so finds too many and too few",
            run=_run_hashsolo,
        ),
    )
}


def call_hashtags(counts: pd.DataFrame, settings: DemultiplexSettings, seed: int) -> HashtagCalls:
    """Call each droplet's hashtag by the method of the settings.

    Parameters
    ----------
    counts
        Droplets x hashtags of one lane, all tags that were in the pool; NaN where a droplet is not in the matrix of
        hashtags.
    settings
        Method, and how sure a singlet must be: one that is less so is ``negative``.
    seed
        For methods that draw; neither of the registry does.
    """
    if settings.method not in REGISTRY:
        raise UserError(
            f"config: demultiplexing.method is {settings.method!r}; it must be one of {', '.join(REGISTRY)}."
        )
    notes = []
    absent = counts.isna().any(axis=1).to_numpy() if len(counts) else np.zeros(0, dtype=bool)
    if absent.any():
        notes.append(f"{absent.sum():,} droplets are not in the matrix of hashtags")
    whole = counts.fillna(0).astype(np.int64)
    with_counts = (whole.sum(axis=0) > 0).to_numpy() if len(whole) else np.zeros(whole.shape[1], dtype=bool)
    if empty := [str(name) for name in whole.columns[~with_counts]]:
        notes.append(f"no count of {', '.join(empty)}")
    if not with_counts.any() or len(whole) == 0:
        what = "no droplet" if len(whole) == 0 else "no hashtag has a count"
        return no_calls(len(whole), "; ".join([f"hashtags not called: {what}", *notes]))
    # A droplet without a count says nothing of the background either: it is left out of the fit.
    is_counted = (whole.sum(axis=1) > 0).to_numpy()
    calls = REGISTRY[settings.method].run(whole.loc[is_counted, with_counts], settings, seed)
    unsure = (calls.status == SINGLET) & (calls.probability < settings.min_probability)
    calls.status[unsure], calls.hashtag[unsure] = NEGATIVE, ""
    all_calls = no_calls(len(whole), "")
    all_calls.hashtag[is_counted], all_calls.status[is_counted] = calls.hashtag, calls.status
    all_calls.probability[:] = 1.0
    all_calls.probability[is_counted] = calls.probability
    notes += [calls.note] if calls.note else []
    notes += _doubts(calls, int(with_counts.sum()), unsure)
    return replace(all_calls, note="; ".join(notes))


def _doubts(calls: HashtagCalls, n_tags: int, unsure: NDArray[np.bool_]) -> list[str]:
    notes: list[str] = []
    if len(calls.status) < _FEW_CELLS:
        notes.append(f"hashtags called on {len(calls.status)} droplets alone")
    if not np.isfinite(calls.probability).any():
        return notes
    if n_tags == 1:
        notes.append("one hashtag: doublets cannot be seen")
    if calls.probability.mean() < _SURE_MEAN:
        notes.append(f"hashtags separate badly: calls are {100 * calls.probability.mean():.0f}% sure on average")
    if unsure.mean() > 1 - _SURE_MEAN:
        notes.append(f"{100 * unsure.mean():.0f}% of the droplets carry a hashtag too unsurely to be named")
    return notes
