"""What several test files share: a dataset of 60 small images whose pixels follow from three factors."""

import dislab  # noqa: I001  (before torch: it says how torch's threads wait)

from pathlib import Path

import numpy as np
import pytest
import torch
from bars import PLAIN, PLUGIN, SMALL

from dislab import registry
from dislab.data.dataset import Dataset
from dislab.data.space import FactorSpace
from dislab.networks import distributions
from dislab.runs import machine, perform
from dislab.runs.config import RunConfig
from dislab.runs.execute import execute
from dislab.runs.images import forget_images
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.runs.resolve import resolve

# The images are tiny: threads that wait for one another were measured at twice the time of one thread.
torch.set_num_threads(1)

NAMES, SIZES, IMAGE_SHAPE = ("shape", "size", "position"), (4, 3, 5), (1, 16, 16)


def make_tiny_dataset(held_out: np.ndarray | None = None) -> Dataset:
    """The full grid of three factors; an image is a bright bar whose row, height and column they decide."""
    space = FactorSpace(NAMES, SIZES)
    images = torch.zeros(len(space), *IMAGE_SHAPE, dtype=torch.uint8)
    for row, (shape, size, position) in enumerate(space.factors(np.arange(len(space)))):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 255 - 20 * shape

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return images.to(rows.device)[rows]

    return Dataset("tiny", "own", space, IMAGE_SHAPE, draw, ["shape"], held_out=held_out)


def one_line(error) -> str:
    """The message of a caught error, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    assert text.strip()
    return text


@pytest.fixture(scope="session", autouse=True)
def one_at_a_time():
    """Do runs in this process, which knows what the tests register, unless a test says --jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "default_jobs", lambda device: 1)
        yield


@pytest.fixture
def isolated():
    """Forget after the test what it registers, and which plug-in files it loads."""
    with registry.isolated():
        yield


@pytest.fixture
def tiny_dataset() -> Dataset:
    return make_tiny_dataset()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own, and no official files but those that the test writes."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DISLAB_CACHE", str(folder))
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    return folder


@pytest.fixture
def bars(tmp_path, monkeypatch) -> list[str]:
    """Options that make the dataset "bars" known to `dislab`; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    (tmp_path / "bars.py").write_text(PLUGIN)
    forget_images()  # each command is a process of its own, which opens its dataset
    with registry.isolated():
        yield ["--plugin", "bars.py"]


@pytest.fixture(params=["as on the CPU", "as on a GPU"])
def way_of_sums(request, monkeypatch):
    """Sums by group as they are computed on the device."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(distributions, "_would_sort", lambda values, pairs: True)


@pytest.fixture
def no_pictures(monkeypatch):
    """Runs in this process draw no pictures, which would take most of their time."""
    monkeypatch.setattr(perform, "draw_pictures", lambda *scene: [])


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The plug-in's file; what it registers is forgotten after these tests.

    Processes that load it draw no pictures, and nor does this one during these tests.
    """
    path = tmp_path_factory.mktemp("plugin") / "bars.py"
    path.write_text(PLUGIN + PLAIN)
    (path.parent / "data").mkdir()  # with no official file in it
    with registry.isolated(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISLAB_DATA", str(path.parent / "data"))
        patch.setattr(perform, "draw_pictures", perform.draw_pictures)  # restored afterwards
        dislab.load_plugin(path)
        yield path


@pytest.fixture
def small(tmp_path, monkeypatch, no_pictures):
    """A small study in the working folder; no pictures are drawn in this process."""
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)


@pytest.fixture
def folder(tmp_path, monkeypatch, isolated, no_pictures) -> Path:
    """An empty working folder; what the test registers is forgotten, and no pictures are drawn."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def configs(tiny_dataset, tmp_path, monkeypatch, no_pictures) -> list[RunConfig]:
    """Configurations of two cheap runs in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    first = resolve("oracle", tiny_dataset, Machine(), metrics=["mig"])
    return [first, first.with_seed(1)]


@pytest.fixture
def results(configs) -> Results:
    """The results folder of two finished runs."""
    outcomes = list(execute(configs, Machine()))
    assert [outcome.failure for outcome in outcomes] == ["", ""]
    return Results("results")
