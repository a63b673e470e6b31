"""The code table of a run as a file."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from dislab.data.space import Circle
from dislab.files import about_of
from dislab.scoring.table import CodeTable

OPTIONAL_ARRAYS = ("logvar", "labels", "tested", "reconstruction", "swaps")


def table_file(table: CodeTable, rows: np.ndarray) -> bytes:
    """Return a safetensors file of a code table and the dataset rows int64 [N] that it was made from."""
    from safetensors.numpy import save

    arrays = {"mean": table.mean, "factors": table.factors, "rows": rows}
    for name in OPTIONAL_ARRAYS:
        if getattr(table, name) is not None:
            arrays[name] = getattr(table, name)
    about = {
        "names": list(table.names),
        "sizes": list(table.sizes),
        "blocks": {name: [block.start, block.stop] for name, block in table.blocks.items()},
        "full_grid": table.full_grid,
        "circle": table.circle and asdict(table.circle),
    }
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(whole, {"about": json.dumps(about)})


def table_in(content: bytes) -> CodeTable:
    """Return the code table of a file that `table_file` made."""
    from safetensors.numpy import load

    about, arrays = json.loads(about_of(content)["about"]), load(content)
    return CodeTable(
        arrays["mean"],
        arrays["factors"],
        **{name: arrays.get(name) for name in OPTIONAL_ARRAYS},
        names=tuple(about["names"]),
        sizes=tuple(about["sizes"]),
        blocks={name: slice(*ends) for name, ends in about["blocks"].items()},
        full_grid=about["full_grid"],
        circle=about["circle"] and Circle(**about["circle"]),
    )
