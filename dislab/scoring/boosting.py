"""Boosted trees as DCI's readouts: scikit-learn's, and a faster way."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from dislab.errors import DislabWarning
from dislab.scoring.scale import REMEDY, small_dimensions

DEPTH, LEARNING_RATE = 3, 0.1  # scikit-learn's defaults, as in Locatello et al. 2019
BINS = 300  # of a dimension, more or less
END = 0.2  # rows of a bin near an end of the order, as a part of the rows that lie beyond it
AROUND = torch.arange(-1, 3)  # bins that are searched around a cut, as offsets from the bin below it
CHUNK = 10_000_000  # trees times rows, or trees times bins, that are worked on together
NEVER_ZERO = -1e-4  # added to denominators of gains, which are whole numbers: it makes x / 0 negative
LEAST = 1e-30  # of Σ p (1 - p) in a leaf that makes a step; quotients by less may be infinite
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
    """Fit the trees of `gradient_boosting`, grown for all values of all factors at once, in float32.

    Friedman 2001 (Greedy function approximation), algorithm 6: in each of num_rounds rounds every value of a
    factor of C values has a regression tree of depth DEPTH fitted to y - p (a factor of two values has one
    tree), whose leaves make a Newton step of (C - 1) / C Σ (y - p) / Σ p (1 - p), or without (C - 1) / C if
    C = 2. scikit-learn sorts the codes again in every node of every tree and tries every cut. Here they are
    sorted once, into bins. The best cut between two bins says in which bins every cut is tried. rng decides
    between dimensions that split equally well.
    """
    train, test_codes = Bins(codes), torch.from_numpy(test_codes.T.copy())
    targets, prior, step = zip(*(one_against_rest(values) for values in factors.T), strict=True)
    ends = np.cumsum([len(target) for target in targets])
    parts = [slice(end - len(target), end) for end, target in zip(ends, targets, strict=True)]
    targets, prior, step = (
        torch.from_numpy(np.concatenate(arrays)).float() for arrays in (targets, prior, step)
    )
    logits, test_logits = prior.repeat(1, len(codes)), prior.repeat(1, test_codes.shape[1])  # [T, N], T trees
    gains = torch.zeros(len(targets), len(test_codes), dtype=torch.float64)  # [T, D]
    size = min(len(targets), max(1, CHUNK // max(len(codes), len(train.sizes))))
    grower = Grower(train, torch.Generator().manual_seed(int(rng.integers(2**31))))
    probability = torch.empty_like(logits)
    for _ in range(num_rounds):
        for part in parts:
            probability[part] = _probability(logits[part])
        for some in (slice(first, first + size) for first in range(0, len(targets), size)):
            gradient = targets[some] - probability[some]
            curvature = (1 - probability[some]).mul_(probability[some])
            trees = grower.trees(gradient.T.contiguous())
            leaf = trees.leaf(train.codes)
            above, below = (
                torch.zeros(len(leaf), 2**DEPTH).scatter_add_(1, leaf, values)
                for values in (gradient, curvature)
            )
            values = torch.where(below > LEAST, above / below, 0) * step[some]
            logits[some] += values.gather(1, leaf)
            test_logits[some] += values.gather(1, trees.leaf(test_codes))
            gains[some] = gains[some].scatter_add(1, trees.dimension, trees.gain.double())
    importance = np.stack([gains[part].sum(dim=0).numpy() for part in parts], axis=1)
    total = importance.sum(axis=0)
    predicted = [
        [np.unique(values)[_most_likely(rows[part])] for part, values in zip(parts, factors.T, strict=True)]
        for rows in (logits, test_logits)
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


class Bins:
    """Codes float32 [N, D] and, for every dimension, their order, in bins.

    A bin has about N / BINS rows, and fewer towards the ends of the order, where the first few rows may
    differ much from the others. Rows of equal codes lie in one bin. Dimensions with fewer bins than others
    have empty ones; bin b of dimension d is at d B + b.

    Attributes
    ----------
    codes : float32 [D, N].
    by_row : float32 [N, D], the same codes.
    sizes : float32 [D B], rows of each bin.
    rows : int32 [D B, W], the rows of each bin in the order of their codes; W is twice the usual number. A
        smaller bin is filled up with rows that do not count. A larger bin, whose codes are all equal, has its
        first W rows.
    penalty : float32 [D B, W], added to the denominator of the gain of a cut after each of these rows: -inf
        where no cut is possible.
    """

    def __init__(self, codes: np.ndarray):
        self.codes = torch.from_numpy(codes.T.copy())
        self.by_row = self.codes.T.contiguous()
        num_dims, num_rows = self.codes.shape
        usual = max(1, num_rows // BINS)
        ordered, order = self.codes.sort(dim=1, stable=True)
        differs = torch.nn.functional.pad(ordered[:, 1:] != ordered[:, :-1], (1, 1), value=True)  # [D, N + 1]
        first = [_first_of_bins(is_first.nonzero()[:, 0], usual) for is_first in differs]
        first = torch.nn.utils.rnn.pad_sequence(first, batch_first=True, padding_value=num_rows)  # [D, B + 1]
        dimension = torch.arange(num_dims)[:, None]
        self._order = order.flatten().int()
        self._first = (first[:, :-1] + num_rows * dimension).flatten().int()
        sizes, within = first.diff(dim=1).view(-1, 1), torch.arange(2 * usual)
        position = (first[:, :-1, None] + within).clamp_(max=num_rows - 1).flatten(1)
        self.rows = order[dimension, position].int().view(-1, 2 * usual)
        can_cut = differs[dimension, position + 1].view_as(self.rows) & (within < sizes)
        self.penalty = torch.where(can_cut, NEVER_ZERO, -torch.inf)
        self.sizes = sizes[:, 0].float()

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sums [T, D B] over the rows of each bin of values float32 [N, T]."""
        # It takes a tenth of the time of putting the values in order first.
        bags = torch.nn.functional.embedding_bag(self._order, values, self._first, mode="sum")
        return bags.T.contiguous()


def _first_of_bins(first: torch.Tensor, usual: int) -> torch.Tensor:
    """Return where bins begin in the order of a dimension, and at the end the number of rows.

    `first` says the same of runs of equal codes. A bin has about the usual number of rows: at most twice as
    many, unless its codes are all equal.
    """
    begin, size, num_rows = first[:-1], first.diff(), int(first[-1])
    beyond = torch.arange(1, num_rows + 1, dtype=torch.float64)
    beyond = torch.minimum(beyond, beyond.flip(0))
    # Every row adds 1 / the width of a bin around it: a bin ends where the sum reaches a whole number.
    number = (END * beyond).clamp_(1, usual).reciprocal_().cumsum(dim=0).floor_()[begin]
    is_first = (number.diff(prepend=number[:1] - 1) > 0) | (size > usual)
    return torch.cat([begin[is_first], first[-1:]])


class Trees(NamedTuple):
    """T binary trees of equal depth, nodes in breadth-first order: node j has children 2j + 1 and 2j + 2.

    Of a single node the tensors are [T].
    """

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
    number: torch.Tensor  # float32 [T, D B], of its rows in each bin
    sums: torch.Tensor  # the same of their gradients
    searched: torch.Tensor  # int64 [T, S], the bins that were searched for the cuts above the node


class Grower:
    """Grow regression trees on codes in bins.

    The best cut between two bins tells where to search: all cuts of the bins around it are tried. So are
    those of the bins that were searched in the nodes above. The best cut of a node often parts a few rows
    from its end, and where that lies in the middle of the order, bins are too wide to see it. Where splits
    are weak, or a deep node has no rows in the bins around its cut, the split is not always the best one.
    """

    def __init__(self, bins: Bins, generator: torch.Generator):
        self.bins, self.generator = bins, generator

    def trees(self, gradient: torch.Tensor) -> Trees:
        """Return least-squares trees of depth DEPTH on each column of `gradient`, float32 [N, T]."""
        self._gradient = gradient
        num_trees = gradient.shape[1]
        sizes, nothing = self.bins.sizes.expand(num_trees, -1), torch.empty(num_trees, 0, dtype=torch.int64)
        nodes = [Node(torch.ones_like(gradient), sizes, self.bins.sums(gradient), nothing)]
        splits = []
        for depth in range(DEPTH):
            level = [self._best_split(node) for node in nodes]
            splits += [split for split, _ in level]
            if depth + 1 < DEPTH:
                nodes = [
                    child
                    for node, (split, searched) in zip(nodes, level, strict=True)
                    for child in self._children(node, split, searched)
                ]
        return Trees(*(torch.stack(column, dim=1) for column in zip(*splits, strict=True)))

    def _children(self, node: Node, split: Trees, searched: torch.Tensor) -> tuple[Node, Node]:
        right = self.bins.by_row.index_select(1, split.dimension).gt_(split.threshold).mul_(node.rows)
        rows = node.rows - right
        left = Node(rows, self.bins.sums(rows), self.bins.sums(rows * self._gradient), searched)
        return left, Node(right, node.number - left.number, node.sums - left.sums, searched)

    def _best_split(self, node: Node) -> tuple[Trees, torch.Tensor]:
        """Return the split [T] of a node that lowers the squared error most, and the bins that were searched.

        For n rows of mean m, of which n_L of sum S_L lie below a cut, the error falls by n (S_L - n_L m)² /
        (n_L (n - n_L)). Of dimensions that are equally good, such as copies of each other, one is drawn.
        """
        per_dimension = len(node.number), len(self.bins.codes), -1
        ends, sums = (part.view(per_dimension).cumsum(dim=2) for part in (node.number, node.sums))
        num_bins = ends.shape[2]
        number = ends[:, :1, -1:]  # [T, 1, 1]
        mean = sums[:, :1, -1:] / number.clamp(min=1)
        between, cut = _gain(ends, sums, number, mean, NEVER_ZERO).max(dim=2)  # [T, D]
        most = between.amax(dim=1, keepdim=True)
        is_best = between >= most * (1 - TIE)
        drawn = torch.rand(is_best.shape, generator=self.generator).mul_(is_best).argmax(dim=1, keepdim=True)
        last = drawn * num_bins + cut.gather(1, drawn)  # [T, 1], the bin below the best cut between bins
        own = torch.clamp(last + AROUND, drawn * num_bins, (drawn + 1) * num_bins - 1)
        searched = torch.cat([own, node.searched], dim=1)  # [T, S]
        ends, sums = ends.flatten(1), sums.flatten(1)
        rows, inside, counts = self._rows_of(searched, node, ends)
        sums_below = _take(self._gradient, rows).mul_(inside).cumsum(dim=2)
        sums_below += (sums.gather(1, searched) - node.sums.gather(1, searched))[:, :, None]
        gains = _gain(counts, sums_below, number, mean, self.bins.penalty[searched])
        gain, best = torch.cat([most, gains.flatten(1)], dim=1).max(dim=1, keepdim=True)
        count = torch.cat([ends.gather(1, last), counts.flatten(1)], dim=1).gather(1, best)
        lies_in = torch.cat([last, searched.repeat_interleave(counts.shape[2], dim=1)], dim=1).gather(1, best)
        dimension = lies_in.div(num_bins, rounding_mode="floor")
        # The threshold lies midway between the node's codes on both sides of the cut, as in scikit-learn.
        low, high = (self._code(node, ends, dimension, rank) for rank in (count, count + 1))
        middle = low / 2 + high / 2
        threshold = torch.where(middle < high, middle, low).masked_fill_(gain <= 0, torch.inf)
        gain = gain.clamp(min=0) * number[:, 0]
        return Trees(dimension[:, 0], threshold[:, 0], gain[:, 0]), searched

    def _code(self, node: Node, ends: torch.Tensor, dimension: torch.Tensor, rank: torch.Tensor):
        """Return the code [T, 1] of the node's row of this rank (1, 2, …) in the order of a dimension.

        `ends` [T, D B] is the number of the node's rows up to the end of each bin of a dimension.
        """
        own = ends.view(len(ends), len(self.bins.codes), -1)[torch.arange(len(ends)), dimension[:, 0]]
        lies_in = torch.searchsorted(own, rank).clamp_(max=own.shape[1] - 1) + dimension * own.shape[1]
        _, _, counts = self._rows_of(lies_in, node, ends)
        place = torch.searchsorted(counts[:, 0], rank).clamp_(max=counts.shape[2] - 1)
        return self.bins.codes[dimension, self.bins.rows[lies_in, place]]

    def _rows_of(self, bins: torch.Tensor, node: Node, ends: torch.Tensor):
        """Return three tensors [T, S, W] about the rows of bins [T, S].

        They are the positions of the rows in a flat array [N, T], 1 for rows of the node and 0 for others,
        and the number of the node's rows from the begin of the order up to each row. `ends` is as in `_code`.
        """
        rows = self.bins.rows[bins] * len(bins) + torch.arange(len(bins))[:, None, None]
        before = ends.gather(1, bins) - node.number.gather(1, bins)
        inside = _take(node.rows, rows)
        return rows, inside, inside.cumsum(dim=2).add_(before[:, :, None])


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return what torch.take returns, in a third of the time."""
    return values.flatten().index_select(0, index.flatten()).view(index.shape)


def _gain(counts, sums, number, mean, penalty) -> torch.Tensor:
    """Return (S_L - n_L m)² / (n_L (n - n_L)) of cuts, negative or 0 where `penalty` rules them out."""
    gain = torch.addcmul(sums, counts, mean, value=-1).square_()
    return gain.div_(counts * (number - counts) + penalty)
