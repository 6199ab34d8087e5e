"""A bound for the gradient norm, from the norms of a run; apart from :mod:`.clipping` because it needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Quantile of the norms that :func:`suggest_bound` takes.
QUANTILE = 0.9


def suggest_bound(norms: Sequence[float]) -> float | None:
    """Bound to try, from the norms of a run: the 90% quantile of the finite ones, to two digits.

    It leaves nine steps of ten as they are and cuts the tail, whatever the scale of the model's gradients (the idea of
    AutoClip, Seetharaman et al. 2020, arXiv:2007.14469, with a fixed bound instead of a moving one). None without
    a finite positive norm.
    """
    finite = [value for value in norms if math.isfinite(value) and value > 0]
    if not finite:
        return None
    bound = float(np.quantile(finite, QUANTILE))
    return float(f"{bound:.2g}")
