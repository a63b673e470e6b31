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
CANDIDATES = 64  # blocks of a node that are searched for the best cut, at most
CHUNK = 10_000_000  # codes times trees that are worked on together
ROUNDED = 1e-4  # by which part of itself float32 sums may raise the gain of a cut above its bound
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
            trees = grower.trees(gradient.T.float().contiguous())
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
        same = torch.ones_like(ordered, dtype=torch.bool)
        torch.eq(ordered[:, :-1], ordered[:, 1:], out=same[:, :-1])
        # Added to the denominator of the gain of a cut after each position: a tiny value that makes x / 0
        # negative, or -inf where the next code is the same.
        self.penalty = torch.full(same.shape, -1e-4).masked_fill_(same, -torch.inf).view(-1, BLOCK)

    def block_sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sums [T, D B] over the rows of each block of values float32 [N, T]."""
        # It takes a tenth of the time of putting the values in order first.
        return torch.nn.functional.embedding_bag(self.order, values, mode="sum").T.contiguous()


class Trees(NamedTuple):
    """T binary trees of equal depth, nodes in breadth-first order: node j has children 2j + 1 and 2j + 2."""

    dimension: torch.Tensor  # int64 [T, nodes]
    threshold: torch.Tensor  # float32; codes above it go right; infinite where a node is not split
    gain: torch.Tensor  # float32, decrease of the squared error summed over rows

    def leaf(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the leaf of every row of codes [D, N] in every tree, int64 [T, N]."""
        return self._position(codes, 0, 2**DEPTH // 2).long()

    def _position(self, codes: torch.Tensor, j: int, half: int) -> torch.Tensor:
        """Return the position of rows among the leaves below node j, float32 [T, N]; half are on the left."""
        # In place: a comparison that makes an array of booleans takes torch several times as long.
        right = codes.index_select(0, self.dimension[:, j]).gt_(self.threshold[:, j, None])
        if half == 1:
            return right
        left = self._position(codes, 2 * j + 1, half // 2)
        return left.lerp_(self._position(codes, 2 * j + 2, half // 2).add_(half), right)


class Node(NamedTuple):
    """A node of T trees."""

    rows: torch.Tensor  # float32 [N, T], 1 for the rows of the node and 0 for others
    number: torch.Tensor  # float32 [T, D B], of its rows in each block
    sums: torch.Tensor  # the same of their gradients
    above: torch.Tensor  # the same of their positive gradients


class Grower:
    """Grow regression trees on sorted codes, at most num_trees at once.

    A cut is sought in the blocks of a node that promise more, by an upper bound from the sums of their
    gradients, than the best cut between two blocks gains; in the CANDIDATES that promise most, if there are
    more.
    """

    def __init__(self, train: SortedCodes, num_trees: int, generator: torch.Generator):
        self.train, self.generator = train, generator
        self._by_row = train.codes.T.contiguous()  # [N, D]
        self._summed = torch.empty(len(self._by_row), 3, num_trees)

    def trees(self, gradient: torch.Tensor) -> Trees:
        """Return least-squares trees of depth DEPTH on each column of `gradient` [N, T], 0 for added rows."""
        self._gradient = gradient
        nodes = [self._node(self.train.is_row[:, None].repeat(1, gradient.shape[1]))]
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

    def _node(self, rows: torch.Tensor) -> Node:
        # Large arrays take longer to allocate than to fill, so this one is kept.
        number, gradients, above = self._summed[:, :, : rows.shape[1]].unbind(dim=1)
        number.copy_(rows)
        torch.mul(rows, self._gradient, out=gradients)
        torch.clamp(gradients, min=0, out=above)
        sums = self.train.block_sums(self._summed.flatten(1)).unflatten(0, (3, -1))
        return Node(rows, *sums[:, : rows.shape[1]])

    def _children(self, node: Node, dimension: torch.Tensor, threshold: torch.Tensor) -> tuple[Node, Node]:
        right = self._by_row.index_select(1, dimension).gt_(threshold).mul_(node.rows)
        left = self._node(node.rows - right)
        return left, Node(right, *(whole - part for whole, part in zip(node[1:], left[1:], strict=True)))

    def _best_split(self, node: Node) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return dimension, threshold and gain [T] of the split of a node that lowers the squared error most.

        For n rows of mean m, of which n_L of sum S_L lie below a cut, the error falls by n (S_L - n_L m)² /
        (n_L (n - n_L)). Of dimensions that are equally good, such as copies of each other, one is drawn.
        """
        num_trees = node.rows.shape[1]
        per_dimension = num_trees, len(self.train.codes), -1
        ends, sums = (part.view(per_dimension).cumsum(dim=2) for part in (node.number, node.sums))
        number = ends[:, 0, -1:]
        mean = sums[:, 0, -1:] / number.clamp(min=1)
        between = _gain(ends.flatten(1), sums.flatten(1), number, mean, self.train.penalty[:, -1])
        begins, before = ends.flatten(1) - node.number, sums.flatten(1) - node.sums
        promise = self._bound(node, begins, before, number, mean)
        least = between.amax(dim=1, keepdim=True) * (1 - ROUNDED)
        is_searched = promise >= torch.minimum(least, promise.amax(dim=1, keepdim=True))
        many = (is_searched.sum(dim=1) > CANDIDATES).nonzero()[:, 0]
        if len(many):
            most = promise[many].topk(CANDIDATES, dim=1, sorted=False).indices
            is_searched[many] = torch.zeros_like(is_searched[many]).scatter_(1, most, True)
        tree, block = is_searched.nonzero(as_tuple=True)  # [S], the blocks that are searched
        rows = self.train.order.index_select(0, block) * num_trees + tree[:, None]
        inside = _take(node.rows, rows)
        counts = inside.cumsum(dim=1).add_(begins[tree, block][:, None])
        gradient = _take(self._gradient, rows).mul_(inside).cumsum(dim=1).add_(before[tree, block][:, None])
        gain = _gain(counts, gradient, number[tree], mean[tree], self.train.penalty.index_select(0, block))
        best, position = gain.max(dim=1)
        top = torch.full((num_trees,), -torch.inf).scatter_reduce_(0, tree, best, "amax")
        is_best = best >= top[tree] * (1 - TIE)
        # One of the best of each tree: the last that is written, in an order that is drawn.
        drawn = torch.randperm(len(best), generator=self.generator)
        drawn = drawn[is_best[drawn]]
        chosen = torch.zeros(num_trees, dtype=torch.int64)
        chosen[tree[drawn]] = drawn
        dimension = block[chosen].div(ends.shape[2], rounding_mode="floor")
        count = counts[chosen, position[chosen]]
        # The threshold lies midway between the node's codes on both sides of the cut, as in scikit-learn.
        low, high = self._codes(node, ends, dimension, torch.stack([count, count + 1], dim=1)).unbind(dim=1)
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

    def _codes(self, node: Node, ends: torch.Tensor, dimension: torch.Tensor, numbers: torch.Tensor):
        """Return the codes [T, 2] of the node's rows with these numbers (1, 2, …) in a dimension's order.

        `ends` [T, D, B] is the number of the node's rows up to the end of each block.
        """
        num_trees, last = len(dimension), ends.shape[2] - 1
        tree = torch.arange(num_trees)
        ends = ends[tree, dimension]
        block = torch.searchsorted(ends, numbers).clamp_(max=last)
        rows = self.train.order[dimension[:, None] * (last + 1) + block]  # [T, 2, BLOCK]
        inside = _take(node.rows, rows * num_trees + tree[:, None, None])
        before = ends.gather(1, block) - inside.sum(dim=2)
        counts = inside.cumsum(dim=2) + before[:, :, None]
        position = torch.searchsorted(counts, numbers[:, :, None]).clamp_(max=BLOCK - 1)
        return self.train.codes[dimension[:, None], rows.gather(2, position)[:, :, 0]]


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return what torch.take returns, in a third of the time."""
    return values.flatten().index_select(0, index.flatten()).view(index.shape)


def _gain(counts, sums, number, mean, penalty) -> torch.Tensor:
    """Return (S_L - n_L m)² / (n_L (n - n_L)) of cuts, negative or 0 where `penalty` rules them out."""
    gain = torch.addcmul(sums, counts, mean, value=-1).square_()
    return gain.div_(torch.addcmul(penalty, counts, number - counts))
