"""The pictures of runs, small enough to stand inside a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable

from dislab.errors import RunFailed
from dislab.report.html.rows import Row
from dislab.runs.finished import Run

WIDEST = 1000  # pixels of a picture
QUALITY = 80  # of WebP
MOST_BYTES = 4_000_000  # of the pictures in a page; what else is there has less than one million
KINDS = {  # how files begin -> title, what is seen
    "reconstructions": ("Reconstructions", "Images above what the model makes of their codes."),
    "traversals.gif": (
        "Traversals, moving",
        "A tile per code dimension, which moves from its 2 % to its 98 % quantile.",
    ),
    "swap": ("Swap grid", "Content of the column's image, style of the row's."),
    "traversals": ("Traversals", "One code dimension at a time over its quantiles, sorted by KL."),
    "interpolation": ("Interpolation", "Content from left to right, style from top to bottom."),
    "generation": ("Generation", "Content of the images on the left, styles drawn from the prior."),
    "evidence": ("Accumulated evidence", "Reconstructed by an image's own content and by that of its group."),
}


def pictures_of(
    shown: Iterable[tuple[str, Row, Run]], most: float = math.inf
) -> tuple[list[dict], list[str]]:
    """Return the pictures of runs, and a line for each that is damaged.

    Parameters
    ----------
    shown : runs, each with the title of its pictures and its row.
    most : bytes of all pictures. Without room are left out: what moves first, then the last ones of each run.

    Returns
    -------
    Groups with title, seed, protocol, number of pictures left out, and the pictures: title, caption, width,
    height, data URI, and of one that moves the data URI of its first frame. A run whose folder is gone has
    none.
    """
    groups, damaged = [], []
    for title, row, run in shown:
        pictures = []
        for name in sorted(run.record["files"], key=_order):
            if name.endswith((".png", ".gif")) and (run.path / name).exists():
                try:
                    pictures.append(_picture(name, run.read(name)))
                except RunFailed as error:
                    damaged.append(str(error))
        if pictures:
            about = {"title": title, "seed": run.record["config"]["seed"]}
            about |= {"protocol": row.config.protocol_name, "left_out": 0}
            groups.append(about | {"pictures": pictures})
    return _with_room(groups, most), damaged


def _with_room(groups: list[dict], most: float) -> list[dict]:
    """Return the groups without the pictures that have no room: what moves goes first, then the last ones."""
    order = sorted(
        (bool(picture["still"]), place, number)
        for number, group in enumerate(groups)
        for place, picture in enumerate(group["pictures"])
    )
    kept: list[list[int]] = [[] for _ in groups]
    for _, place, number in order:
        picture = groups[number]["pictures"][place]
        size = len(picture["uri"]) + len(picture["still"])
        if size <= most:
            most -= size
            kept[number].append(place)
    with_room = []
    for group, places in zip(groups, kept, strict=True):
        mine = [group["pictures"][place] for place in sorted(places)]
        with_room.append(group | {"pictures": mine, "left_out": len(group["pictures"]) - len(mine)})
    return with_room


def _picture(name: str, content: bytes) -> dict:
    """Return what a page needs of one picture; raise RunFailed if it is none."""
    width, height, small = _small(content)
    title, caption = KINDS.get(_kind(name), (name.rpartition(".")[0], ""))
    about = {"title": title, "caption": caption, "width": width, "height": height}
    still = _uri("webp", small)
    if name.endswith(".gif"):
        return about | {"uri": _uri("gif", content), "still": still}
    return about | {"uri": still, "still": ""}


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _kind(name: str) -> str:
    return name if name.endswith(".gif") else name.removesuffix(".png").partition("_")[0]


def _order(name: str) -> tuple[int, str]:
    kinds = list(KINDS)
    return (kinds.index(_kind(name)) if _kind(name) in kinds else len(kinds), name)


def _small(content: bytes) -> tuple[int, int, bytes]:
    """Return width, height and content of a picture, or of its first frame, as WebP of at most WIDEST pixels.

    Raises
    ------
    RunFailed : it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise RunFailed(f"a picture of a run cannot be read: {error}") from None
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=QUALITY, method=2)
    return picture.width, picture.height, buffer.getvalue()
