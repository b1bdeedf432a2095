"""The n-gram language model that neural ones have to beat: modified Kneser-Ney, interpolated.

Kneser and Ney, "Improved backing-off for m-gram language modeling" (1995); Chen and Goodman, "An empirical
study of smoothing techniques for language modeling" (1998), section 3.

    p_m(w | h) = (c(h w) - D(c(h w))) / c(h) + gamma(h) p_{m-1}(w | h without its first token)

c counts occurrences at the highest order and distinct left neighbours below it: a token that follows
only one other is unlikely anywhere else, however often it occurs. D takes from small counts what gamma(h)
gives to the shorter context; p_0 is uniform over the vocabulary. A context never seen has gamma 1.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from genai.core.config import Strict
from genai.core.dataset import Description


class KneserNey:
    """A language model of n-grams of tokens."""

    takes = frozenset({"text"})
    task = "language_model"
    metric = "bpc"

    class Config(Strict):
        order: Annotated[int, Field(ge=1, le=10)] = Field(description="tokens in the longest n-gram")

    def __init__(self, config: Config, description: Description):
        self.order, self.V = config.order, description.vocabulary_size

    def fit(self, x: np.ndarray) -> "KneserNey":
        """Count the n-grams of a text, x: (N,) token ids. Nothing is random.

        Every m-gram gets a number: a token its id, a longer one the rank of its key, which is the number
        of its first m - 1 tokens times V plus its last token. For each order m = 1, 2, ...:
            keys_   sorted keys of the m-grams (m >= 2)
            alpha_  (c(h w) - D) / c(h) of each m-gram h w
            gamma_  of each context h of m - 1 tokens
        one order after the other, with sizes_[m] the number of m-grams.
        """
        x = np.asarray(x, dtype=np.int64)
        numbers = [np.zeros(len(x), dtype=np.int64), x]  # numbers[m][t]: of the m-gram that begins at t
        keys = [np.zeros(1, dtype=np.int64), np.arange(self.V)]
        first = [np.zeros(1, dtype=np.int64)] * 2  # where each m-gram occurs first
        for m in range(2, self.order + 1):
            extended = numbers[m - 1][:-1] * self.V + x[m - 1 :]
            key, index, number = np.unique(extended, return_index=True, return_inverse=True)
            keys.append(key)
            first.append(index)
            numbers.append(number)
        alpha, gamma = [], []
        for m in range(1, self.order + 1):
            if m == self.order:
                count = np.bincount(numbers[m], minlength=len(keys[m]))
            else:  # of each distinct (m + 1)-gram, the m-gram without its first token
                count = np.bincount(numbers[m][first[m + 1] + 1], minlength=len(keys[m]))
            context = keys[m] // self.V if m > 1 else np.zeros(self.V, dtype=np.int64)
            contexts = len(keys[m - 1])
            D = discounts(count)[np.minimum(count, 3)]
            total = np.bincount(context, count, contexts)
            given = np.bincount(context, D, contexts)
            seen = total > 0
            gamma.append(np.divide(given, total, out=np.ones(contexts), where=seen))
            alpha.append((count - D) / np.where(seen, total, 1)[context])
        self.keys_ = np.concatenate(keys[2:]) if self.order > 1 else np.zeros(0, dtype=np.int64)
        self.alpha_, self.gamma_ = np.concatenate(alpha), np.concatenate(gamma)
        self.sizes_ = np.array([len(key) for key in keys])
        return self

    def probability(self, tokens: np.ndarray) -> np.ndarray:
        """tokens: (B, T) -> p(token t | the order - 1 tokens before it, fewer at the beginning), (B, T)."""
        tokens = np.asarray(tokens, dtype=np.int64)
        ends = np.cumsum(self.sizes_)
        p = np.full(tokens.shape, 1 / self.V)
        context = np.zeros(tokens.shape, dtype=np.int64)  # number of the (m - 1)-gram before each token, -1: unknown
        for m in range(1, self.order + 1):
            if self.sizes_[m] == 0:  # a text shorter than m tokens has no longer n-grams
                break
            if m == 1:
                number = tokens
            else:
                keys = self.keys_[ends[m - 1] - ends[1] : ends[m] - ends[1]]
                key = context * self.V + tokens
                number = np.searchsorted(keys, key).clip(max=len(keys) - 1)
                number = np.where((context >= 0) & (keys[number] == key), number, -1)
            alpha = self.alpha_[ends[m - 1] - 1 : ends[m] - 1]
            gamma = self.gamma_[ends[m - 1] - self.sizes_[m - 1] : ends[m - 1]]
            p = np.where(context >= 0, np.where(number >= 0, alpha[number], 0) + gamma[context] * p, p)
            context = np.full_like(number, -1)
            context[:, 1:] = number[:, :-1]
        return p

    def nats(self, tokens: np.ndarray, generator: Any = None) -> np.ndarray:
        """tokens: (B, T) -> -log p of each window, (B,) float64; the first tokens have shorter contexts."""
        return self.token_nats(tokens).sum(1)

    def token_nats(self, tokens: np.ndarray) -> np.ndarray:
        """tokens: (B, T) -> -log p of each token given those before it in its window, (B, T) float64."""
        return -np.log(self.probability(tokens))


def discounts(count: np.ndarray) -> np.ndarray:
    """Return D(0), D(1), D(2), D(3 and more) (Chen and Goodman, section 3), from how often counts of 1 to 4 occur.

    The formula supposes that small counts are many and fall as the counts rise. In a small text one of them may not
    occur, or a discount come out at 0 or below, and a context of such n-grams alone would leave nothing to tokens that
    never followed it. Then one discount for all counts, Y (Ney, Essen and Kneser, "On structuring
    probabilistic dependences in stochastic language modelling", 1994), or 0.75 where that is not between 0 and 1.
    """
    n1, n2, n3, n4 = (np.count_nonzero(count == c) for c in (1, 2, 3, 4))
    Y = n1 / (n1 + 2 * n2) if n1 and n2 else 0.75
    if n1 and n2 and n3 and n4:
        D = np.array([0, 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3])
        if (D[1:] > 0).all():
            return D
    return np.array([0, Y, Y, Y])
