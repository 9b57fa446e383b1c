"""Power of the t test of a mean change, in closed form, and the number of donors that reaches it.

With ``n`` donors the estimate has variance ``sd^2 / n`` (pairs; ``sd`` of the paired differences) or ``2 sd^2 / n``
(independent arms of ``n``; ``sd`` inside an arm), plus that of an error which all donors share and which no number of
donors averages out. The statistic is noncentral t; degrees of freedom are n - 1 or 2 n - 2, after Satterthwaite where
there is a shared error. Power is the chance of p below ``alpha``, two-sided, with the sign of the truth.

The moderation of variances over programmes is left out: the workflow's own test finds more with few donors.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from immunomod.errors import UserError

MAX_DF = 1e6


def t_power(effect: float, sd: float, n: int, paired: bool, alpha: float = 0.05, common_se: float = 0.0) -> float:
    """Power with ``n`` donors (each in both arms if ``paired``, else per arm), 2 or more.

    Parameters
    ----------
    effect, sd, common_se
        Log2 units: true change, standard deviation (of differences if ``paired``), standard error that donors share.
    """
    between = sd**2 / n if paired else 2 * sd**2 / n
    error = float(np.sqrt(between + common_se**2))
    if error == 0:
        return 1.0 if effect else alpha / 2
    own = n - 1 if paired else 2 * n - 2
    df = MAX_DF if between == 0 else min(own * ((between + common_se**2) / between) ** 2, MAX_DF)
    limit = float(stats.t.isf(alpha / 2, df))
    power = float(stats.nct.sf(limit, df, abs(effect) / error))
    # far beyond the limit scipy's noncentral t loses itself; the normal approximation is exact to all digits there
    return power if np.isfinite(power) else float(stats.norm.sf(limit - abs(effect) / error))


def donors_needed(
    effect: float,
    sd: float,
    paired: bool,
    target: float = 0.8,
    alpha: float = 0.05,
    max_donors: int = 100,
    common_se: float = 0.0,
) -> int | None:
    """Smallest number of donors, 2 to ``max_donors``, with at least the power ``target``; None where none has it."""
    check_question(target, alpha, max_donors)

    def enough(n: int) -> bool:
        return t_power(effect, sd, n, paired, alpha, common_se) >= target

    low, high = 2, max_donors
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def upper_sd(sd: float, df: float, confidence: float = 0.8) -> float:
    """Upper limit, one-sided, of a standard deviation that was estimated with ``df`` degrees of freedom.

    A study planned on the estimate itself has less than its power in half of the cases; Browne (Statistics in Medicine
    1995, 14:1933) recommends the 80% limit.
    """
    return float(sd * np.sqrt(df / stats.chi2.ppf(1 - confidence, df)))


def check_question(target: float, alpha: float, max_donors: int) -> None:
    """Raise a :class:`UserError` unless the numbers can be asked for."""
    if not 0 < target < 1:
        raise UserError(f"--target is {target}: a power between 0 and 1 is needed, such as 0.8")
    if not 0 < alpha < 1:
        raise UserError(f"--alpha is {alpha}: a level between 0 and 1 is needed, such as 0.05")
    if max_donors < 2:
        raise UserError(f"--max-donors is {max_donors}: 2 or more are needed, cells are no replicates")
