"""What a judge reads from swapped images: figure 4 of the ML-VAE paper in numbers.

A swapped image is decoded from the content of images of one class and the style of an image of another. The
judge is a network that is trained on real images, and knows nothing of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from dislab.data.dataset import Dataset, unit_images
from dislab.data.groups import join_by_one
from dislab.networks.adam import Adam
from dislab.scoring.class_readout import draw_images
from dislab.scoring.protocols import IMAGES
from dislab.scoring.table import CodeTable, rows_by_value

MOST_SWAPS = 1_000  # for each grouping; down to half of it if the classes cannot share it evenly
BATCH = 128  # images that are encoded, decoded or read together
# Of the judge's training; the rate falls to 0 in a straight line. On Cars3D, where it takes all steps, steps
# of 128 for as many images, in [0, 1] and with a first kernel of 5, took as long: it read 55% instead of 87%.
TRAIN_BATCH, STEPS, RATE = 64, 1200, 4e-3
CHECK, WELL = 50, 0.01  # training ends when the mean loss of the last CHECK steps is below WELL nats
SIDE = 32  # pixels: the judge sees larger images averaged down, to a smaller side of SIDE or more


def can_swap(model) -> bool:
    """Return whether a model has contents, a style, and a decoder that makes images of them."""
    return model.encode_groups is not None and model.mean_image is not None


def swaps(
    model, dataset: Dataset, table: CodeTable, rows: np.ndarray, group_by: Sequence[Sequence[str]], device
) -> np.ndarray | None:
    """Return what the judge reads from real and from swapped images, int64 [S, 5].

    The content is the posterior mean of images of one class, joined by `encode_groups`; the style is the
    posterior mean of an image of another class. With several groupings, style is all but the content of the
    one in question. The images are of rows that readouts are tested on (`Dataset.is_test`, or else half of
    each class), and the judge is trained on rows that are not. The images and the judge are the same for all
    models of a dataset that are scored on the same rows.

    Parameters
    ----------
    model : a trained model that `can_swap`.
    table, rows : the codes of the dataset rows int64 [N].
    group_by : the groupings of the table's labels.

    Returns
    -------
    A row for every image: the number of the grouping, 0, 1, …; the number of images whose content was joined,
    K or 1, or 0 for a real image; the class that the judge reads; that of the content; that of the style. K
    is 10, or as many tested images as the smallest class has. Classes are numbered 0, 1, … by their labels.
    None is returned if fewer than two classes have two tested and two other rows.
    """
    judged = []
    for grouping, (names, block) in enumerate(zip(group_by, [*model.blocks.values()][:-1], strict=True)):
        rng = np.random.default_rng(0)
        tested, others = _divided(dataset, rows, tuple(names), rng)
        if len(tested) < 2:
            return None
        judge = _judge(dataset, others, device)
        groups, classes = _draw_groups(rng, tested)
        givers, members = _of_other_classes(rng, groups.shape, classes)
        images, of_style = groups.flatten(), classes.repeat(groups.shape[1])
        contents = {
            1: table.mean[groups[givers, members]],
            groups.shape[1]: _joined(model, dataset, rows[groups], grouping, device)[givers],
        }
        of_real = _read(judge, lambda part: unit_images(dataset.images(rows[part]).to(device)), images)
        lines = [(0, of_real, of_style)]
        for k, content in contents.items():
            codes = np.array(table.mean[images])
            codes[:, block] = content[:, block]
            of_swapped = _read(judge, lambda part: model.mean_image(torch.from_numpy(part).to(device)), codes)
            lines.append((k, of_swapped, classes[givers]))
        for k, *read in lines:
            numbers = np.broadcast_to([grouping, k], (len(images), 2))
            judged.append(np.column_stack([numbers, *read, of_style]))
    return np.concatenate(judged)


def _divided(
    dataset: Dataset, rows: np.ndarray, names: tuple[str, ...], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return for each class the positions of the tested ones of `rows`, and its dataset rows that are not.

    Classes are those by the factors `names`; a class that lacks two of either is left out.
    """
    labels = dataset.space.labels(names)
    tested = dataset.is_test(rows)
    if tested is None:
        tested = np.zeros(len(rows), bool)
        for positions in rows_by_value(labels[rows]):
            tested[rng.permutation(positions)[len(positions) // 2 :]] = True
    is_other = np.ones(len(labels), bool)
    is_other[rows[tested]] = False
    both = np.intersect1d(*(_repeated(labels[part]) for part in (rows[tested], is_other)))
    if not len(both):
        return [], []
    positions, others = (
        np.flatnonzero(chosen & np.isin(of, both))
        for chosen, of in ((tested, labels[rows]), (is_other, labels))
    )
    return (
        [positions[part] for part in rows_by_value(labels[rows[positions]])],
        [others[part] for part in rows_by_value(labels[others])],
    )


def _repeated(labels: np.ndarray) -> np.ndarray:
    """Return the labels that occur more than once."""
    values, counts = np.unique(labels, return_counts=True)
    return values[counts > 1]


def _draw_groups(rng: np.random.Generator, pools: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return members [G, K] of about MOST_SWAPS / K groups, equally many of each class, and the classes [G].

    `pools` has the members of each class. Of too many classes some are drawn. The groups of a class follow
    one another.
    """
    size = min(max(IMAGES), *map(len, pools))
    most = MOST_SWAPS // size
    chosen = np.sort(rng.choice(len(pools), min(len(pools), most), replace=False))
    each = most // len(chosen)
    groups = [draw_images(rng, pools[number], size, each) for number in chosen]
    return np.concatenate(groups), chosen.repeat(each)


def _of_other_classes(
    rng: np.random.Generator, shape: tuple[int, int], classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of the images [G * K] of groups a group of another class, and a member of it."""
    number, size = shape
    each = np.count_nonzero(classes == classes[0])
    first_of_next = (np.arange(number) // each + 1).repeat(size) * each
    givers = (first_of_next + rng.integers(number - each, size=number * size)) % number
    return givers, rng.integers(size, size=number * size)


def _joined(model, dataset: Dataset, groups: np.ndarray, grouping: int, device) -> np.ndarray:
    """Return the posterior means float32 [G, D] of groups of dataset rows [G, K] that one grouping joins."""
    means = []
    with torch.inference_mode():
        for part in np.array_split(groups, -(-groups.size // BATCH)):
            images = unit_images(dataset.images(part.flatten()).to(device))
            by_one = join_by_one(*part.shape, grouping, len(model.blocks) - 1, device)
            means.append(model.encode_groups(images, by_one)[0][:: part.shape[1]].float().cpu().numpy())
    return np.concatenate(means)


def _read(judge: nn.Module, images_of: Callable[[np.ndarray], Tensor], items: np.ndarray) -> np.ndarray:
    """Return the classes int64 [S] that the judge reads from the images of the items [S, …]."""
    with torch.inference_mode():
        parts = np.array_split(items, -(-len(items) // BATCH))
        return np.concatenate([judge(images_of(part)).argmax(1).cpu().numpy() for part in parts])


class Judge(nn.Module):
    """A small convolutional network from images [B, C, H, W] in [0, 1] to logits of their classes."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, *sides = image_shape
        self.pool = max(1, min(sides) // SIDE)
        height, width = (-(-(side // self.pool) // 4) for side in sides)
        self.network = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * height * width, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        pool = self.pool
        height, width = (side // pool * pool for side in images.shape[2:])
        # Sums of slices take less than half the time of nn.AvgPool2d.
        rows = sum(images[:, :, start:height:pool] for start in range(pool))
        means = sum(rows[..., start:width:pool] for start in range(pool)) / pool**2
        return self.network(2 * means - 1)


# The judges of this process: the runs of one dataset follow one another.
_judges: WeakKeyDictionary[Dataset, dict[bytes, Judge]] = WeakKeyDictionary()


def _judge(dataset: Dataset, rows: list[np.ndarray], device) -> Judge:
    """Return the judge that is trained on these dataset rows of each class, always by the same seed."""
    known = _judges.setdefault(dataset, {})
    key = b" ".join(part.tobytes() for part in rows)
    if key in known:
        return known[key]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too
        judge = Judge(dataset.image_shape, len(rows)).to(device, memory_format=torch.channels_last)
    optimiser = Adam(judge.parameters(), RATE)
    rng, losses = np.random.default_rng(0), []
    order, counts = np.concatenate(rows), np.array([len(part) for part in rows])
    begin = np.cumsum(counts) - counts
    for step in range(STEPS):
        classes = rng.integers(len(rows), size=TRAIN_BATCH)
        chosen = order[begin[classes] + rng.integers(counts[classes])]
        images = unit_images(dataset.images(chosen).to(device))
        loss = nn.functional.cross_entropy(judge(images), torch.from_numpy(classes).to(device))
        optimiser.rate.fill_(RATE * (1 - step / STEPS))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
        if step % CHECK == CHECK - 1 and torch.stack(losses[-CHECK:]).mean() < WELL:
            break
    known[key] = judge.eval()
    return judge
