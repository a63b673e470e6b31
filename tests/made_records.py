"""Make records of runs that nobody trained, from real ones with other scores, and read those of a folder."""

import io
import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
from PIL import Image

import dislab
from dislab.files import digest
from dislab.runs.config import RunConfig
from dislab.runs.finished import as_json

REFERENCE = Path(__file__).parent / "records.jsonl"
TEMPLATES = {
    record["config"]["model"]: record for record in map(json.loads, REFERENCE.read_text().splitlines())
}


def made(
    model: str, seed: int = 0, scores: dict | None = None, directions: dict | None = None, **changes
) -> dict:
    """Return a record of a model on the drawn Shapes3D, with these scores in place of all.

    Parameters
    ----------
    directions : of metrics that dislab does not know.
    changes : to the configuration, such as dataset, source, protocol, hyperparameters.
    """
    record = deepcopy(TEMPLATES.get(model, TEMPLATES["betatcvae"]))
    config = record["config"]
    if model not in TEMPLATES:
        config["hyperparameters"] = {"latents": 10}
    config |= {"model": model, "seed": seed}
    config["hyperparameters"] |= changes.pop("hyperparameters", {})
    config |= changes
    if scores is not None:
        record["scores"] = scores
        names = {name: record["metrics"].get(name) for name in scores}
        names |= {name: {"direction": better, "digest": ""} for name, better in (directions or {}).items()}
        record["metrics"] = {name: about for name, about in names.items() if about}
        record["details"] = {}
    of_config = RunConfig.from_json(config)
    return record | {"digest": of_config.digest, "folder": of_config.folder.as_posix(), "files": {}}


def lines(folder="results") -> list[dict]:
    """The records of a results folder, as its file has them."""
    return [json.loads(line) for line in Path(folder, "records.jsonl").read_text().splitlines()]


def with_files(folder: Path, record: dict, files: Mapping[str, bytes]) -> dict:
    """Write the files of a record's run to a results folder; return the record with their digests."""
    (folder / record["folder"]).mkdir(parents=True)
    for name, content in files.items():
        (folder / record["folder"] / name).write_bytes(content)
    return record | {"files": {name: digest(content) for name, content in files.items()}}


def picture(mode: str, size: tuple[int, int], frames: int = 0) -> bytes:
    """Return noise as a PNG, or as a GIF of so many frames, which cannot be compressed."""
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    shown = [
        Image.frombytes(mode, size, rng.bytes(size[0] * size[1] * len(mode))) for _ in range(frames or 1)
    ]
    moves = {"format": "GIF", "save_all": True, "append_images": shown[1:], "loop": 0}
    shown[0].save(buffer, **(moves if frames else {"format": "PNG"}))
    return buffer.getvalue()


def written(folder: Path, *records: dict) -> list:
    """Write records to a results folder, and return its runs."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        as_json({name: value for name, value in record.items() if name != "check"}) for record in records
    ]
    (folder / "records.jsonl").write_bytes(b"".join(lines))
    return dislab.runs_in(folder)
