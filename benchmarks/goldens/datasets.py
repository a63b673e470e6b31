"""The golden of SmallNORB: its files as dislab reads them."""

from __future__ import annotations

import numpy as np

from dislab.benchmarks.goldens import Given, golden
from dislab.datasets import smallnorb as files


@golden("smallnorb")
def smallnorb(given: Given) -> dict[str, object]:
    """The factors and the images of the files in the sub-folder smallnorb_tiny, in their own order."""
    # The training part comes first, as in the joined data set.
    parts = sorted((given.folder / "smallnorb_tiny").glob("*-dat.mat*"), reverse=True)
    if not parts:
        raise FileNotFoundError("no file *-dat.mat in the sub-folder smallnorb_tiny")
    rows, pairs = [], []
    for path in parts:
        categories, infos = (
            path.with_name(path.name.replace("-dat", f"-{kind}")) for kind in ("cat", "info")
        )
        rows.append(files.rows_of(categories, infos))
        pairs.append(files.read_all(path, "uint8", (2, files.OFFICIAL_SIDE, files.OFFICIAL_SIDE)))
    left = np.concatenate(pairs)[:, 0]
    factors = files.SPACE.factors(np.concatenate(rows))
    return {
        **dict(zip(files.SPACE.names, factors.T, strict=True)),
        "left_96": left,
        "left_64": files.shrink(left),
    }
