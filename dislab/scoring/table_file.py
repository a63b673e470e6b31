"""The code table of a run as a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dislab.data.space import Circle
from dislab.errors import RunFailed
from dislab.files import write_atomically
from dislab.scoring.table import CodeTable

OPTIONAL_ARRAYS = ("logvar", "labels", "tested", "reconstruction")


def write_table(path: Path, table: CodeTable, rows: np.ndarray) -> None:
    """Write a code table and the dataset rows int64 [N] that it was made from, as safetensors."""
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
    write_atomically(path, save(whole, {"about": json.dumps(about)}))


def read_table(path: Path) -> CodeTable:
    """Read what `write_table` wrote; RunFailed is raised if the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (OSError, SafetensorError) as error:
        raise RunFailed(f"the codes '{path}' are missing or damaged: {error}") from None
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
