"""Pictures: which code and which image every tile shows."""

import numpy as np
import pytest
import torch
from grey_images import CLASSES, FACTORS, ROWS, make_dataset

from dislab.scoring import pictures
from dislab.scoring.table import CodeTable


def known(tile: torch.Tensor) -> int:
    """The row whose image a tile is."""
    assert tile.min() == tile.max()
    return round(float(tile.max()) * 255)


class Painter(torch.nn.Module):
    """A model whose codes are content (one dimension for each grouping) and style, and whose images have
    content_1 in their left columns, style in the right ones, and content_2 in between."""

    def __init__(self, groupings: int = 1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.groupings = groupings
        self.joined: list[list[int]] = []  # the rows of every group that was joined

    def mean_image(self, codes: torch.Tensor) -> torch.Tensor:
        image = codes[:, :1, None, None].expand(-1, 1, 8, 8).clone()
        image[:, :, :, 2:6] = codes[:, -2, None, None, None]
        image[:, :, :, 6:] = codes[:, -1, None, None, None]
        return image

    def encode_groups(self, images: torch.Tensor, groupings):
        rows = np.array([known(image) for image in images])
        mean = torch.from_numpy(codes_of(rows, self.groupings))
        for number, groups in enumerate(groupings):
            index = groups.index.numpy()
            members = [np.flatnonzero(index == g) for g in range(groups.number)]
            if any(len(positions) > 1 for positions in members):
                self.joined += [rows[positions].tolist() for positions in members]
            for positions in members:
                mean[positions, number] = mean[positions, number].mean()
        return mean, torch.zeros_like(mean)


def codes_of(rows: np.ndarray, groupings: int = 1) -> np.ndarray:
    """Codes of single images, all different: contents in [0, 0.4), style in [0.5, 0.9)."""
    contents = [((7 + 6 * g) * rows % 72) / 180 for g in range(groupings)]
    return np.stack([*contents, 0.5 + rows / 180], axis=1).astype(np.float32)


def make_scene(groupings: int = 1) -> pictures.Scene:
    names = ["content"] if groupings == 1 else ["content_1", "content_2"]
    blocks = {name: slice(g, g + 1) for g, name in enumerate(names)}
    table = CodeTable(
        codes_of(ROWS, groupings),
        FACTORS,
        blocks=blocks | {"style": slice(groupings, groupings + 1)},
        labels=FACTORS[:, :groupings],
    )
    return pictures.Scene(Painter(groupings), make_dataset(), table, ROWS)


@pytest.fixture
def drawn(monkeypatch) -> list[pictures.Panel]:
    """The panels of the figures that the test makes."""
    drawn = []
    monkeypatch.setattr(pictures, "draw", lambda panels, title, ax=None: drawn.extend(panels))
    return drawn


def assert_paints(tile: torch.Tensor, content: float, style: float) -> None:
    torch.testing.assert_close(tile[:, :, :2], torch.full((1, 8, 2), content), rtol=0, atol=1e-6)
    torch.testing.assert_close(tile[:, :, 6:], torch.full((1, 8, 2), style), rtol=0, atol=1e-6)


def contents_of_groups(scene: pictures.Scene, grouping: int = 0) -> dict[int, float]:
    """The joined content by the first image of its group; the groups are of a class, of different images."""
    single = codes_of(ROWS, scene.model.groupings)[:, grouping]
    for group in scene.model.joined:
        assert len(set(FACTORS[group, grouping])) == 1 and len(set(group)) == len(group) > 1
    return {group[0]: float(single[group].mean()) for group in scene.model.joined}


def test_swap_takes_the_content_of_the_column_and_the_style_of_the_row(drawn):
    scene = make_scene()
    pictures.swap(scene, "content", 0)
    alone, grouped = drawn
    single = codes_of(ROWS)
    joined = contents_of_groups(scene)
    assert alone.title == "no grouping: every code from one image"
    assert grouped.title == "grouped by the true class: the content from 10 images"
    for panel in (alone, grouped):
        tiles = panel.tiles
        assert tiles.shape == (CLASSES + 2, CLASSES + 2, 1, 8, 8)
        columns = [known(tile) for tile in tiles[0, 2:]]
        rows = [known(tile) for tile in tiles[2:, 0]]
        assert FACTORS[columns, 0].tolist() == FACTORS[rows, 0].tolist() == [0, 1, 2]
        assert not {*columns} & {*rows}
        assert tiles[:2, :2].isnan().all() and not tiles[2:].isnan().any()
        contents = dict(enumerate(single[:, 0])) if panel is alone else joined
        styles = single[:, 1]
        for j, column in enumerate(columns):
            assert_paints(tiles[1, 2 + j], contents[column], styles[column])
            for i, row in enumerate(rows):
                assert_paints(tiles[2 + i, 2 + j], contents[column], styles[row])
                assert_paints(tiles[2 + i, 1], contents[row], styles[row])
        assert set(panel.boxes["limegreen"]) == {(0, n) for n in (2, 3, 4)} | {(n, 0) for n in (2, 3, 4)}
        assert set(panel.boxes["royalblue"]) == {(1, n) for n in (2, 3, 4)} | {(n, 1) for n in (2, 3, 4)}
    assert torch.equal(alone.tiles[0, 2:], grouped.tiles[0, 2:]), "the same images in both"
    assert (alone.tiles[2:, 2:] != grouped.tiles[2:, 2:]).any()
    halves = [{*group} for group in scene.model.joined]
    assert len(halves) == 2 * CLASSES and all(len(half) == 10 for half in halves)
    assert sum(map(len, halves)) == len(set.union(*halves)), "no image gives both content and style"


def test_a_class_with_a_single_image_is_swapped_too(drawn):
    scene = make_scene()
    alone = np.arange(len(ROWS)) == 0
    scene.table.labels = np.where(alone[:, None], 99, scene.table.labels)
    pictures.swap(scene, "content", 0)
    assert len(drawn) == 2 and not drawn[0].tiles[2:, 2:].isnan().any()


def test_with_two_groupings_the_other_content_stays_with_the_style(drawn):
    scene = make_scene(groupings=2)
    pictures.swap(scene, "content_2", 1)
    single = codes_of(ROWS, 2)
    joined = contents_of_groups(scene, 1)
    for panel, contents in zip(drawn, (dict(enumerate(single[:, 1])), joined), strict=True):
        columns = [known(tile) for tile in panel.tiles[0, 2:]]
        rows = [known(tile) for tile in panel.tiles[2:, 0]]
        assert FACTORS[columns, 1].tolist() == [0, 1]
        for i, j in np.ndindex((2, 2)):
            row, column, tile = rows[i], columns[j], panel.tiles[2 + i, 2 + j]
            assert_paints(tile, single[row, 0], single[row, 2])
            middle = torch.full((1, 8, 4), float(contents[column]))
            torch.testing.assert_close(tile[:, :, 2:6], middle, rtol=0, atol=1e-6)


def test_interpolation_goes_from_left_to_right_and_from_top_to_bottom(drawn):
    scene = make_scene()
    pictures.interpolation(scene, "content", 0)
    single = codes_of(ROWS)
    joined = contents_of_groups(scene)
    for panel, contents in zip(drawn, (dict(enumerate(single[:, 0])), joined), strict=True):
        tiles = panel.tiles
        assert tiles.shape == (9, 11, 1, 8, 8)
        first, last = known(tiles[0, 0]), known(tiles[-1, -1])
        assert FACTORS[first, 0] != FACTORS[last, 0]
        assert tiles[1:, 0].isnan().all() and tiles[:-1, -1].isnan().all()
        for i, j in np.ndindex((9, 9)):
            content = contents[first] + j / 8 * (contents[last] - contents[first])
            style = single[first, 1] + i / 8 * (single[last, 1] - single[first, 1])
            assert_paints(tiles[i, 1 + j], float(content), float(style))


def test_generation_keeps_the_content_and_draws_the_style_from_the_prior(drawn):
    scene = make_scene()
    pictures.generation(scene, "content", 0)
    single = codes_of(ROWS)
    joined = contents_of_groups(scene)
    alone, grouped = (panel.tiles for panel in drawn)
    assert alone.shape[:2] == (CLASSES, 1 + 1 + 8) and grouped.shape[:2] == (CLASSES, 5 + 1 + 8)
    for tiles, shown, contents in ((alone, 1, dict(enumerate(single[:, 0]))), (grouped, 5, joined)):
        for line in tiles:
            images = [known(tile) for tile in line[:shown]]
            assert len({*FACTORS[images, 0]}) == 1 and line[shown].isnan().all()
            for tile in line[shown + 1 :]:
                assert_paints(tile, float(contents[images[0]]), float(tile[0, 0, -1]))
    styles = alone[:, 2:, 0, 0, -1]
    assert torch.equal(styles, grouped[:, 6:, 0, 0, -1]), "the same styles in both"
    assert len(styles.unique()) == CLASSES * 8 and styles.min() < -1 and styles.max() > 1
    assert {*contents_of_groups(scene)} == {known(line[0]) for line in grouped}


def test_evidence_shows_every_image_with_its_own_content_and_with_that_of_its_group(drawn):
    scene = make_scene()
    pictures.evidence(scene, "content", 0)
    [panel] = drawn
    single = codes_of(ROWS)
    assert panel.tiles.shape[:2] == (9, 10)
    assert panel.names == ["image", "own content", "content of 10"] * 3
    joined = contents_of_groups(scene)
    for images, own, of_group in panel.tiles.unflatten(0, (3, 3)):
        members = [known(tile) for tile in images]
        assert members in scene.model.joined
        for row, one, other in zip(members, own, of_group, strict=True):
            assert_paints(one, float(single[row, 0]), float(single[row, 1]))
            assert_paints(other, joined[members[0]], float(single[row, 1]))


def test_reconstructions_and_traversals_show_what_the_codes_say(drawn):
    scene = make_scene()
    pictures.reconstructions(scene)
    pictures.traversals(scene)
    assert scene.model.joined == [], "nothing is joined"
    shown, moved = drawn
    single = codes_of(ROWS)
    for image, reconstructed in zip(*shown.tiles, strict=True):
        assert_paints(reconstructed, *map(float, single[known(image)]))
    content, style, last = moved.tiles
    start = known(last[0])
    assert_paints(last[1], *map(float, single[start]))
    assert last[2:].isnan().all()
    # Without variances the aggregate posterior is that of the codes; the nearest value is the start's own.
    values = np.quantile(single, np.linspace(0.02, 0.98, 9), axis=0)
    nearest = np.abs(values - single[start]).argmin(0)
    values[nearest, [0, 1]] = single[start]
    for column in range(9):
        assert_paints(content[column], float(values[column, 0]), float(single[start, 1]))
        assert_paints(style[column], float(single[start, 0]), float(values[column, 1]))
    assert moved.boxes == {"limegreen": [(2, 0)], "royalblue": [(0, nearest[0]), (1, nearest[1]), (2, 1)]}
    assert moved.columns[::4] == ["2 %", "50 %", "98 %"]


def test_quantiles_are_those_of_draws_not_of_means():
    """A dimension that knows nothing has a mean of 0, and the prior's quantiles."""
    mean = np.zeros((20_000, 2), np.float32)
    logvar = np.tile(np.float32([0, -20]), (len(mean), 1))
    table = CodeTable(mean, np.zeros((len(mean), 1), int), logvar=logvar)
    quantiles = pictures._quantiles(table)
    assert quantiles[[0, 4, 8], 0] == pytest.approx([-2.054, 0, 2.054], abs=0.1)
    assert np.abs(quantiles[:, 1]).max() < 1e-3


def test_a_picture_is_drawn_on_axes_of_ones_own():
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 2)
    assert pictures.reconstructions(make_scene(), ax=axes[0]) is axes[0]
    assert len(axes[0].images) == 1 and not axes[1].images
    drawn = pictures.swap(make_scene(), "content", 0, ax=axes)
    assert [*drawn] == [*axes] and len(axes[1].images) == 1
    own = pictures.traversals(make_scene())
    assert own.figure.texts[0].get_text().startswith("Each code dimension alone")
