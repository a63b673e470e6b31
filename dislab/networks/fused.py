"""Convolutions that halve the sides of images, or double them, computed in the way that is fast on the CPU.

They are torch's own with a kernel of 4, a stride of 2 and a padding of 1: the same parameters, values and
gradients (backward; there is no forward-mode derivative on the CPU). On the CPU a training step of the
convolutional networks loses time in three places that have little to do with convolving, and there they go
another way:

- The gradient of a transposed convolution's bias takes torch as long as all else of its backward pass.
- A transposed convolution to few channels is computed for sixteen; see `_by_quarters`.
- ReLUs wait for memory, not for arithmetic. The one before a convolution is part of it (`rectify`) and writes
  in place, also in the backward pass, where nobody else holds what the convolution has just computed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Output channels of a transposed convolution below which it is computed by quarters: with 3 that was measured
# at half the time, with 32 at the same.
FEW_CHANNELS = 16


class Halve(nn.Conv2d):
    """A convolution, images [B, inputs, 2H, 2W] -> [B, channels, H, W].

    Parameters
    ----------
    rectify : apply a ReLU to the images first. It may overwrite them, unknown to autograd: they must be the
        result of another layer, and used by nothing else.
    """

    def __init__(self, inputs: int, channels: int, *, rectify: bool):
        super().__init__(inputs, channels, kernel_size=4, stride=2, padding=1)
        self.rectify = rectify

    def forward(self, images: Tensor) -> Tensor:
        return _convolve(self, images)


class Double(nn.ConvTranspose2d):
    """A transposed convolution, images [B, inputs, H, W] -> [B, channels, 2H, 2W]; else as `Halve`."""

    def __init__(self, inputs: int, channels: int, *, rectify: bool):
        super().__init__(inputs, channels, kernel_size=4, stride=2, padding=1)
        self.rectify = rectify

    def forward(self, images: Tensor) -> Tensor:
        return _convolve(self, images)


def _convolve(layer: Halve | Double, images: Tensor) -> Tensor:
    if images.device.type != "cpu":
        return _as_torch(images, layer.weight, layer.bias, layer.transposed, layer.rectify)
    weight, bias = layer.weight, layer.bias
    if torch.is_autocast_enabled("cpu"):  # which knows torch's own functions only
        kind = torch.get_autocast_dtype("cpu")
        images, weight, bias = images.to(kind), weight.to(kind), bias.to(kind)
    return _Convolution.apply(images, weight, bias, layer.transposed, layer.rectify)


def _as_torch(images: Tensor, weight: Tensor, bias: Tensor, transposed: bool, rectify: bool) -> Tensor:
    convolve = F.conv_transpose2d if transposed else F.conv2d
    return convolve(images.relu() if rectify else images, weight, bias, stride=2, padding=1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor, transposed: bool, rectify: bool) -> Tensor:
        if rectify:
            images.relu_()
        if not transposed:
            return F.conv2d(images, weight, bias, stride=2, padding=1)
        if weight.shape[1] < FEW_CHANNELS:
            return _by_quarters(images, weight, bias)
        return F.conv_transpose2d(images, weight, bias, stride=2, padding=1)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        images, weight, _, ctx.transposed, ctx.rectify = inputs
        ctx.save_for_backward(images, weight)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        if ctx.rectify and torch.is_grad_enabled():  # second derivatives are asked for, those of the ReLU too
            images = images.relu()
        channels = None if ctx.transposed else [len(weight)]
        stride, padding, dilation, output_padding, groups = [2, 2], [1, 1], [1, 1], [0, 0], 1
        of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
            *(gradient, images, weight, channels),
            *(stride, padding, dilation, ctx.transposed, output_padding, groups),
            output_mask=[ctx.needs_input_grad[0], True, not ctx.transposed],
        )
        if ctx.transposed:
            of_bias = gradient.sum((0, 2, 3))
        if ctx.rectify and of_images is not None:
            if torch.is_grad_enabled():
                of_images = torch.ops.aten.threshold_backward(of_images, images, 0)
            else:
                torch.ops.aten.threshold_backward(of_images, images, 0, grad_input=of_images)
        return of_images, of_weight, of_bias, None, None

    @staticmethod
    def vmap(info, in_dims: tuple, *arguments) -> tuple[Tensor, int]:
        # (The CPU trains models one after the other, so this need not be fast.)
        return torch.vmap(_as_torch, in_dims)(*arguments), 0


def _by_quarters(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A transposed convolution as a 2 x 2 convolution to four times the channels, one for each pixel of a
    2 x 2 square.

    A pixel gets its value from the 2 x 2 inputs around it. Pixels 2q - 1 and 2q of a row or column share
    theirs, inputs q - 1 and q: the former by the kernel's entries 2 and 0, the latter by its entries 3 and 1.
    q goes from 0 to H; the outermost pixels, -1 and 2H, are cut off.
    """
    inputs, channels = weight.shape[:2]
    quarters = weight.reshape(inputs, channels, 2, 2, 2, 2)  # kernel entry = 2 * tap + which of two pixels
    quarters = quarters.flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * channels, inputs, 2, 2)
    squares = F.conv2d(images, quarters, bias.repeat(4), padding=1).permute(0, 2, 3, 1)
    batch, rows, columns, _ = squares.shape
    squares = squares.reshape(batch, rows, columns, 2, 2 * channels).transpose(2, 3)
    pixels = squares.reshape(batch, 2 * rows, 2 * columns, channels)
    # (A copy: of a view, autograd would not let what follows write in place.)
    return pixels[:, 1:-1, 1:-1].permute(0, 3, 1, 2).clone(memory_format=torch.channels_last)
