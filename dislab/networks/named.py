"""The network that a model's hyper-parameter names: a registered one, or a function in a user's file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dislab.errors import DislabError, in_words
from dislab.registry import NETWORKS, load_plugin, plugin_files, unknown_name

IN_FILE = re.compile(r"(?P<file>.+\.py):(?P<function>\w+)(?:@(?P<digest>[0-9a-f]{8}))?")
FORM = "choose one of `dislab list networks`, or write FILE.py:FUNCTION"


def choose_network(network: object, image_shape: tuple[int, int, int]) -> str:
    """Return the name under which a network is recorded, so that equal names are equal networks.

    "auto" becomes "conv" if both image sides are divisible by 16, else "mlp". "nets.py:mine" gets a digest of
    the file's text: "nets.py:mine@1a2b3c4d".

    Raises
    ------
    DislabError : the network is no text; the file is missing, or its text has another digest.
    """
    if not isinstance(network, str):
        raise DislabError(f"network is {network!r}: {FORM}")
    if network == "auto":
        return "conv" if all(side % 16 == 0 for side in image_shape[1:]) else "mlp"
    if not (match := IN_FILE.fullmatch(network)):
        return network
    _, digest = _function_in_file(**match.groupdict())
    return f"{match['file']}:{match['function']}@{digest}"


def make_networks(
    network: str, image_shape: tuple[int, int, int], *, outputs: int, latents: int, channels: int
) -> tuple[nn.Module, nn.Module]:
    """Return an encoder of images [B, C, H, W] to [B, outputs], and a decoder to [B, channels, H, W].

    Parameters
    ----------
    network : a registered name, "auto", or "FILE.py:FUNCTION"; see `choose_network`.
    image_shape : (C, H, W).
    outputs : of the encoder, 2 * latents for mean and log-variance.
    latents : code dimensions that the decoder reads.
    channels : of the decoder's output.

    Raises
    ------
    DislabError : the network is unknown, cannot be made for these images, or returns another shape.
    """
    name = choose_network(network, image_shape)
    if match := IN_FILE.fullmatch(name):
        make, _ = _function_in_file(**match.groupdict())
    else:
        make = NETWORKS[name].make
    sizes = {"outputs": outputs, "latents": latents, "channels": channels}
    try:
        encoder, decoder = make(image_shape, **sizes)
        shapes = [
            (encoder, (1, *image_shape), (1, outputs), "encoder"),
            (decoder, (1, latents), (1, channels, *image_shape[1:]), "decoder"),
        ]
        for part, given, expected, which in shapes:
            returned = _shape_of(part, given)
            if returned != expected:
                raise DislabError(
                    f"network '{name}': its {which} returns {list(returned)} for an input {list(given)}, "
                    f"but must return {list(expected)}"
                )
    except DislabError:
        raise
    except Exception as error:
        raise DislabError(
            f"network '{name}' must be a function of (image_shape, outputs, latents, channels) that returns "
            f"an encoder and a decoder: {in_words(error, make)}"
        ) from error
    return encoder, decoder


def _shape_of(part: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a network's output for an input of zeros; its buffers stay as they are."""
    part.eval()
    with torch.no_grad():
        output = part(torch.zeros(shape))
    part.train()
    return tuple(output.shape)


def _function_in_file(file: str, function: str, digest: str | None) -> tuple[Callable, str]:
    """Return a function of a file, and the digest of the file's text."""
    path = Path(file)
    if path.is_file():
        path = path.resolve()
    else:  # a plug-in may have changed the working folder since the file was read
        path = next((one for one in plugin_files if one.parts[-len(path.parts) :] == path.parts), path)
    try:
        now = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise DislabError(f"the network's file '{file}' cannot be read: {error.strerror}") from None
    if digest not in (None, now):
        raise DislabError(
            f"network '{file}:{function}@{digest}': the file has changed since, its digest is {now} now"
        )
    if path not in plugin_files or digest is None:
        load_plugin(path)
    module = plugin_files[path]
    make = getattr(module, function, None)
    if not callable(make):
        names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise unknown_name(f"network in '{file}'", function, names)
    return make, now
