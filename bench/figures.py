"""From samples to figures and verdicts.

The range of a median is its confidence interval of 95 per cent by order statistics: of seven samples from the least to the
greatest, of more samples from within. So more samples make a verdict sharper, and one outlier does not blunt it. Fewer than
six have no such interval: their range is from the least to the greatest, and no verdict comes of them."""
import math
import statistics

MET, NOT_MET, UNRESOLVED = "met", "**not met**", "not resolved"
CONFIDENCE = 0.95
VERDICT_SAMPLES = 6  # 1 - 2 * 2 ** -5 would be less than that


def interval(values):
    """(low, high) of the median."""
    ordered = sorted(values)
    count, outside, drop = len(ordered), 0.0, 0
    for candidate in range((count + 1) // 2):
        outside += 2 * math.comb(count, candidate) / 2 ** count  # that the median is beyond what this many would leave
        if outside > 1 - CONFIDENCE:
            break
        drop = candidate
    return ordered[drop], ordered[-1 - drop]


def values_of(samples, figure="value"):
    return [one[figure] for one in samples if one.get(figure) is not None]


def median(samples, figure="value"):
    values = values_of(samples, figure)
    return statistics.median(values) if values else None


def ratio(ours, theirs, figure="value"):
    """Of the medians; None: there is nothing to divide."""
    upper, lower = median(ours, figure), median(theirs, figure)
    return upper / lower if upper is not None and lower else None


def verdict(ours, theirs, limit, low_is_good, figure="value"):
    """Is ours at most (at least) `limit` times theirs? Only if the ranges say so."""
    mine, others = values_of(ours, figure), values_of(theirs, figure)
    if min(len(mine), len(others)) < VERDICT_SAMPLES:
        return UNRESOLVED
    low, high = interval(mine)
    other_low, other_high = (limit * value for value in interval(others))
    if not low_is_good:
        low, high, other_low, other_high = other_low, other_high, low, high
    if high <= other_low:
        return MET
    return NOT_MET if low > other_high else UNRESOLVED


def verdict_absolute(ours, limit, low_is_good, figure="value"):
    return verdict(ours, [{figure: 1.0}] * VERDICT_SAMPLES, limit, low_is_good, figure)


def best_of(samples, names, low_is_good, figure="value"):
    """The one of these that has samples, and the best median."""
    found = [name for name in names if median(samples.get(name, []), figure) is not None]
    if not found:
        return None
    return (min if low_is_good else max)(found, key=lambda name: median(samples[name], figure))
