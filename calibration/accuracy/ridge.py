"""Ridge regression of many targets on a sparse matrix, by conjugate gradients in the dual."""

import numpy as np
from scipy import sparse

from calibration.arrays import Floats
from gateway.scheduling.prompt_accuracy import MOST_FORM
from gateway.scheduling.text_features import FORMS, WORD_BUCKETS, TextFeatures

FORM_SCALE = 0.1
_LEAST_DEVIATION = 1e-6


class PromptMatrix:
    """Prompts as rows: words scaled by 1/sqrt(words), the standardised form weighted down.

    In `whole`, what heads are trained on, words also count by their rarity (1 + the logarithm of
    prompts per prompt with the word, Spärck Jones, 1972; its square averages 1): a penalty on all
    weights alike would else hold a rare word's weight down as if it said as little as a common one.
    """

    def __init__(self, prompts: list[TextFeatures]) -> None:
        counts = np.array([len(one.words) for one in prompts])
        ends = np.concatenate([[0], np.cumsum(counts)])
        columns = np.fromiter((word for one in prompts for word in one.words), int, int(ends[-1]))
        values = np.repeat(np.maximum(counts, 1) ** -0.5, counts)
        shape = (len(prompts), WORD_BUCKETS)
        self.words = sparse.csr_matrix((values, columns, ends), shape=shape)
        form = np.array([one.form for one in prompts], dtype=float)
        self.means = form.mean(axis=0)
        self.deviations = np.maximum(form.std(axis=0), _LEAST_DEVIATION)
        standard = np.clip((form - self.means) / self.deviations, -MOST_FORM, MOST_FORM)
        self.rarity = _weigh_rarity(columns, len(prompts))
        rare = self.words @ sparse.diags(self.rarity)
        self.whole = sparse.csr_matrix(
            sparse.hstack([rare, sparse.csr_matrix(standard * FORM_SCALE)])
        )

    def split_weights(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the weights of words and of the standardised form."""
        assert len(weights) == WORD_BUCKETS + len(FORMS)  # noqa: S101 - of our own making
        words = weights[:WORD_BUCKETS] * self.rarity[:, None]
        return words, weights[WORD_BUCKETS:] * FORM_SCALE


def _weigh_rarity(columns: np.ndarray, prompts: int) -> Floats:
    seen = np.bincount(columns, minlength=WORD_BUCKETS)
    rarity = 1.0 + np.log((prompts + 1.0) / (seen + 1.0))
    scale = float(np.sqrt((rarity[columns] ** 2).mean())) if len(columns) else 1.0
    found: Floats = rarity / scale
    return found


def solve_ridge(
    matrix: sparse.csr_matrix, targets: Floats, penalty: float, *, most_turns: int = 60
) -> Floats:
    """Return weights (columns x targets) that minimise |Xw - t|^2 + penalty |w|^2.

    `targets` (rows x targets) are taken without their means already.
    """
    dual = np.zeros_like(targets)
    left = targets.copy()
    way = left.copy()
    size = (left * left).sum(axis=0)
    enough = 1e-6 * max(1e-12, float(size.max()))
    transposed = matrix.T.tocsr()
    for _ in range(most_turns):
        if float(size.max()) <= enough:
            break
        moved = matrix @ (transposed @ way) + penalty * way
        step = size / np.maximum((way * moved).sum(axis=0), 1e-30)
        dual += step * way
        left -= step * moved
        now = (left * left).sum(axis=0)
        way = left + (now / np.maximum(size, 1e-30)) * way
        size = now
    found: Floats = np.asarray(transposed @ dual)
    return found
