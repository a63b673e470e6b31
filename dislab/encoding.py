"""From a dataset and an encoder to a code table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from dislab.batches import unit_images
from dislab.codes import CodeTable
from dislab.datasets.base import Dataset
from dislab.errors import DislabError
from dislab.progress import Bar

BATCH = 512
MOST_RECONSTRUCTED = 2048  # rows, for the reconstruction term of the ELBO


def choose_rows(dataset: Dataset, max_rows: int | None, seed: int = 0) -> np.ndarray:
    """The rows to score, int64: all of the dataset's evaluation rows, or so many drawn from them."""
    rows = dataset.evaluation_rows()
    if max_rows is None or max_rows >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, max_rows, replace=False))


def encode(
    encoder: Callable,
    dataset: Dataset,
    rows: np.ndarray,
    *,
    blocks: Mapping[str, slice] | None = None,
    group_by: Sequence[Sequence[str]] | None = None,
    by_row: bool = False,
    quiet: bool = True,
) -> CodeTable:
    """Encode rows of a dataset once.

    Parameters
    ----------
    encoder : callable from images float32 [B, C, H, W] in [0, 1] to codes [B, D], or to (mean, logvar) of
        q(z|x).
    rows : int64 [N], dataset rows; the table's rows are in their order.
    blocks : named slices of the code dimensions.
    group_by : the groupings, each a list of factors whose combined value is the class of a row's group.
    by_row : give the encoder dataset rows int64 [B] in place of images.

    Raises
    ------
    DislabError : the encoder raises, or does not return codes [B, D].
    """
    labels = None if group_by is None else dataset.space.labels_of(group_by, rows)
    mean = logvar = None
    began = time.monotonic()
    with torch.inference_mode(), Bar("encoding", len(rows), quiet=quiet) as bar:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            batch_mean, batch_logvar = _outputs(
                encoder, batch if by_row else unit_images(dataset.images(batch))
            )
            if mean is None:
                mean = np.empty((len(rows), batch_mean.shape[1]), np.float32)
                logvar = None if batch_logvar is None else np.empty_like(mean)
            if batch_mean.shape[1] != mean.shape[1] or (batch_logvar is None) != (logvar is None):
                raise DislabError(f"the encoder's output changed its form at row {start}")
            done = start + len(batch)
            mean[start:done] = batch_mean
            if logvar is not None:
                logvar[start:done] = batch_logvar
            bar.update(done, f"{done / (time.monotonic() - began):,.0f} images/s")
    full_grid = dataset.space.is_grid and len(rows) == len(dataset.space)
    return CodeTable(
        mean,
        dataset.space.factors(rows),
        logvar=logvar,
        names=dataset.space.names,
        sizes=dataset.space.sizes,
        blocks=blocks,
        labels=labels,
        full_grid=full_grid,
        circle=dataset.space.circle,
    )


def reconstruction_errors(model, dataset: Dataset, rows: np.ndarray, seed: int, device) -> np.ndarray:
    """-ln p(x|z), one draw z of q(z|x) each, float32 [R] in nats, of up to MOST_RECONSTRUCTED of the rows."""
    chosen = np.random.default_rng(seed).permutation(rows)[:MOST_RECONSTRUCTED]
    generator = torch.Generator(device).manual_seed(seed)
    errors = []
    with torch.inference_mode():
        for batch in np.array_split(chosen, -(-len(chosen) // BATCH)):
            noise = torch.randn(len(batch), model.latents, generator=generator, device=device)
            images = unit_images(dataset.images(batch).to(device))
            errors.append(model.reconstruction(images, noise).cpu().numpy())
    return np.concatenate(errors)


def _outputs(encoder: Callable, images) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean [B, D] and log-variance [B, D] or None, as the encoder gives them for a batch."""
    try:
        returned = encoder(images)
        pair = (*returned, None)[:2] if isinstance(returned, tuple) else (returned, None)
        mean, logvar = (
            None if array is None else torch.as_tensor(array).detach().float().cpu().numpy() for array in pair
        )
    except Exception as error:
        raise DislabError(f"the encoder failed: {type(error).__name__}: {error}") from error
    wrong = mean is None or mean.ndim != 2 or len(mean) != len(images)
    if wrong or (logvar is not None and logvar.shape != mean.shape):
        found = " and ".join("None" if array is None else str(list(array.shape)) for array in (mean, logvar))
        raise DislabError(
            f"the encoder returned {found} for {len(images)} images: "
            f"it must return codes [{len(images)}, D], or a pair (mean, logvar) of such arrays"
        )
    return mean, logvar
