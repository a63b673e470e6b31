"""Records of codes that another program made: they stand in every table beside the runs of dislab."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from dislab.data.dataset import Dataset
from dislab.errors import DislabWarning
from dislab.files import digest, write_atomically
from dislab.runs.config import EXTERNAL, FORMAT, RunConfig
from dislab.runs.finished import Run, recorded
from dislab.runs.perform import environment_of
from dislab.runs.record import Results
from dislab.scoring.protocols import recorded_name
from dislab.scoring.score import Scores
from dislab.scoring.table import CodeTable
from dislab.scoring.table_file import table_file
from dislab.training.protocol import Protocol

CODES = "codes.safetensors"


def write_external(
    name: str,
    dataset: Dataset,
    groupings: Sequence[Sequence[str]],
    table: CodeTable,
    rows: np.ndarray,
    scores: Scores,
    seed: int,
    out: str | Path,
    images: str = "",
) -> Run:
    """Write the record of codes that another program made, and their code table.

    Scores of the same codes that were recorded before are kept. Other codes of the same name, dataset and
    seed are replaced, and a DislabWarning says so.

    Parameters
    ----------
    name : what tables call them.
    rows : int64 [N], the dataset rows that the table was made from.
    images : the source of the images that were encoded, "" if it is not known here.
    """
    # No training is known: its protocol has no steps.
    protocol = Protocol(EXTERNAL, steps=0, learning_rate=1.0, batch_size=2, rows=None)
    group_by = tuple(map(tuple, groupings))
    config = RunConfig(name, {}, dataset.name, EXTERNAL, protocol, group_by).with_seed(seed)
    results = Results(out)
    results.create()
    path = results.folder / config.folder
    content = table_file(table, rows)
    record = {
        "format": FORMAT,
        "digest": config.digest,
        "folder": config.folder.as_posix(),
        "config": config.to_json(),
        "image_shape": list(dataset.image_shape),
        "report": {},
        "blocks": {name: [block.start, block.stop] for name, block in table.blocks.items()},
        "scored_rows": len(table),
        "train_rows": None,  # only their author knows what these codes were learned from
        "images": images,
        "files": {CODES: digest(content)},
        **as_recorded(scores),
        "losses": {},
        "evidence": [],
        "timings": {
            "train_seconds": None,
            "trained_at_once": 1,
            "train_images_per_second": None,
            "encode_seconds": None,
            "score_seconds": None,
        },
        "environment": environment_of(torch.device("cpu")) | {"precision": None},
    }
    with results.claimed(config.digest):
        before = results.find(config.digest)
        if before is not None and before.record["files"] == record["files"]:
            for part in recorded(scores):
                record[part] = before.record[part] | record[part]
            record["left_out"] = {
                key: why for key, why in record["left_out"].items() if key not in record["scores"]
            }
        elif before is not None:
            warnings.warn(
                f"'{name}' on {dataset.name} had other codes with seed {seed}: they are replaced; another "
                "name or seed keeps both",
                DislabWarning,
                stacklevel=3,  # of `dislab.evaluate`'s caller,
            )
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / CODES, content)
        return results.write(record)


def as_recorded(scores: Scores) -> dict[str, Mapping]:
    """Return scores as a record has them: one of another metric protocol than the default says so by name."""

    def name_of(score: str) -> str:
        plain = score.partition("@")[0]
        return recorded_name(plain, scores.protocols[score]) if score in scores.protocols else score

    return {
        part: {name_of(name): it for name, it in values.items()} for part, values in recorded(scores).items()
    }
