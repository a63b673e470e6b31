"""A user's own folders of images as datasets."""

import errno
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny_dataset, one_line
from own_images import noise
from PIL import Image

import dislab
from dislab.data import folder, load
from dislab.data.official import data_folder
from dislab.errors import DislabError, DislabWarning


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three sub-folders of plain colours in several formats; each folder has a hue, each image a level."""
    for hue, (group, count) in enumerate({"Zoe": 2, "anna": 3, "ben": 2}.items()):
        folder = tmp_path / "photos" / group
        folder.mkdir(parents=True)
        for number in range(count):
            color = [0, 0, 0]
            color[hue] = 100 + 50 * number
            suffix = ["png", "BMP", "gif"][number]
            Image.new("RGB", (40 + number, 30), tuple(color)).save(folder / f"{number}.{suffix}")
    return tmp_path / "photos"


@pytest.mark.filterwarnings("ignore::dislab.errors.DislabWarning")
def test_folder_of_images(photos, cache):
    (photos / "notes.txt").write_text("not an image")
    (photos / "ben" / "notes.txt").write_text("not an image")
    (photos / "ben" / ".hidden.png").write_text("not an image")
    (photos / ".thumbnails").mkdir()
    dataset = dislab.from_folder(photos, size=16)
    assert (dataset.name, dataset.image_shape, len(dataset)) == ("photos", (3, 16, 16), 7)
    assert (dataset.space.names, dataset.space.sizes, dataset.group_by) == (("folder",), (3,), ["folder"])
    # Sorted by name, capital letters first.
    assert dataset.space.factors(np.arange(7))[:, 0].tolist() == [0, 0, 1, 1, 1, 2, 2]
    expected = np.zeros((7, 3), int)
    expected[[0, 2, 5], [0, 1, 2]], expected[[1, 3, 6], [0, 1, 2]], expected[4, 1] = 100, 150, 200
    images = dataset.images(np.arange(7)).numpy()
    assert (images == expected[:, :, None, None]).all()
    grey = dislab.from_folder(photos, size=8, color=False, name="grey").images(np.arange(7)).numpy()
    assert grey.shape == (7, 1, 8, 8)
    # ITU-R 601 luma, Pillow's definition of grey.
    assert np.abs(grey[:, 0, 0, 0] - expected @ [0.299, 0.587, 0.114]).max() <= 0.5 + 1e-6


def test_images_are_cropped_to_the_middle_and_shrunk_evenly(tmp_path):
    """The red and the blue side of a wide image fall away; of the rest a pixel is the weighted mean that a
    bilinear filter of twice the width gives (weights 1, 3, 3, 1 over 8)."""
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[:, :6, 0], pixels[:, 14:, 2] = 255, 255
    middle = np.random.default_rng(0).integers(0, 256, (8, 8))
    pixels[:, 6:14, 1] = middle
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    image = folder.read_image(tmp_path / "wide.png", 4, "RGB").astype(int)
    assert (image[:, :, [0, 2]] == 0).all()
    weights = np.zeros((4, 8))
    for row in range(4):
        for offset, weight in zip((-1, 0, 1, 2), (1, 3, 3, 1), strict=True):
            if 0 <= 2 * row + offset < 8:  # beyond the edge there is nothing, and the others weigh more
                weights[row, 2 * row + offset] = weight
    weights /= weights.sum(1, keepdims=True)
    assert np.abs(image[:, :, 1] - weights @ middle @ weights.T).max() <= 1.01  # rounded after each axis
    tall = folder.read_image(tmp_path / "tall.png", 4, "RGB")
    assert np.abs(tall - image.transpose(1, 0, 2)).max() <= 1


def test_turned_and_transparent_images(tmp_path):
    pixels = noise(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the first row of pixels is the right-hand side
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(folder.read_image(tmp_path / "turned.png", 8, "RGB"), np.rot90(pixels, -1))
    alpha = np.zeros((8, 8, 1), np.uint8)
    alpha[:, 4:] = 255
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "cut_out.png")
    read = folder.read_image(tmp_path / "cut_out.png", 8, "RGB")
    assert np.array_equal(read, np.where(alpha > 0, pixels, 0))


def test_what_was_done_to_images_is_said(photos, cache, capsys):
    Image.new("RGBA", (50, 60), (9, 9, 9, 0)).save(photos / "ben" / "clear.png")
    Image.new("LA", (40, 30)).save(photos / "ben" / "grey.png")
    dataset = dislab.from_folder(photos, size=16, quiet=False)
    assert not dataset.images([7]).any() and dataset.space.factors([7]) == [[2]]
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("photos: ")] == [
        "photos: images of 4 different sizes, 40 x 30 to 50 x 60 pixels: the square in the middle is resized "
        "to 16 x 16; crop them yourself if another part matters, or choose another size by "
        "dislab.from_folder(size=…)",
        "photos: images with transparency: 2, composed on black",
        "photos: images with a palette: 1, read as its colours",
    ]
    dislab.from_folder(photos, size=16, quiet=False)
    assert "photos" not in capsys.readouterr().err, "once decoded, nothing is done"


def test_images_are_decoded_once_and_again_when_they_change(photos, cache, monkeypatch):
    read, original = [], folder.read_image

    def count(path, *options):
        read.append(path)
        return original(path, *options)

    monkeypatch.setattr(folder, "read_image", count)
    sources = [dislab.from_folder(photos, size=16).source for _ in range(2)]
    assert len(read) == 7
    assert sources[0] == sources[1]
    Image.new("RGB", (33, 33), (9, 9, 9)).save(photos / "ben" / "0.png")
    changed = dislab.from_folder(photos, size=16)
    assert len(read) == 14
    assert changed.source != sources[0]
    assert (changed.images([5]) == 9).all()
    assert dislab.from_folder(photos, size=8).image_shape == (3, 8, 8)
    assert len(read) == 21
    # The data says who it is, not where it lies.
    shutil.copytree(photos, photos.parent / "copy")
    assert dislab.from_folder(photos.parent / "copy", size=16).source == changed.source


def test_held_out_folders_are_disjoint(photos, cache):
    dataset = dislab.from_folder(photos, size=16, held_out=0.3)
    trained, scored = (
        set(dataset.space.factors(rows)[:, 0]) for rows in (dataset.train_rows(), dataset.evaluation_rows())
    )
    assert (len(trained), len(scored)) == (2, 1)
    assert trained | scored == {0, 1, 2}
    assert dataset.split == "0.3"
    for wrong, says in (
        (0, "between 0 and 1"),
        (1.0, "between 0 and 1"),
        (0.1, "holds out no image"),
        (0.9, "to train on"),
    ):
        with pytest.raises(DislabError, match=says):
            dislab.from_folder(photos, size=16, held_out=wrong)


def test_wrong_folders_are_refused_in_one_line(photos, cache, tmp_path):
    def refused(path=photos, **options) -> str:
        with pytest.raises(DislabError) as error:
            dislab.from_folder(path, **{"size": 16} | options)
        assert not list(cache.glob("*")), "what is refused leaves nothing in the cache"
        return one_line(error)

    assert f"'{tmp_path / 'nowhere'}' does not exist" in refused(tmp_path / "nowhere")
    assert "0.png' is not a folder" in refused(photos / "ben" / "0.png")
    assert "it has none" in refused(photos / "ben")
    (tmp_path / "single" / "one").mkdir(parents=True)
    assert "it has only 'one'" in refused(tmp_path / "single")
    for size in (0, -1, 1.5, True, "64"):
        assert "it must be a whole number of pixels" in refused(size=size)
    (photos / "empty").mkdir()
    assert f"there is no image in '{photos / 'empty'}'" in refused()
    (photos / "empty").rmdir()
    shutil.copy(photos / "ben" / "0.png", photos / "stray.png")
    assert f"images in no group, move them into one of the sub-folders: '{photos / 'stray.png'}'" in refused()
    (photos / "stray.png").unlink()
    damaged = photos / "anna" / "damaged.png"
    damaged.write_text("not an image")
    assert f"'{damaged}' is not an image" in refused()
    Image.fromarray(noise(64, 64, 3)).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:3000])
    assert f"the image '{damaged}' cannot be read" in refused()
    Image.fromarray(noise(16, 16).astype(np.uint16)).save(damaged)
    assert f"'{damaged}' has more than 8 bits per channel" in refused()
    for number in range(4):
        shutil.copy(damaged, photos / "anna" / f"deep{number}.png")
    message = refused()
    assert message.count("more than 8 bits") == 3 and "(5 of 12 images cannot be used)" in message
    for number in range(4):
        (photos / "anna" / f"deep{number}.png").unlink()
    damaged.unlink()
    assert len(dislab.from_folder(photos, size=16)) == 7


def test_an_image_that_would_be_dropped_is_refused_or_said(photos, cache, monkeypatch):
    def refused() -> str:
        with pytest.raises(DislabError) as error:
            dislab.from_folder(photos, size=16)
        return one_line(error)

    def loaded(images: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(dislab.from_folder(photos, size=16)) == images

    source = photos / "ben" / "0.png"
    link = photos / "ben" / "gone.jpg"
    link.symlink_to(photos / "nowhere.jpg")
    assert refused() == f"links to files that are not there, mend or delete them: '{link}'"
    more = [photos / "anna" / f"gone{number}.jpg" for number in range(9)]
    for path in more:
        path.symlink_to(photos / "nowhere.jpg")
    assert "… (10 in all)" in refused()
    for path in more:
        path.unlink()
    link.unlink()
    link.symlink_to(source)
    loaded(8)
    link.unlink()
    group = photos / "zoe"  # a whole group that is gone
    group.symlink_to(photos / "nowhere")
    assert f"mend or delete them: '{group}'" in refused()
    group.unlink()

    deeper = photos / "ben" / "2019" / "may"
    deeper.mkdir(parents=True)
    shutil.copy(source, deeper / "1.PNG")
    with pytest.warns(
        DislabWarning, match="images lie deeper than the sub-folders of .* 'Zoe', 'anna', 'ben'"
    ):
        dataset = dislab.from_folder(photos, size=16)
    assert dataset.space.factors(np.arange(8))[:, 0].tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert (dataset.images([7]) == dataset.images([5])).all(), "1.BMP and 0.png, then 2019/may/1.PNG"
    (deeper / "back").symlink_to(photos / "ben")  # a circle
    with pytest.warns(DislabWarning, match="images lie deeper"):
        assert len(dislab.from_folder(photos, size=16)) == 8
    for hidden in (".2019", "__MACOSX", "@eaDir"):
        next(path for path in (photos / "ben").iterdir() if path.is_dir()).rename(photos / "ben" / hidden)
        loaded(7)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (photos / "ben" / name).touch()
    (photos / "__MACOSX").mkdir()
    loaded(7)
    shutil.copy(source, photos / "ben" / "1.PNG")  # the case of a suffix does not matter
    loaded(8)

    def scandir(path):
        if path == photos / "ben":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    listed = os.scandir
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        assert refused() == f"'{photos / 'ben'}' cannot be read: Permission denied"

    for name in ("a.heic", "b.HEIC", "c.txt", "none", ".hidden"):
        (photos / "anna" / name).touch()
    with pytest.warns(DislabWarning) as remarks:
        assert len(dislab.from_folder(photos, size=16)) == 8
    (remark,) = remarks
    assert str(remark.message) == (
        f"'{photos}': files that are not read as images: 2 of .heic, 1 of .txt, 1 of no suffix"
    )
    assert remark.filename == __file__


def test_text_of_the_command_line(photos, cache, monkeypatch):
    monkeypatch.chdir(photos.parent)
    (photos.parent / "mnist").mkdir()  # a folder of a dataset's name: the dataset is meant
    for text in ("photos", "photos/", "./photos", str(photos), "./mnist", "nowhere/"):
        assert load.is_folder_text(text), text
    for text in ("mnist", "shapes3d", "nowhere", "photoz"):
        assert not load.is_folder_text(text), text
    dataset = dislab.load_dataset("photos")
    assert (dataset.name, dataset.image_shape, len(dataset)) == ("photos", (3, 64, 64), 7)
    with pytest.raises(DislabError, match="there is no --source rendered of it"):
        dislab.load_dataset("photos", source="rendered")
    with pytest.raises(DislabError, match="'nowhere' does not exist"):
        dislab.load_dataset("./nowhere")
    with pytest.raises(DislabError, match="did you mean 'shapes3d'"):
        dislab.load_dataset("shape3d")
    with pytest.raises(DislabError, match=r"the official file train-images\S+ of mnist is not there"):
        dislab.load_dataset("mnist")


def test_a_folder_is_trained_on_by_group(photos, cache, tmp_path):
    dataset = dislab.from_folder(photos, size=16, held_out=0.3)
    run = dislab.run(
        "mlvae", dataset, steps=2, group_size=2, out=tmp_path / "results", device="cpu", metrics=[]
    )
    assert run.codes.factors.tolist() == dataset.space.factors(dataset.evaluation_rows()).tolist()
    assert (run.config.dataset, run.config.source) == ("photos", dataset.source)


@pytest.mark.parametrize(
    "name",
    [
        "../../evil",
        "/tmp/evil",
        "a/b",
        "a\\b",
        "..",
        ".",
        "",
        "a\nb",
        "a\udcffb",
        "n" * 300,
        "ü" * 51,
        "\0",
        None,
        3,
    ],
)
def test_a_name_that_is_no_name_of_a_file_is_refused_before_anything_is_written(
    name, photos, cache, tmp_path
):
    before = sorted(tmp_path.rglob("*"))
    tiny = make_tiny_dataset()
    makers = [
        lambda: dislab.Dataset(name, "own", tiny.space, tiny.image_shape, tiny.images, ["shape"]),
        lambda: dislab.from_arrays(noise(6, 8, 8), np.arange(6), name=name),
        lambda: dislab.from_folder(photos, size=16, name=name),
    ]
    for make in makers[: 2 if name is None else 3]:  # the folder's own name
        with pytest.raises(DislabError, match="the dataset's name is") as error:
            make()
        assert len(one_line(error)) < 400
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("x" * 300, "File name too long"),
        ("photos/" + "y" * 256, "File name too long"),
        ("a/" * 3000, "File name too long"),
        ("~nobody-of-this-name/a", "home directory"),
        ("loop/a", "does not exist"),
        ("zero\0byte", "zero|null byte"),
    ],
)
def test_paths_that_no_folder_can_have(path, says, photos, cache, monkeypatch):
    monkeypatch.chdir(photos.parent)
    Path("loop").symlink_to("loop")
    with pytest.raises(DislabError, match=says) as error:
        dislab.from_folder(path)
    one_line(error)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset(path)
    one_line(error)
    with pytest.raises(DislabError, match="does not exist"):
        data_folder(path)


def test_odd_files_in_a_folder_of_images(photos, cache, monkeypatch):
    def refused() -> str:
        with pytest.raises(DislabError) as error:
            dislab.from_folder(photos, size=16)
        return one_line(error)

    odd = photos / "anna" / "odd.png"
    odd.touch()
    assert f"'{odd}' is not an image" in refused()
    odd.unlink()
    os.mkfifo(odd)
    assert refused() == f"neither files nor folders, delete them: '{odd}'"
    odd.unlink()
    odd.symlink_to(odd)
    assert f"mend or delete them: '{odd}'" in refused()
    odd.unlink()
    Image.new("1", (15_000, 15_000)).save(odd)
    assert f"the image '{odd}' cannot be read" in refused()
    assert "decompression bomb" in refused()
    odd.unlink()
    with monkeypatch.context() as patch:
        patch.chdir(photos / "anna")
        for _ in range(1200):  # deeper than Python's functions may call one another
            Path("d").mkdir()
            os.chdir("d")
    try:
        assert len(dislab.from_folder(photos, size=16)) == 7
    finally:
        subprocess.run(["rm", "-rf", photos / "anna" / "d"], check=True)  # shutil cannot
    shutil.copy(photos / "ben" / "0.png", os.fsencode(photos / "anna") + b"/\xff\n.png")
    assert len(dislab.from_folder(photos, size=16)) == 8
    Path(os.fsdecode(os.fsencode(photos / "anna") + b"/\xfe")).mkdir()
    assert len(dislab.from_folder(photos, size=16)) == 8
    for size in (5000, 10**30):
        with pytest.raises(DislabError, match="a whole number of pixels, 1 to 4096"):
            dislab.from_folder(photos, size=size)
