"""Which words of a language translate which of another, learned from sentences and their translations alone.

Source: Brown et al. 1993, The Mathematics of Statistical Machine Translation: Parameter Estimation, model 1.
"""

import numpy as np

from distill.data.wordpiece import Encoded

ROUNDS = 5
MOST_LINKS = 10_000_000  # pairs of a target token and a source token in one row; about 120 bytes each


def translations(source: Encoded, target: Encoded, rounds: int = ROUNDS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(t, s, p), each [k]: target token t translates source token s with the probability p; those of one t add up to 1.

    source, target: n rows [CLS] .. [SEP], row i of one translates row i of the other. Each token of a source is
    explained by one of its target's, or by [CLS], which stands for none. Of rows with more than MOST_LINKS pairs of
    tokens some are left out, evenly.
    """
    links = (source.lengths - 2) * (target.lengths - 1)
    if links.sum() > MOST_LINKS:
        chosen = np.linspace(0, len(links) - 1, int(len(links) * MOST_LINKS / links.sum())).astype(np.int64)
        source, target, links = source.take(chosen), target.take(chosen), links[chosen]
    row = np.repeat(np.arange(len(links)), links)
    within = np.arange(len(row)) - np.repeat(np.cumsum(links) - links, links)
    at, by = np.divmod(within, (target.lengths - 1)[row])
    place = source.offsets[row] + 1 + at  # of the source token that is to be explained
    tokens = int(source.ids.max()) + 1
    joined = target.ids[target.offsets[row] + by].astype(np.int64) * tokens + source.ids[place]
    pairs, link = np.unique(joined, return_inverse=True)
    t, s = np.divmod(pairs, tokens)
    p = np.ones(len(pairs))
    for _ in range(rounds):
        share = p[link]
        share = share / np.bincount(place, share)[place]
        counts = np.bincount(link, share, len(pairs))
        p = counts / np.bincount(t, counts)[t]
    return t, s, p
