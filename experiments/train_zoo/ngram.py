"""Smoothed n-gram language models: baselines for the zoo's perplexities.

The trigram is interpolated modified Kneser-Ney (Chen and Goodman, 1999, section 3): three
discounts an order estimated from counts of counts, continuation counts for the lower orders,
and a uniform distribution at the bottom, so that every token has positive probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """One order of the model: discounted counts of n-grams, and the mass left to a lower order.

    `grams` and `contexts` are sorted codes in base `vocab`; `values` are the discounted counts
    divided by the context's total, `backoff` the share a context gives to the next lower order.
    """

    grams: Ints
    values: Floats
    contexts: Ints
    backoff: Floats

    @classmethod
    def count(cls, grams: Ints, counts: Ints, vocab: int) -> Order:
        """Discount `counts` of the sorted codes `grams` (context x vocab + token)."""
        n1, n2, n3, n4 = (max(int((counts == k).sum()), 1) for k in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        steps = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        # Counts of counts of a very small text can leave the valid range 0 < D <= count.
        steps = np.clip(steps, 0.1, [1.0, 2.0, 3.0])
        discount = steps[np.minimum(counts, 3) - 1]
        contexts, index = np.unique(grams // vocab, return_inverse=True)
        total = np.bincount(index, weights=counts)
        left = np.bincount(index, weights=discount) / total
        return cls(grams, (counts - discount) / total[index], contexts, left)

    def mix(self, context: Ints, token: Ints, vocab: int, lower: Floats) -> Floats:
        """Return p(token | context) interpolated with `lower`; unseen contexts give `lower`."""
        return _lookup(self.grams, self.values, context * vocab + token, 0.0) + (
            _lookup(self.contexts, self.backoff, context, 1.0) * lower
        )


class Trigram:
    """Interpolated modified Kneser-Ney trigram over token ids 0..vocab-1."""

    def __init__(self, tokens: Ints, vocab: int) -> None:
        tokens = tokens.astype(np.int64)
        self.vocab = vocab
        codes = (tokens[:-2] * vocab + tokens[1:-1]) * vocab + tokens[2:]
        triples, counts = np.unique(codes, return_counts=True)
        # Continuation counts: in how many different left contexts an n-gram was seen.
        pairs, pair_counts = np.unique(triples % (vocab * vocab), return_counts=True)
        singles, single_counts = np.unique(pairs % vocab, return_counts=True)
        self.orders = (
            Order.count(triples, counts, vocab),
            Order.count(pairs, pair_counts, vocab),
            Order.count(singles, single_counts, vocab),
        )

    def probability(self, first: Ints, second: Ints, token: Ints) -> Floats:
        """Return p(token | first, second), elementwise: three arrays of ids of one shape."""
        three, two, one = self.orders
        uniform = np.full(token.shape, 1.0 / self.vocab)
        unigram = one.mix(np.zeros_like(token), token, self.vocab, uniform)
        bigram = two.mix(second, token, self.vocab, unigram)
        return three.mix(first * self.vocab + second, token, self.vocab, bigram)


def baselines(train: Ints, heldout: Ints, vocab: int, context: int) -> dict[str, float]:
    """Return perplexities of unigram (add-one) and trigram on the tokens that a model predicts.

    A model reading windows of `context` tokens predicts all but the first token of each; the
    n-grams predict the same tokens, with contexts that may cross the boundary of a window.
    """
    heldout = heldout.astype(np.int64)
    positions = np.arange(len(heldout) // context * context)
    positions = positions[(positions % context != 0) & (positions >= 2)]
    token = heldout[positions]
    unigram = np.bincount(train.astype(np.int64), minlength=vocab) + 1.0
    trigram = Trigram(train, vocab).probability(
        heldout[positions - 2], heldout[positions - 1], token
    )
    return {
        "unigram_ppl": float(np.exp(-np.log(unigram[token] / unigram.sum()).mean())),
        "trigram_ppl": float(np.exp(-np.log(trigram).mean())),
        "tokens_asked": len(token),
    }


def _lookup(keys: Ints, values: Floats, query: Ints, default: float) -> Floats:
    """Return `values` at `query` in the sorted `keys`, `default` where a key is missing."""
    index = np.minimum(np.searchsorted(keys, query), len(keys) - 1)
    return np.where(keys[index] == query, values[index], default)
