"""Records of runs that nobody trained, for tests of reports: reference records with other scores."""

import json
from copy import deepcopy
from pathlib import Path

import dislab
from dislab.runs.config import RunConfig
from dislab.runs.finished import as_json

REFERENCE = Path(__file__).parent.parent / "results" / "reference" / "records.jsonl"
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


def written(folder: Path, *records: dict) -> list:
    """Write records to a results folder, and return its runs."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        as_json({name: value for name, value in record.items() if name != "check"}) for record in records
    ]
    (folder / "records.jsonl").write_bytes(b"".join(lines))
    return dislab.runs_in(folder)
