"""PASCAL3D+, cars and chairs: photographs from ImageNet and PASCAL VOC with the viewpoint of each object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dislab.data.cache import cached_array, file_stamp, recall, remember
from dislab.data.dataset import Dataset, look_up
from dislab.data.matlab import MOST_BYTES, read_structure
from dislab.data.official import OfficialDataset, OfficialFile, official_paths, unreadable
from dislab.data.space import Circle, FactorSpace
from dislab.errors import DislabError
from dislab.progress import Bar, say
from dislab.registry import register_dataset

SIDE = 64
FOLDER, PAGE = "PASCAL3D+_release1.1", "https://cvgl.stanford.edu/projects/pascal3d.html"
REFERENCE = "Xiang, Mottaghi & Savarese 2014, Beyond PASCAL: 3D Object Detection in the Wild, WACV"
SUBSETS = ("imagenet", "pascal")
# The images that no model is trained on, a name in each line.
VALIDATION = {
    "imagenet": "Image_sets/{}_imagenet_val.txt",
    "pascal": "PASCAL/VOCdevkit/VOC2012/ImageSets/Main/val.txt",
}
FACTORS = ("azimuth", "elevation", "theta", "cad_index")
LOWEST = -90  # degrees, elevation 0
VERSION = 1  # of what is taken from an annotation: changed with the code, so that what is kept is read again


def _official(category: str) -> OfficialDataset:
    patterns = [f"Annotations/{category}_{subset}/*.mat" for subset in SUBSETS]
    return OfficialDataset(
        f"pascal3d_{category}",
        (
            OfficialFile(
                f"{FOLDER}.zip",
                PAGE,
                "",
                7_500_000_000,
                unpacked=(*patterns, *(f"{FOLDER}/{pattern}" for pattern in patterns)),
                by_hand=True,
            ),
        ),
        page=PAGE,
        licence="not stated (photographs from ImageNet and Flickr)",
    )


CAR, CHAIR = _official("car"), _official("chair")


@register_dataset("pascal3d_car", title="PASCAL3D+ cars", reference=REFERENCE, official=CAR)
def pascal3d_car(source: str, data_dir, device) -> Dataset:
    """Photographs of cars: azimuth, elevation and in-plane rotation of the view, and the car's nearest model;
    64 x 64 RGB."""
    return _open("car", CAR, source, data_dir, device)


@register_dataset("pascal3d_chair", title="PASCAL3D+ chairs", reference=REFERENCE, official=CHAIR)
def pascal3d_chair(source: str, data_dir, device) -> Dataset:
    """Photographs of chairs, with the factors of pascal3d_car."""
    return _open("chair", CHAIR, source, data_dir, device)


class Item(NamedTuple):
    """An object in a photograph."""

    subset: str  # of SUBSETS
    image: str  # the file's name
    box: tuple[float, ...]  # left, top, right, bottom in pixels, from 1 on; the last one belongs to it
    factors: tuple[int, ...]  # values of FACTORS
    is_whole: bool  # neither occluded nor cut off by the edge of the photograph


def _open(category: str, official: OfficialDataset, source: str, data_dir, device) -> Dataset:
    """Return the dataset of a category.

    As in Tulsiani & Malik 2015 (Viewpoints and Keypoints, CVPR), the objects of PASCAL VOC's validation
    images are the test, those that are occluded or cut off are left out of it, and "difficult" ones of all.
    The objects of ImageNet's validation images are kept from training too, for readouts to be fitted to.
    """
    (path,) = official_paths(official, source, data_dir)
    if path.is_file():
        raise DislabError(f"'{path}' is packed, and is not read: unpack it in its folder")
    root = path.parents[1]
    names = {subset: _validation(root / VALIDATION[subset].format(category)) for subset in SUBSETS}

    def is_held_out(item: Item) -> bool:
        return Path(item.image).stem in names[item.subset]

    items = [item for item in read_items(root, category) if item.is_whole or not is_held_out(item)]
    if not items:
        raise DislabError(f"'{root}' has no {category} with a viewpoint in Annotations/{category}_*")
    held_out = np.flatnonzero([is_held_out(item) for item in items])
    test = np.array([row for row in held_out if items[row].subset == "pascal"])
    if not len(held_out) or len(held_out) == len(items):
        say(f"{official.name}: no object is held out, because '{root}' has no lists of validation images")
        held_out = None
    factors = np.array([item.factors for item in items])
    sizes = 360, 181, 360, int(factors[:, 3].max()) + 1
    space = FactorSpace(FACTORS, sizes, factors, Circle("azimuth", 360), categorical=["cad_index"])
    draw = look_up(read_images(root, category, items), device, channels_last=True)
    return Dataset(
        official.name,
        "official",
        space,
        (3, SIDE, SIDE),
        draw,
        ["cad_index"],
        held_out,
        path,
        test if held_out is not None and 0 < len(test) < len(held_out) else None,
    )


def _validation(path: Path) -> set[str]:
    """Return the names in a list of images, the first word of each line; none if there is no list."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        raise unreadable(path, error, "") from None
    return {line.split()[0] for line in lines if line.strip()}


# The annotations -----------------------------------------------------------------------------------


def read_items(root: Path, category: str) -> list[Item]:
    """Return the objects of a category in all annotations, sorted by subset and file.

    What was read is kept in the cache folder until one of the files changes.

    Raises
    ------
    DislabError : a file is damaged, or there is no image for it.
    """
    paths = {
        subset: sorted((root / "Annotations" / f"{category}_{subset}").glob("*.mat")) for subset in SUBSETS
    }
    together = [path for subset in SUBSETS for path in paths[subset]]
    kept = [root, *together]  # of the annotations alone it is known whether they are the published ones
    known = recall(kept)
    if known is not None and known["version"] == VERSION:
        return [
            Item(subset, image, tuple(box), tuple(factors), is_whole)
            for subset, image, box, factors, is_whole in known["items"]
        ]
    items: list[Item] = []
    images = {
        subset: {file.stem: file.name for file in _images(root, category, subset).glob("*.*")}
        for subset in SUBSETS
    }
    with Bar(f"reading annotations of {category}", len(together), quiet=len(together) < 100) as bar:
        pairs = ((subset, path) for subset in SUBSETS for path in paths[subset])
        for done, (subset, path) in enumerate(pairs, start=1):
            if path.stem not in images[subset]:
                raise DislabError(
                    f"'{path}' describes an image that '{_images(root, category, subset)}' does not have"
                )
            items += objects_in(path, category, subset, images[subset][path.stem])
            bar.update(done)
    remember(kept, {"version": VERSION, "items": items})
    return items


def _images(root: Path, category: str, subset: str) -> Path:
    return root / "Images" / f"{category}_{subset}"


def objects_in(path: Path, category: str, subset: str, image: str) -> Iterator[Item]:
    """Yield the objects of a category in an annotation that have a viewpoint and are not "difficult".

    Of an object that was not aligned with a model (distance 0) the coarse angles are taken, as by the
    dataset's own programs. Angles are rounded to whole degrees.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES)
    except OSError as error:
        raise unreadable(path, error, "") from None
    (record,) = read_structure(data, "record", str(path))
    objects = record.get("objects")
    for one in objects if isinstance(objects, list) else []:
        view, box = one.get("viewpoint"), np.ravel(one.get("bbox"))
        if one.get("class") != category or not isinstance(view, list) or _number(one, "difficult"):
            continue
        kind = "" if _number(view[0], "distance") else "_coarse"
        angles = [_number(view[0], name + kind) for name in ("azimuth", "elevation")]
        if None in angles:
            continue
        azimuth, elevation, theta = (round(angle) for angle in (*angles, _number(view[0], "theta") or 0))
        model = _number(one, "cad_index") or 1
        if box.shape != (4,) or box.dtype.kind not in "uif" or abs(elevation) > 90 or model < 1:
            raise DislabError(f"'{path}' describes a {category} with a box or an angle that cannot be right")
        factors = azimuth % 360, elevation - LOWEST, theta % 360, round(model) - 1
        is_whole = not (_number(one, "truncated") or _number(one, "occluded"))
        yield Item(subset, image, tuple(map(float, box)), factors, is_whole)


def _number(fields: dict, name: str) -> float | None:
    """Return a number of a structure, None if it is missing, or is not a single finite one."""
    value = fields.get(name)
    is_number = isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "uif"
    return float(value.item()) if is_number and np.isfinite(value).all() else None


# The images ----------------------------------------------------------------------------------------


def read_images(root: Path, category: str, items: list[Item]) -> np.ndarray:
    """Return the objects uint8 [N, 64, 64, 3], cut out of the photographs; see `cut_out`.

    They are decoded once into the cache, and again when a photograph or a box changes.
    """
    import PIL

    paths = [_images(root, category, item.subset) / item.image for item in items]
    what = [(item.image, item.box, file_stamp(path)) for item, path in zip(items, paths, strict=True)]
    digest = hashlib.sha256(repr((PIL.__version__, SIDE, what)).encode()).hexdigest()[:16]

    def make(array: np.ndarray) -> None:
        with Bar(f"reading images of {category}", len(items), quiet=len(items) < 100) as bar:
            for row, (item, path) in enumerate(zip(items, paths, strict=True)):
                array[row] = cut_out(path, item.box)
                bar.update(row + 1)

    return cached_array(f"pascal3d_{category}-official-{digest}", (len(items), SIDE, SIDE, 3), make)


def cut_out(path: Path, box: tuple[float, ...]) -> np.ndarray:
    """Return the pixels of a box, resized to a square whatever its shape, uint8 [64, 64, 3].

    The box is the object's own, without a margin, as in Murphy et al. 2022, and the object is not turned
    upright. What lies outside of the photograph is cut off. Pillow's bilinear filter weighs all pixels that
    become one.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            left, top = max(box[0] - 1, 0), max(box[1] - 1, 0)
            inside = left, top, min(box[2], image.width), min(box[3], image.height)
            resized = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=inside)
    except Exception as error:  # every format's decoder has its own errors for damaged bytes
        raise unreadable(path, error, f"cannot be read, or has no pixels in the box {[*box]}") from None
    return np.asarray(resized)
