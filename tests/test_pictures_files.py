"""Pictures: which files are written, how large they are, and what is drawn where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from grey_images import ROWS, make_dataset
from matplotlib.figure import Figure
from PIL import Image

import dislab
from dislab.files import check_own
from dislab.models.mlvae import MLVAE
from dislab.models.oracle import Oracle
from dislab.models.vae import VAE
from dislab.runs import finished, perform
from dislab.runs.record import Results
from dislab.scoring import pictures
from dislab.scoring.encoding import encode
from dislab.training.model import check_model

DPI = 200


def size_of_file(path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return image.size


def expected_size(rows: int, columns: list[int], names: bool, titles: bool) -> tuple[int, int]:
    """Pixels of a figure of panels of so many columns: tiles of 0.6 inches, with margins."""
    width = (1.1 if names else 0.1) + 0.6 * sum(columns) + 0.3 * (len(columns) - 1) + 0.05
    height = 0.6 * rows + 0.4 + (0.25 if titles else 0)
    return DPI * width, DPI * height


SIZES = {
    "reconstructions": (2, [9], True, False),
    "swap": (5, [5, 5], False, True),
    "interpolation": (9, [11, 11], False, True),
    "generation": (3, [10, 14], False, True),
    "evidence": (9, [10], True, False),
}
SIZES_BY_PARITY = {"swap": (4, [4, 4], False, True), "generation": (2, [10, 14], False, True)}
SIZES_BY_PARITY |= {"interpolation": SIZES["interpolation"], "evidence": (6, [10], True, False)}


def draw_all(folder, group_by) -> dict[str, Path]:
    torch.manual_seed(0)
    dataset = make_dataset()
    model = MLVAE((1, 8, 8), content=2, style=2, network="mlp", groupings=len(group_by)).eval()
    table = encode(model.encode, dataset, ROWS, blocks=model.blocks, group_by=group_by)
    return {path.stem: path for path in pictures.draw_pictures(folder, model, dataset, table, ROWS)[:-1]}


def test_pictures_are_files_of_the_right_size(tmp_path):
    paths = draw_all(tmp_path, [["kind"]])
    # Four dimensions above the start image, and the names of the columns: a quarter of a tile.
    sizes = SIZES | {"traversals": (5.25, [9], True, True)}
    assert paths.keys() == sizes.keys() and sorted(paths.values()) == sorted(tmp_path.glob("*.png"))
    content = (tmp_path / "traversals.gif").read_bytes()
    with Image.open(tmp_path / "traversals.gif") as image:
        assert image.format == "GIF" and image.n_frames == 16 and len(content) < 300_000
    check_own(tmp_path / "traversals.gif")
    for name, size in sizes.items():
        assert paths[name].suffix == ".png"
        assert size_of_file(paths[name]) == pytest.approx(expected_size(*size), abs=1.5), name


def test_every_grouping_has_pictures_of_its_own(tmp_path, monkeypatch):
    figures = {}
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: figures.update({path: figure}))
    paths = draw_all(tmp_path, [["kind"], ["parity"]])
    sizes = {"reconstructions": SIZES["reconstructions"], "traversals": (7.25, [9], True, True)}
    sizes |= {f"{name}_1": size for name, size in SIZES.items() if name != "reconstructions"}
    sizes |= {f"{name}_2": size for name, size in SIZES_BY_PARITY.items()}
    assert paths.keys() == sizes.keys() and sorted(paths.values()) == sorted(figures)
    for name, size in sizes.items():
        assert paths[name] == tmp_path / f"{name}.png"
        pixels = DPI * figures[paths[name]].get_size_inches()
        assert tuple(pixels) == pytest.approx(expected_size(*size), abs=1.5), name


def test_a_model_without_content_and_style_has_no_pictures_of_groups(tmp_path):
    dataset = make_dataset()
    model = check_model(VAE((1, 8, 8), latents=2, network="mlp"), "vae").eval()
    table = encode(model.encode, dataset, ROWS, group_by=[["kind"]])
    paths = pictures.draw_pictures(tmp_path, model, dataset, table, ROWS, formats=("png", "svg"))
    names = ["reconstructions.png", "reconstructions.svg", "traversals.png", "traversals.svg"]
    assert [path.name for path in paths] == [*names, "traversals.gif"]
    without_decoder = check_model(Oracle((1, 8, 8)), "oracle")
    assert pictures.draw_pictures(tmp_path / "none", without_decoder, dataset, table, ROWS) == []
    assert not (tmp_path / "none").exists()


def test_a_finished_run_draws_the_pictures_that_it_lacks(tmp_path, monkeypatch):
    """They show what was drawn after the training, from the parameters and codes in the run's folder."""
    drawn = []

    def draw(panels, title, ax=None):
        drawn.append((title, [panel.tiles for panel in panels]))
        return Figure().subplots()

    monkeypatch.setattr(pictures, "draw", draw)
    monkeypatch.setattr(pictures, "animation", lambda scene: b"GIF8")
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: path.write_text(path.name))
    options = {"steps": 3, "batch_size": 12, "network": "mlp", "group_size": 4, "metrics": ["mig"]}
    options |= {"out": tmp_path, "device": "cpu"}
    dataset = make_dataset()
    first = dislab.run("mlvae", dataset, **options)
    names = {"reconstructions", "traversals", "swap", "interpolation", "generation", "evidence"}
    assert {path.stem for path in first.path.glob("*.png")} == names and len(drawn) == len(names)
    bare = dislab.run("mlvae", dataset, seed=1, pictures="none", **options)
    assert {path.suffix for path in bare.path.iterdir()}.isdisjoint({".png", ".gif"})
    monkeypatch.delattr(perform, "_train")  # nothing is trained again
    free, write = [], finished.write_atomically

    def noted(path, content):
        free.append(Results(tmp_path).claim(first.record["digest"]).is_free())
        write(path, content)

    monkeypatch.setattr(finished, "write_atomically", noted)
    for name in ("swap.png", "traversals.gif"):
        (first.path / name).unlink()
    kept = first.path / "evidence.png"
    before = kept.stat().st_mtime_ns
    run = dislab.run("mlvae", dataset, **options)
    assert run.read("swap.png") == b"swap.png" and run.read("traversals.gif") == b"GIF8"
    assert run.record == first.record and len((tmp_path / "records.jsonl").read_bytes().splitlines()) == 2
    run = dislab.run("mlvae", dataset, pictures="svg", **options)
    assert {path.stem for path in run.path.glob("*.svg")} == names
    assert run.record["files"].keys() - first.record["files"].keys() == {f"{name}.svg" for name in names}
    assert run.read("swap.svg") == b"swap.svg" and dislab.load(run.path).record == run.record
    assert kept.stat().st_mtime_ns == before and len(drawn) == 3 * len(names)
    assert free and not any(free), "files are written under the claim of the run"
    for again in (drawn[len(names) : 2 * len(names)], drawn[2 * len(names) :]):
        for (title, tiles), (other, others) in zip(drawn, again, strict=False):
            assert title == other
            torch.testing.assert_close(tiles, others, equal_nan=True)
    (run.path / "swap.png").unlink()
    (run.path / "model.safetensors").unlink()
    dislab.run("mlvae", dataset, **options)
    assert len(drawn) == 3 * len(names) and not (run.path / "swap.png").exists(), "nothing to draw it from"


def test_a_tile_is_drawn_where_it_belongs(tmp_path):
    """The pixels of the file: white where a tile is missing, black and white tiles, and a box's colour."""
    tiles = torch.zeros(2, 3, 1, 8, 8)
    tiles[0, 2] = 1
    tiles[1, 0] = torch.nan
    axes = pictures.draw([pictures.Panel(tiles, boxes={"blue": [(1, 1)]})], "")
    pictures.save_figure(axes.figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    side, left, top = 0.6 * DPI, 0.1 * DPI, 0.4 * DPI

    def middle(row: int, column: int) -> list[int]:
        # A tile has 8 pixels, and a gap of 2 pixels follows it.
        return picture[round(top + (row + 0.4) * side), round(left + (column + 0.4) * side)].tolist()

    black, white = [0, 0, 0], [255, 255, 255]
    assert [middle(0, column) for column in range(3)] == [black, black, white]
    assert [middle(1, column) for column in range(3)] == [white, black, black]
    blue = np.argwhere((picture[:, :, 2] > 200) & (picture[:, :, :2].max(2) < 60))
    (low_y, low_x), (high_y, high_x) = blue.min(0), blue.max(0)
    assert low_y == pytest.approx(top + side, abs=8) and high_y == pytest.approx(top + 1.8 * side, abs=8)
    assert low_x == pytest.approx(left + side, abs=8) and high_x == pytest.approx(left + 1.8 * side, abs=8)
