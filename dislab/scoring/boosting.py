"""Boosted trees as DCI's readouts: scikit-learn's, and a faster way."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from dislab.errors import DislabWarning
from dislab.scoring.scale import REMEDY, small_dimensions

DEPTH, LEARNING_RATE = 3, 0.1  # scikit-learn's defaults, as in Locatello et al. 2019
BLOCK = 32  # codes in a block of the order for which a bound of the gains is computed
CANDIDATES = 64  # blocks of a node that are searched for the best cut
CHUNK = 1_000_000  # codes times trees that are worked on together: 4 MB per array
SAME = 1e-7  # scikit-learn's FEATURE_THRESHOLD
TIE = 1e-5  # relative difference of gains below which float32 sums do not say which split is better


class Boosted(NamedTuple):
    """What boosted trees learned."""

    importance: np.ndarray  # float64 [D, K], gain of each dimension for each factor; a column's sum is 1 or 0
    train: np.ndarray  # int64 [N, K], predicted values of the factors
    test: np.ndarray  # int64 [M, K]


def gradient_boosting(
    codes: np.ndarray,
    factors: np.ndarray,
    test_codes: np.ndarray,
    rng: np.random.Generator,
    num_rounds: int = 100,
) -> Boosted:
    """Fit scikit-learn's GradientBoostingClassifier to every factor; its defaults are the protocol.

    Parameters
    ----------
    codes, factors, test_codes : float32 [N, D], int64 [N, K] with at least two values each, float32 [M, D].
    rng : seeds the order in which dimensions are tried: it decides between splits that are exactly as good.
    num_rounds : rounds of boosting.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    small = np.count_nonzero(small_dimensions(codes, 1e4 * SAME))
    if small:
        warnings.warn(
            f"scikit-learn's trees take codes that differ by less than {SAME:g} for the same, and {small} of "
            f"{codes.shape[1]} dimensions have a standard deviation below {1e4 * SAME:g}: {REMEDY}",
            DislabWarning,
            stacklevel=2,
        )
    importance, train, test = [], [], []
    for values in factors.T:
        classifier = GradientBoostingClassifier(
            n_estimators=num_rounds, random_state=int(rng.integers(2**31))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of factors of many values, and of codes near 3e38
            classifier.fit(codes, values)
            importance.append(np.abs(classifier.feature_importances_))
            train.append(classifier.predict(codes))
            test.append(classifier.predict(test_codes))
    return Boosted(*(np.stack(columns, axis=1) for columns in (importance, train, test)))


@torch.inference_mode()
def joint_boosting(
    codes: np.ndarray,
    factors: np.ndarray,
    test_codes: np.ndarray,
    rng: np.random.Generator,
    num_rounds: int = 100,
) -> Boosted:
    """Fit the trees of `gradient_boosting`, grown for all values of all factors at once.

    Friedman 2001 (Greedy function approximation), algorithm 6: in each of num_rounds rounds every value of a
    factor of C values has a regression tree of depth DEPTH fitted to y - p (a factor of two values has one
    tree), whose leaves make a Newton step of (C - 1) / C Σ (y - p) / Σ p (1 - p), or without (C - 1) / C if
    C = 2. scikit-learn sorts the codes again in every node of every tree; here they are sorted once, and only
    the most promising blocks of them are searched for a cut, in float32. rng decides between dimensions that
    split equally well.
    """
    train, test_codes = SortedCodes(codes), torch.from_numpy(test_codes.T.copy())
    num_rows = len(train.is_row)  # with those that fill up the last block
    targets, prior, step = zip(*(one_against_rest(values) for values in factors.T), strict=True)
    ends = np.cumsum([len(target) for target in targets])
    parts = [slice(end - len(target), end) for end, target in zip(ends, targets, strict=True)]
    targets, prior, step = (torch.from_numpy(np.concatenate(arrays)) for arrays in (targets, prior, step))
    targets = torch.nn.functional.pad(targets, (0, num_rows - len(codes)))  # [T, N], T trees in each round
    logits, test_logits = prior.repeat(1, num_rows), prior.repeat(1, test_codes.shape[1])
    gains = torch.zeros(len(targets), len(test_codes), dtype=torch.float64)  # [T, D]
    size = min(len(targets), max(1, CHUNK // train.codes.numel()))
    grower = Grower(train, size, torch.Generator().manual_seed(int(rng.integers(2**31))))
    for _ in range(num_rounds):
        probability = torch.cat([_probability(logits[part]) for part in parts])
        for some in (slice(first, first + size) for first in range(0, len(targets), size)):
            gradient = (targets[some] - probability[some]).mul_(train.is_row)
            curvature = (probability[some] * (1 - probability[some])).mul_(train.is_row)
            trees = grower.trees(gradient.float())
            leaf = trees.leaf(train.codes)
            leaves = torch.zeros(len(gradient), 2**DEPTH, dtype=torch.float64)
            above, below = (leaves.scatter_add(1, leaf, values) for values in (gradient, curvature))
            values = torch.where(below > 1e-150, above / below, 0) * step[some]
            logits[some] += values.gather(1, leaf)
            test_logits[some] += values.gather(1, trees.leaf(test_codes))
            gains[some] = gains[some].scatter_add(1, trees.dimension, trees.gain.double())
    importance = np.stack([gains[part].sum(dim=0).numpy() for part in parts], axis=1)
    total = importance.sum(axis=0)
    predicted = [
        [np.unique(values)[_most_likely(rows[part])] for part, values in zip(parts, factors.T, strict=True)]
        for rows in (logits[:, : len(codes)], test_logits)
    ]
    return Boosted(
        np.divide(importance, total, out=np.zeros_like(importance), where=total > 0),
        *(np.stack(values, axis=1) for values in predicted),
    )


def one_against_rest(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether a row has each value [C, N], the first logits and the learning rates [C, 1].

    Of two values only the second has a tree: C is then 1.
    """
    _, value, count = np.unique(values, return_inverse=True, return_counts=True)
    targets = (np.arange(len(count))[:, None] == value).astype(np.float64)
    logits = np.log(count / len(values))[:, None]
    if len(count) == 2:
        return targets[1:], logits[1:] - logits[:1], np.full((1, 1), LEARNING_RATE)
    return targets, logits, np.full((len(count), 1), LEARNING_RATE * (1 - 1 / len(count)))


def _probability(logits: torch.Tensor) -> torch.Tensor:
    """Return the probability of every value of a factor [C, N], or of the second of two [1, N]."""
    return torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, dim=0)


def _most_likely(logits: torch.Tensor) -> np.ndarray:
    """Return the index of the most likely value, int64 [N]."""
    return ((logits[0] >= 0).long() if len(logits) == 1 else logits.argmax(dim=0)).numpy()


class SortedCodes:
    """Codes float32 [D, N] and, for every dimension, their order, in blocks of BLOCK positions.

    Rows are added to fill the last block; they come last in every order, and `is_row` [N] is 0 for them.
    `order` int64 [D B, BLOCK] has the rows by code; block b of dimension d is at d B + b.
    """

    def __init__(self, codes: np.ndarray):
        added = -len(codes) % BLOCK
        codes = torch.from_numpy(np.pad(codes.T, ((0, 0), (0, added)), constant_values=np.inf))
        self.codes = codes.contiguous()
        self.is_row = torch.ones(codes.shape[1])
        self.is_row[codes.shape[1] - added :] = 0
        ordered, order = self.codes.sort(dim=1, stable=True)
        self.order = order.view(-1, BLOCK)
        self._order = order.flatten()
        same = torch.ones_like(ordered, dtype=torch.bool)
        torch.eq(ordered[:, :-1], ordered[:, 1:], out=same[:, :-1])
        # Added to the denominator of the gain of a cut after each position: a tiny value that makes x / 0
        # negative, or -inf where the next code is the same.
        self.penalty = torch.full(same.shape, -1e-4).masked_fill_(same, -torch.inf).view(-1, BLOCK)

    def sort(self, values: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Write the values [T, N] of the rows, by block, to `out` [T, D B, BLOCK] and return it."""
        torch.index_select(values, 1, self._order, out=out.view(len(values), -1))
        return out


class Trees(NamedTuple):
    """T binary trees of equal depth, nodes in breadth-first order: node j has children 2j + 1 and 2j + 2."""

    dimension: torch.Tensor  # int64 [T, nodes]
    threshold: torch.Tensor  # float32; codes above it go right; infinite where a node is not split
    gain: torch.Tensor  # float32, decrease of the squared error summed over rows

    def leaf(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the leaf of every row of codes [D, N] in every tree, int64 [T, N]."""
        position = torch.zeros(len(self.dimension), codes.shape[1])  # of every row in its level: 0, 1, ...
        for depth in range(DEPTH):
            below, first = position * 2, 2**depth - 1
            for j in range(2**depth):
                dimension, threshold = self.dimension[:, first + j], self.threshold[:, first + j, None]
                # In place: a comparison that makes an array of booleans takes torch several times as long.
                right = codes.index_select(0, dimension).gt_(threshold)
                below.addcmul_(right, position.clone().eq_(j))
            position = below
        return position.long()


class Node(NamedTuple):
    """A node of T trees."""

    rows: torch.Tensor  # float32 [T, N], 1 for the rows of the node and 0 for others
    number: torch.Tensor  # float32 [T, D B], of its rows in each block
    sums: torch.Tensor  # the same of their gradients
    above: torch.Tensor  # the same of their positive gradients


class Grower:
    """Grow regression trees on sorted codes. The large arrays [T, D B, BLOCK] are allocated once.

    A cut is sought in the CANDIDATES blocks of a node that promise the greatest gains, by an upper bound from
    the sums of their gradients.
    """

    def __init__(self, train: SortedCodes, num_trees: int, generator: torch.Generator):
        self.train, self.generator = train, generator
        shape = num_trees, *train.order.shape
        self._ordered, self._inside = torch.empty(shape), torch.empty(shape)
        self._block = torch.ones(BLOCK)
        self._number = train.is_row[train.order] @ self._block

    def trees(self, gradient: torch.Tensor) -> Trees:
        """Return least-squares trees of depth DEPTH on each row of `gradient` [T, N], 0 for added rows."""
        self._gradient, self._sorted = gradient, self.train.sort(gradient, self._ordered[: len(gradient)])
        nodes = [self._root()]
        splits = []
        for depth in range(DEPTH):
            level = [self._best_split(node) for node in nodes]
            splits += level
            if depth + 1 < DEPTH:
                nodes = [
                    child
                    for node, (dimension, threshold, _) in zip(nodes, level, strict=True)
                    for child in self._children(node, dimension, threshold)
                ]
        return Trees(*(torch.stack(column, dim=1) for column in zip(*splits, strict=True)))

    def _root(self) -> Node:
        rows = self.train.is_row.expand(len(self._gradient), -1)
        number = self._number.expand(len(rows), -1)
        above = torch.clamp(self._sorted, min=0, out=self._inside[: len(rows)]) @ self._block
        return Node(rows, number, self._sorted @ self._block, above)

    def _node(self, rows: torch.Tensor) -> Node:
        inside = self.train.sort(rows, self._inside[: len(rows)])
        number = inside @ self._block
        sums = inside.mul_(self._sorted) @ self._block
        return Node(rows, number, sums, inside.clamp_(min=0) @ self._block)

    def _children(self, node: Node, dimension: torch.Tensor, threshold: torch.Tensor) -> tuple[Node, Node]:
        right = self.train.codes.index_select(0, dimension).gt_(threshold[:, None]).mul_(node.rows)
        left = self._node(node.rows - right)
        return left, Node(right, *(whole - part for whole, part in zip(node[1:], left[1:], strict=True)))

    def _best_split(self, node: Node) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return dimension, threshold and gain [T] of the split of a node that lowers the squared error most.

        For n rows of mean m, of which n_L of sum S_L lie below a cut, the error falls by n (S_L - n_L m)² /
        (n_L (n - n_L)). Of dimensions that are equally good, such as copies of each other, one is drawn.
        """
        per_dimension = len(node.rows), len(self.train.codes), -1
        ends = node.number.view(per_dimension).cumsum(dim=2)
        number, begins = ends[:, 0, -1:], (ends - node.number.view(per_dimension)).flatten(1)
        sums = node.sums.view(per_dimension).cumsum(dim=2)
        mean = sums[:, 0, -1:] / number.clamp(min=1)
        sums = sums.flatten(1) - node.sums
        promise = self._bound(node, begins, sums, number, mean)
        num_candidates = min(CANDIDATES, promise.shape[1])
        block = promise.topk(num_candidates, dim=1, sorted=False).indices  # [T, candidates]
        rows = self.train.order[block].flatten(1)
        inside = node.rows.gather(1, rows)
        gradient = self._gradient.gather(1, rows).mul_(inside).view(*block.shape, BLOCK)
        counts = inside.view(*block.shape, BLOCK).cumsum(dim=2).add_(begins.gather(1, block)[:, :, None])
        gain = gradient.cumsum(dim=2).add_(sums.gather(1, block)[:, :, None])
        gain.sub_(counts * mean[:, :, None]).square_()
        gain.div_(torch.addcmul(self.train.penalty[block], counts, number[:, :, None] - counts))
        best, position = gain.max(dim=2)
        top = best.amax(dim=1)
        as_good = best >= top[:, None] * (1 - TIE)
        chosen = (torch.rand(best.shape, generator=self.generator) * as_good).argmax(dim=1, keepdim=True)
        dimension = block.gather(1, chosen)[:, 0].div(ends.shape[2], rounding_mode="floor")
        tree = torch.arange(len(block))
        count = counts[tree, chosen[:, 0], position.gather(1, chosen)[:, 0]]
        # The threshold lies midway between the node's codes on both sides of the cut, as in scikit-learn.
        low, high = (
            self._code(node, ends[tree, dimension], dimension, number) for number in (count, count + 1)
        )
        middle = low / 2 + high / 2
        threshold = torch.where(middle < high, middle, low).masked_fill_(top <= 0, torch.inf)
        return dimension, threshold, top.clamp(min=0) * number[:, 0]

    @staticmethod
    def _bound(node: Node, begins, sums, number, mean) -> torch.Tensor:
        """Return an upper bound [T, D B] of the gain of a cut in each block.

        S_L - n_L m is at most its value at the begin of the block plus all positive parts of the block, and
        at least that plus all negative parts; n_L (n - n_L) is least at one end.
        """
        excess = sums - begins * mean
        rise = node.above + node.number * (-mean).clamp(min=0)
        fall = node.above - node.sums + node.number * mean.clamp(min=0)
        most = torch.maximum(excess + rise, fall - excess).square_()
        first, last = begins.clamp(min=1), torch.minimum(begins + node.number, number - 1)
        sides = torch.minimum(first * (number - first), last * (number - last)).clamp_(min=0.5)
        return most.div_(sides).mul_(node.number.clamp(max=1))

    def _code(self, node: Node, ends: torch.Tensor, dimension: torch.Tensor, number: torch.Tensor):
        """Return the code [T] of the node's row with this number (1, 2, …) in the order of a dimension."""
        last = ends.shape[1] - 1
        block = torch.searchsorted(ends, number[:, None]).clamp_(max=last)
        rows = self.train.order[dimension * (last + 1) + block[:, 0]]
        inside = node.rows.gather(1, rows)
        before = ends.gather(1, block) - inside.sum(dim=1, keepdim=True)
        position = torch.searchsorted(inside.cumsum(dim=1) + before, number[:, None]).clamp_(max=BLOCK - 1)
        return self.train.codes[dimension, rows.gather(1, position)[:, 0]]
