"""A folder of images with a CSV file of their factors."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import one_line
from PIL import Image

import dislab
from dislab.cli import main
from dislab.errors import DislabError, DislabWarning
from dislab.runs.images import forget_images
from dislab.runs.machine import Machine
from dislab.runs.resolve import check, resolve

SHAPES, SIZES = ("cube", "ball", "cone"), ("1.5", "0.25", "10.0", "2")


@pytest.fixture
def toys(tmp_path, cache, monkeypatch) -> pd.DataFrame:
    """The rows of `factors.csv`, of 24 grey images in `images`: the level of an image is 10 times its row."""
    monkeypatch.chdir(tmp_path)
    rows = [(shape, size, turn) for shape in SHAPES for size in SIZES for turn in (0, 1)]
    table = pd.DataFrame(rows, columns=["shape", "size", "turn"])
    table.insert(0, "file", [f"{'deep/' * (row % 2)}{row}.png" for row in range(len(rows))])
    for row, name in enumerate(table["file"]):
        Path("images", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 10 * row).save(Path("images", name))
    table.sample(frac=1, random_state=0).to_csv("factors.csv", index=False)
    return pd.read_csv("factors.csv")


def refused() -> str:
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("images/", factors="factors.csv")
    return one_line(error)


def test_values_become_numbers_in_order(toys, capsys):
    dataset = dislab.load_dataset("images/", factors="factors.csv")
    assert (dataset.name, dataset.group_by) == ("images", ["shape"])
    assert (dataset.space.names, dataset.space.sizes) == (("shape", "size", "turn"), (3, 4, 2))
    expected = [
        [sorted(SHAPES).index(shape), sorted(map(float, SIZES)).index(size), turn]
        for shape, size, turn in zip(toys["shape"], toys["size"], toys["turn"], strict=True)
    ]
    assert dataset.space.factors(np.arange(24)).tolist() == expected
    levels = [10 * int(Path(name).stem) for name in toys["file"]]
    assert dataset.images(np.arange(24))[:, 0, 5, 5].tolist() == levels, "images are in the order of the rows"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "factors.csv" in line]
    assert line == (
        "factors.csv: 'file' names the images; shape: 3 texts in alphabetical order, ball to cube; "
        "size: 4 numbers in ascending order, 0.25 to 10; turn: 2 numbers as they are, 0 to 1"
    )
    folder = dislab.from_folder("images", factors="factors.csv", size=8, color=False)
    assert folder.image_shape == (1, 8, 8)


def test_rows_in_the_order_of_a_grid_are_a_grid(toys):
    toys["shape"] = toys["shape"].map({"ball": 3, "cone": 5, "cube": 9})  # whole numbers with gaps
    toys.sort_values(["shape", "size", "turn"]).to_csv("factors.csv", index=False)
    space = dislab.load_dataset("images/", factors="factors.csv").space
    assert space.is_grid and space.sizes == (3, 4, 2)


@pytest.mark.parametrize("form", ["index", "relative to the file", "absolute", "BOM and Windows lines"])
def test_files_as_people_write_them(form, toys, tmp_path):
    expected = dislab.load_dataset("images/", factors="factors.csv")
    if form == "index":  # pandas names it only if the user does
        toys.set_index("file").rename_axis(None).to_csv("factors.csv")
    elif form == "BOM and Windows lines":
        toys.to_csv("factors.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    else:
        start = "./images" if form == "relative to the file" else str(tmp_path / "images")
        toys.assign(file=start + "/" + toys["file"]).to_csv("factors.csv", index=False)
    dataset = dislab.load_dataset(Path("images"), factors=Path("factors.csv"))
    assert dataset.source == expected.source
    Path("factors.csv").rename("images/factors.csv")  # no file that is left out
    assert dislab.load_dataset("images", factors="images/factors.csv").source == expected.source


def test_what_is_left_out_is_said(toys):
    toys.assign(made=2026, id=range(100, 124)).drop(index=[3, 4]).to_csv("factors.csv")
    with pytest.warns(DislabWarning) as remarks:
        dataset = dislab.load_dataset("images/", factors="factors.csv")
    assert len(dataset) == 22 and dataset.space.names == ("shape", "size", "turn", "id")
    files = sorted(toys["file"][[3, 4]])
    assert [str(remark.message) for remark in remarks] == [
        f"images in 'images' without a row in 'factors.csv' are left out: '{files[0]}', '{files[1]}'",
        "'factors.csv': a column without a name is left out",
        "'factors.csv': columns with the same value in all rows are left out: 'made'",
        "'factors.csv': columns with fewer than 2 images per value: 'id'; put measurements into bins, as by "
        "pandas.cut, and leave out what identifies an image",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "", "'factors.csv' is empty"),
        (lambda text: "\n\n", "'factors.csv' is empty"),
        (lambda text: text.splitlines()[0], "has the names of columns, but no row"),
        (lambda text: text.replace(",", ";"), "has semicolons between its columns: write commas"),
        (lambda text: text.replace(",", "\t"), "has tabs between its columns: write commas"),
        (lambda text: text + "lost.png,cube,2,1\nb.png,cube,2,1\n", "not in 'images': 'lost.png', 'b.png'"),
        (lambda text: text + "".join(f"{n}.jpg,cube,2,1\n" for n in range(5)), "'2.jpg', … (5 in all)"),
        (
            lambda text: text + "0.png,ball,2,1\n./2.png,ball,2,1\n",
            "one row of an image: '2.png', '0.png'",
        ),
        (lambda text: text.partition("\n")[2], "the first line of 'factors.csv' must name the columns"),
        (lambda text: text.replace(".png", ""), "no column of 'factors.csv' has the file names of images in"),
        (lambda text: text.replace("size", "shape"), "more than one column of the same name: 'shape'"),
        (lambda text: text.replace("0.25", "", 1), "column 'size' has no value in row"),
        (lambda text: text.replace("0.25", "nan", 1), "column 'size' has no value in row"),
        (lambda text: text.replace("cube", " ", 1), "column 'shape' has no value in row"),
        (lambda text: text.replace("cube", "cube,3", 1), "is not a CSV file: Error tokenizing data"),
        (lambda text: re.sub(",.*", ",a", text), "no column beside 'file' has two values"),
        (lambda text: re.sub(",.*", "", text), "no column beside 'file' has two values"),
        (
            lambda text: text.encode("utf-16"),
            "the file of factors 'factors.csv' cannot be read: 'utf-8' codec",
        ),
        (lambda text: None, "'factors.csv' cannot be read: No such file"),
    ],
)
def test_wrong_files_are_refused_in_one_line(change, says, toys, cache):
    path = Path("factors.csv")
    content = change(path.read_text())
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in refused()
    assert not list(cache.glob("*")), "what is refused leaves nothing in the cache"


def test_a_file_of_factors_needs_a_folder(toys):
    tiny = dislab.from_arrays(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), [0, 0, 1, 1])
    encoder = lambda images: images.flatten(1)  # noqa: E731
    here = Machine(device="cpu")
    for call, says in (
        (
            lambda: dislab.load_dataset("shapes3d", factors="factors.csv"),
            "'shapes3d' is a dataset with factors",
        ),
        (lambda: dislab.load_dataset("nowhere", factors="factors.csv"), "'nowhere' is not a folder"),
        (lambda: resolve("oracle", tiny, here, factors="factors.csv"), "a Dataset object has its own"),
        (
            lambda: dislab.evaluate(encoder, dataset=tiny, factors="factors.csv"),
            "a Dataset object has its own",
        ),
        (lambda: dislab.evaluate(codes=np.eye(4), factors="factors.csv"), "is of a dataset=FOLDER"),
    ):
        with pytest.raises(DislabError, match=says) as error:
            call()
        one_line(error)


@pytest.mark.filterwarnings("ignore::dislab.errors.DislabWarning")
def test_runs_and_evaluations_with_a_file_of_factors(toys, capsys, no_pictures):
    """The command, its repetition from the record, and codes of one's own are of the same data."""
    command = ["run", "--model", "pca", "--dataset", "images/", "--factors", "factors.csv"]
    command += ["--metrics", "mig,sap", "--device", "cpu"]
    assert main(command) == 0
    (run,) = dislab.runs_in("results")
    dataset = dislab.load_dataset("images/", factors="factors.csv")
    assert (run.config.dataset, run.config.source) == ("images", dataset.source)
    assert run.config.own_factors == str(Path("factors.csv").absolute())
    assert run.codes.factors.tolist() == dataset.space.factors(np.arange(24)).tolist()
    forget_images()
    assert main(["run", "--config", str(run.path / "run.json"), "--out", "again", "--device", "cpu"]) == 0
    assert dislab.runs_in("again")[0].scores == run.scores
    # Other values are other data.
    forget_images()
    toys.assign(turn=toys["turn"][::-1].to_numpy()).to_csv("factors.csv", index=False)
    with pytest.raises(DislabError, match="but the images here are images"):
        check(run.config, Machine(device="cpu"))
    other = dislab.run("pca", "images/", factors="factors.csv", metrics=["mig"], device="cpu")
    assert other.path != run.path
    # Codes in the order of the file's rows.
    encoder = lambda images: images.flatten(1)[:, :3]  # noqa: E731
    scores = dislab.evaluate(encoder, dataset="images/", factors="factors.csv", metrics=["mig"])
    images = dislab.load_dataset("images/", factors="factors.csv").images(np.arange(24))
    np.savez("codes.npz", codes=encoder(images / 255))
    capsys.readouterr()
    options = ["--dataset", "images/", "--factors", "factors.csv", "--metrics", "mig", "--format", "json"]
    assert main(["evaluate", "codes.npz", *options]) == 0
    assert f'"mig": {scores["mig"]}' in capsys.readouterr().out
    assert main(["evaluate", "results", "--factors", "factors.csv"]) == 2
    assert "--factors is for a .npz file" in capsys.readouterr().err
    np.savez("both.npz", codes=np.eye(4), factors=[[0], [0], [1], [1]])
    assert main(["evaluate", "both.npz", "--factors", "factors.csv", "--metrics", "mig"]) == 2
    assert "a CSV file is of a dataset=FOLDER" in capsys.readouterr().err
