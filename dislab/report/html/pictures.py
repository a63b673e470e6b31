"""The pictures of runs, small enough to stand inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from dislab.errors import RunFailed
from dislab.report.html.rows import Row

WIDEST = 1000  # pixels of a picture
QUALITY = 80  # of WebP
MOST_BYTES = 3_000_000  # of all pictures of a page
KINDS = {  # how files begin -> title, what is seen
    "swap": ("Swap grid", "Content of the column's image, style of the row's."),
    "traversals": ("Traversals", "One code dimension at a time over its quantiles, sorted by KL."),
    "reconstructions": ("Reconstructions", "Images above what the model makes of their codes."),
    "interpolation": ("Interpolation", "Content from left to right, style from top to bottom."),
    "generation": ("Generation", "Content of the images on the left, styles drawn from the prior."),
    "evidence": ("Accumulated evidence", "Reconstructed by an image's own content and by that of its group."),
}


def pictures_of(rows: Sequence[tuple[str, Row]]) -> tuple[list[dict], list[str]]:
    """Return the pictures of the first seed of each row, and a line for each that is damaged.

    Parameters
    ----------
    rows : each with the title of its pictures.

    Returns
    -------
    Groups with title, seed, protocol, number of pictures left out for lack of room, and the pictures: title,
    caption, width, height and data URI. A row whose folder is gone has none.
    """
    groups, damaged, room = [], [], MOST_BYTES
    for title, row in rows:
        run, shown, left_out = row.first, [], 0
        for name in sorted(run.record["files"], key=_order):
            if not name.endswith(".png") or not (run.path / name).exists():
                continue
            try:
                width, height, content = _small(run.read(name))
            except RunFailed as error:
                damaged.append(str(error))
                continue
            if len(content) > room:
                left_out += 1
                continue
            room -= len(content)
            kind, caption = KINDS.get(_kind(name), (name.removesuffix(".png"), ""))
            uri = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
            shown.append({"title": kind, "caption": caption, "width": width, "height": height, "uri": uri})
        if shown:
            groups.append(
                {
                    "title": title,
                    "seed": run.record["config"]["seed"],
                    "protocol": row.config.protocol_name,
                    "pictures": shown,
                    "left_out": left_out,
                }
            )
    return groups, damaged


def _kind(name: str) -> str:
    return name.removesuffix(".png").partition("_")[0]


def _order(name: str) -> tuple[int, str]:
    kinds = list(KINDS)
    return (kinds.index(_kind(name)) if _kind(name) in kinds else len(kinds), name)


def _small(content: bytes) -> tuple[int, int, bytes]:
    """Return width, height and content of a picture as WebP of at most WIDEST pixels.

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
