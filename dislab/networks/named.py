"""The network that a model's hyper-parameter names: a registered one, or a function in a user's file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dislab.errors import FAILURES, DislabError, defined_in, in_words
from dislab.registry import NETWORKS, digest_of, load_plugin, plugin_files, unknown_name

IN_FILE = re.compile(r".+\.py:\w+")
RECORDED = re.compile(r"(.+?)(?:@([0-9a-f]{8}))?", re.DOTALL)  # a name, and a digest
FORM = "choose one of `dislab list networks`, or write FILE.py:FUNCTION"


def choose_network(network: object, image_shape: tuple[int, int, int]) -> str:
    """Return the name under which a network is recorded, so that equal names are equal networks.

    "auto" becomes "conv" if both image sides are divisible by 16, else "mlp". A network that is not dislab's
    gets a digest of the text that defines it: "nets.py:mine@1a2b3c4d", "mine@1a2b3c4d" if registered.

    Raises
    ------
    DislabError : the network is no name; the file is missing, or its text has another digest.
    """
    if not isinstance(network, str) or not network:
        raise DislabError(f"network is {network!r}: {FORM}")
    if network == "auto":
        return "conv" if all(side % 16 == 0 for side in image_shape[1:]) else "mlp"
    name, wanted = RECORDED.fullmatch(network).groups()
    if IN_FILE.fullmatch(name):
        digest = _function_in_file(name)[1]
    elif name in NETWORKS and not NETWORKS.is_built_in(name):
        digest = NETWORKS[name].digest
    else:
        return network
    if wanted not in (None, digest):
        raise DislabError(f"network '{network}' has changed since: the digest of its text is {digest} now")
    return f"{name}@{digest}" if digest else name


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
    name = RECORDED.fullmatch(choose_network(network, image_shape))[1]
    make = _function_in_file(name)[0] if IN_FILE.fullmatch(name) else NETWORKS[name].make
    sizes = {"outputs": outputs, "latents": latents, "channels": channels}
    try:
        encoder, decoder = make(image_shape, **sizes)
        shapes = [
            (encoder, (1, *image_shape), (1, outputs), "encoder"),
            (decoder, (1, latents), (1, channels, *image_shape[1:]), "decoder"),
        ]
        for part, input_shape, expected, which in shapes:
            returned = _shape_of(part, input_shape)
            if returned != expected:
                raise DislabError(
                    f"network '{name}': its {which} returns {list(returned)} for an input "
                    f"{list(input_shape)}, but must return {list(expected)}{defined_in(make)}"
                )
    except FAILURES as error:
        text = in_words(error, make)
        if isinstance(error, DislabError):  # its own words, or those above
            position = "" if NETWORKS.is_built_in(name) or ", line " in text else defined_in(make)
            raise DislabError(text + position) from error
        raise DislabError(
            f"network '{name}' must be a function of (image_shape, outputs, latents, channels) that returns "
            f"an encoder and a decoder: {text}"
        ) from error
    return encoder, decoder


def _shape_of(part: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a network's output for an input of zeros; its buffers stay as they are."""
    part.eval()
    with torch.no_grad():
        output = part(torch.zeros(shape))
    part.train()
    return tuple(output.shape)


def _function_in_file(network: str) -> tuple[Callable, str]:
    """Return the function that "FILE.py:FUNCTION" names, and the digest of the file's text.

    The file is read again if it is not loaded yet, or its text has another digest than when it was.
    """
    file, _, function = network.rpartition(":")
    path = Path(file)
    if path.is_file():
        path = path.resolve()
    else:  # a plug-in may have changed the working folder since the file was read
        path = next((one for one in plugin_files if one.parts[-len(path.parts) :] == path.parts), path)
    try:
        now = digest_of(path.read_bytes())
    except OSError as error:
        raise DislabError(f"the network's file '{file}' cannot be read: {error.strerror}") from None
    if path not in plugin_files or plugin_files[path].__digest__ != now:
        load_plugin(path)
    module = plugin_files[path]
    make = getattr(module, function, None)
    if not callable(make):
        names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise unknown_name(f"network in '{file}'", function, names)
    return make, now
