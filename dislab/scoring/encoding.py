"""From a dataset and an encoder to a code table."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from dislab.data.dataset import Dataset, unit_images
from dislab.errors import FAILURES, DislabError, defined_in, in_words
from dislab.progress import Bar
from dislab.scoring.outputs import check_shapes, mean_and_logvar
from dislab.scoring.table import CodesOnDemand, CodeTable, EncoderFailed, NotFinite, as_float32, check_finite

# Images per batch. On a CPU the activations of 128 images stay in the cache, which was measured at 1.4 times
# the speed of 512. A GPU needs larger batches.
BATCH, BATCH_ON_GPU = 128, 1024
MOST_RECONSTRUCTED = 2048  # rows, for the reconstruction term of the ELBO


def choose_rows(dataset: Dataset, max_rows: int | None, seed: int = 0) -> np.ndarray:
    """Return the rows to score, int64: the evaluation rows, or `max_rows` drawn from them."""
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
    on_demand: bool = False,
    quiet: bool = True,
) -> CodeTable:
    """Encode rows of a dataset once.

    Parameters
    ----------
    encoder : callable from images float32 [B, C, H, W] in [0, 1] to codes [B, D], to (mean, logvar) of
        q(z|x), or to another output that `mean_and_logvar` takes; or an object whose `transform` takes images
        float32 [B, C*H*W] to codes. Modules are called in evaluation mode.
    rows : int64 [N], dataset rows; the table's rows are in their order.
    blocks : named slices of the code dimensions.
    group_by : the groupings, each a list of factors whose combined value is the class of a row's group.
    by_row : pass dataset rows int64 [B] to the encoder in place of images.
    on_demand : encode the first batch now, and every other row when a metric first asks for it.
    """
    encoding = _Encoding(encoder, dataset, rows, by_row)
    mean, logvar = encoding.mean, encoding.logvar
    if on_demand and not encoding.known.all():
        mean = CodesOnDemand(mean, encoding.fill)
        logvar = None if logvar is None else CodesOnDemand(logvar, encoding.fill)
    else:
        with Bar("encoding", len(rows), quiet=quiet) as bar:
            encoding.fill(np.arange(len(rows)), bar)
    space = dataset.space
    return CodeTable(
        mean,
        space.factors(rows),
        logvar=logvar,
        names=space.names,
        sizes=space.sizes,
        blocks=blocks,
        labels=None if group_by is None else space.labels_of(group_by, rows),
        tested=dataset.is_test(rows),
        full_grid=space.is_grid and len(rows) == len(space),
        circle=space.circle,
    )


class _Encoding:
    """The codes [N, D] of a dataset's rows, of which some may not be known yet."""

    def __init__(self, encoder: Callable, dataset: Dataset, rows: np.ndarray, by_row: bool):
        self.encoder, self.dataset, self.rows, self.by_row = encoder, dataset, rows, by_row
        self.encode = _function(encoder)
        self.source = getattr(encoder, "__wrapped__", None)  # the model's class, whose file errors name
        on_gpu = dataset.images(rows[:1]).is_cuda
        self.size = min(len(rows), BATCH_ON_GPU if on_gpu else BATCH)
        self.threads = torch.get_num_threads()
        self.known = np.zeros(len(rows), bool)
        self.mean = self.logvar = None  # [N, D], float32 or a type of the encoder's that holds more
        self._encode(np.arange(self.size))

    def fill(self, wanted: np.ndarray, bar: Bar | None = None) -> None:
        """Encode the rows at these positions int64 [R] that are not known."""
        missing = np.unique(wanted[~self.known[wanted]])
        if not len(missing):
            return
        began, before = time.monotonic(), self.known.sum()
        with threadpool_limits(self.threads):  # metrics are called with a single thread
            for start in range(0, len(missing), self.size):
                batch = missing[start : start + self.size]
                if len(batch) < self.size:
                    # All batches have one size, so that a row has the same code to the last bit whatever else
                    # is in its batch. The last batch is filled up, first with rows that are not known.
                    others = np.argsort(self.known, kind="stable")[: self.size + len(batch)]
                    batch = np.append(batch, others[~np.isin(others, batch)])[: self.size]
                self._encode(batch)
                if bar is not None:
                    done = int(self.known.sum())
                    bar.update(done, f"{(done - before) / (time.monotonic() - began):,.0f} images/s")
        for what, array in (("codes", self.mean), ("logvar", self.logvar)):
            if array is not None and array.dtype != np.float32:
                as_float32(what, array[self.known], EncoderFailed, quiet=True)

    def _encode(self, batch: np.ndarray) -> None:
        rows = self.rows[batch]
        # In inference mode a module that keeps a tensor of its first call could not be trained on.
        with torch.no_grad(), _evaluation_mode(self.encoder):
            inputs = rows if self.by_row else unit_images(self.dataset.images(rows))
            try:
                returned = self.encode(inputs)
            except FAILURES as error:
                raise EncoderFailed(f"the encoder failed: {in_words(error, self.source)}") from error
            try:
                new = mean_and_logvar(returned, len(rows))
            except EncoderFailed as error:
                raise EncoderFailed(f"{error}{defined_in(self.source)}") from None
        if self.mean is None:
            self.mean, self.logvar = (
                None if part is None else np.empty((len(self.rows), part.shape[1]), part.dtype)
                for part in new
            )
        for what, array, values in zip(("codes", "logvar"), (self.mean, self.logvar), new, strict=True):
            if _form(values) != _form(array):
                raise EncoderFailed(
                    f"the encoder's output changed its form at row {batch[0]}{defined_in(self.source)}"
                )
            if values is not None:
                check_finite(what, values, batch, NotFinite)
                array[batch] = values
        self.known[batch] = True


def encode_on(device: torch.device, model: torch.nn.Module, images: torch.Tensor):
    """Return mean and log-variance [B, D] of a model on a device, for images that may lie elsewhere."""
    return model.encode(images.to(device))


def encode_model(model, dataset: Dataset, rows: np.ndarray, device: torch.device, **options) -> CodeTable:
    """Encode rows of a dataset once by a model on a device: by their images, or by row. See `encode`."""
    encoder, by_row = _encoder_of(model, dataset, device)
    return encode(encoder, dataset, rows, blocks=model.blocks, by_row=by_row, **options)


def first_codes(model, dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean [B, D] of q(z|x) of the first rows, and the log-variance [B, D] or None.

    The model lies where the images are. B is 3: some encoders lose the dimension of a batch of one, and a
    batch of two looks like a pair of mean and log-variance.
    """
    encoder, by_row = _encoder_of(model, dataset, dataset.images(rows[:1]).device)
    first = _Encoding(encoder, dataset, rows[:3], by_row)
    return first.mean, first.logvar


def _encoder_of(model, dataset: Dataset, device: torch.device) -> tuple[Callable, bool]:
    """Return a model's encoder, of images or of dataset rows, and whether it is of rows."""
    by_row = model.encode_rows is not None
    encoder = partial(model.encode_rows, dataset) if by_row else partial(encode_on, device, model)
    encoder.__wrapped__ = type(model)
    return encoder, by_row


def reconstruction_errors(model, dataset: Dataset, rows: np.ndarray, seed: int, device) -> np.ndarray:
    """Return -ln p(x|z), float32 [R] in nats, of up to MOST_RECONSTRUCTED of the rows int64 [N].

    Each row has one draw z of q(z|x); the seed decides the rows and the draws.
    """
    chosen = np.random.default_rng(seed).permutation(rows)[:MOST_RECONSTRUCTED]
    generator = torch.Generator(device).manual_seed(seed)
    errors = []
    with torch.inference_mode():
        for batch in np.array_split(chosen, -(-len(chosen) // BATCH)):
            noise = torch.randn(len(batch), model.latents, generator=generator, device=device)
            images = unit_images(dataset.images(batch).to(device))
            nats = model.reconstruction(images, noise)
            check_shapes(model.reconstruction, nats, noise.shape[:1])
            errors.append(nats.float().cpu().numpy())
    return np.concatenate(errors)


def _form(array: np.ndarray | None) -> tuple | None:
    return None if array is None else (array.shape[1], array.dtype)


def _function(encoder) -> Callable:
    """Return an encoder as a function of images, which a transformer of scikit-learn is not."""
    if callable(encoder):
        return encoder
    if not hasattr(encoder, "transform"):
        name = type(encoder).__name__
        raise DislabError(f"an encoder is a function of images, or has `transform`: {name} is no encoder")
    return lambda images: encoder.transform(images.flatten(1).cpu().numpy())


def _modules(encoder) -> Iterator[torch.nn.Module]:
    """Yield all modules of a module, of its method, or of a functools.partial or a wrapper of these."""
    if isinstance(encoder, torch.nn.Module):
        yield from encoder.modules()
    elif isinstance(encoder, functools.partial):
        for part in (encoder.func, *encoder.args, *encoder.keywords.values()):
            yield from _modules(part)
    elif inspect.isroutine(encoder):
        yield from _modules(getattr(encoder, "__self__", None))
        yield from _modules(getattr(encoder, "__wrapped__", None))


@contextmanager
def _evaluation_mode(encoder) -> Iterator[None]:
    """Put the modules of an encoder in evaluation mode, and those that were in training mode back in it.

    Only flags are set: `eval` and `train` may be methods of the user's that change weights.
    """
    training = [module for module in _modules(encoder) if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
