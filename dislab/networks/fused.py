"""A faster way of computing torch's convolutions with a kernel of 4, a stride of 2 and a padding of 1.

`fuse` applies it to a model from outside: parameters, values and gradients stay those of torch. On the CPU a
training step of the convolutional networks loses time in three things that have little to do with convolving:

- The gradient of a transposed convolution's bias takes torch as long as all else of its backward pass.
- torch computes a transposed convolution to few channels as if it had sixteen; see `_by_quarters`.
- ReLUs wait for memory, not for arithmetic. Here the ReLU before a convolution writes in place, in the
  backward pass too.

On CUDA cuDNN has no good kernel that gives the same numbers every time for the gradient of the weight of a
layer between few channels and many: the first and the last layer took more than half of a training step on
an H100. Here they are matrix products with the patches of the image. For layers of 32 and 64 channels such
products were measured to be slower than cuDNN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Output channels of a transposed convolution below which it is computed by quarters: with 3 that was measured
# at half the time, on CUDA at two fifths, with 32 at the same.
FEW_CHANNELS = 16
# Where the patches of images are multiplied, which take four times the memory, and up to how many channels.
PATCHES_ON = "cuda"
FEW_OF_PATCHES = 8


def fuse(model: nn.Module) -> nn.Module:
    """Make every nn.Sequential in a model a `Fused`, in place, and return the model.

    Subclasses of nn.Sequential are left alone: they may have a forward of their own.
    """
    for module in model.modules():
        if type(module) is nn.Sequential:
            module.__class__ = Fused
    return model


class Fused(nn.Sequential):
    """An nn.Sequential that computes its convolutions, and the ReLUs before them, faster where it can."""

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for relu, layer in _with_relus(self):
            is_supported = _supports_layer(layer)
            if is_supported and _supports_input(hidden):
                hidden = _convolve(layer, hidden, rectify=relu is not None)
                continue
            hidden = hidden if relu is None else relu(hidden)
            if is_supported and _supports_patches(layer, hidden):
                hidden, _ = _ByPatches.apply(*_tensors(layer, hidden), layer.transposed)
            else:
                hidden = layer(hidden)
        return hidden


def _with_relus(layers: Iterable[nn.Module]) -> Iterator[tuple[nn.ReLU | None, nn.Module]]:
    """Yield every layer, together with the ReLU before it if that ReLU may overwrite its input.

    It may do so after a convolution: nothing but the ReLU has that tensor, and no gradient needs its values.
    """
    before = relu = None
    for layer in layers:
        if _is_only(layer, nn.ReLU) and _is_only(before, nn.Conv2d, nn.ConvTranspose2d):
            relu = layer
        else:
            yield relu, layer
            relu = None
        before = layer
    if relu is not None:
        yield None, relu


def _is_only(layer: nn.Module | None, *types: type) -> bool:
    """Return whether a call of the layer does what its type, one of torch's, does, and nothing else."""
    if type(layer) not in types or "forward" in vars(layer):
        return False
    hooks = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks)
    return not any(hooks)


def _supports_layer(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution that `_Convolution` computes."""
    if not _is_only(layer, nn.Conv2d, nn.ConvTranspose2d):
        return False
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.output_padding)
    return (
        sizes == ((4, 4), (2, 2), (1, 1), (1, 1), (0, 0))
        and layer.groups == 1
        and layer.bias is not None
        and layer.padding_mode == "zeros"
    )


def _supports_input(images: Tensor) -> bool:
    """Return whether `_Convolution` can compute with these images [B, C, H, W] as torch would.

    There is no forward-mode derivative.
    """
    return type(images) is Tensor and images.device.type == "cpu" and images.ndim == 4 and _is_float(images)


def _is_float(images: Tensor) -> bool:
    """Return whether images have a type in which the convolutions here compute."""
    autocast = torch.is_autocast_enabled(images.device.type)
    return images.dtype in (torch.float32, torch.bfloat16, *([] if autocast else [torch.float64]))


def _supports_patches(layer: nn.Conv2d | nn.ConvTranspose2d, images: Tensor) -> bool:
    """Return whether `_ByPatches` computes the layer of these images [B, C, H, W], faster than torch."""
    few = layer.out_channels if layer.transposed else layer.in_channels
    return (
        type(images) is Tensor
        and images.device.type == PATCHES_ON
        and images.ndim == 4
        and not any(side % 2 for side in images.shape[2:])
        and images.numel() > 0
        and _is_float(images)
        and few <= FEW_OF_PATCHES
    )


def _tensors(layer: nn.Conv2d | nn.ConvTranspose2d, images: Tensor) -> list[Tensor]:
    """Return images, weight and bias as autocast would convert them, which it does for torch's functions."""
    tensors, kind = [images, layer.weight, layer.bias], images.device.type
    if torch.is_autocast_enabled(kind):
        tensors = [tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]
    return tensors


def _convolve(layer: nn.Conv2d | nn.ConvTranspose2d, images: Tensor, rectify: bool) -> Tensor:
    return _Convolution.apply(*_tensors(layer, images), layer.transposed, rectify)


class _Convolution(torch.autograd.Function):
    """A convolution or transposed convolution. With `rectify` it takes the ReLU of the images, in place.

    Autograd does not learn that the images are overwritten. They must be the output of a layer whose gradient
    does not need its output, and nothing else may use them.
    """

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
        for_images, for_weight, for_bias, *_ = ctx.needs_input_grad
        if ctx.rectify and torch.is_grad_enabled():  # a second derivative is asked for, also that of the ReLU
            images = images.relu()
        bias_sizes = None if ctx.transposed else [len(weight)]
        stride, padding, dilation, output_padding, groups = [2, 2], [1, 1], [1, 1], [0, 0], 1
        of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
            *(gradient, images, weight, bias_sizes),
            *(stride, padding, dilation, ctx.transposed, output_padding, groups),
            output_mask=[for_images, for_weight, for_bias and not ctx.transposed],
        )
        if ctx.transposed and for_bias:
            of_bias = gradient.sum((0, 2, 3))
        if ctx.rectify and for_images:
            if torch.is_grad_enabled():
                of_images = torch.ops.aten.threshold_backward(of_images, images, 0)
            else:
                torch.ops.aten.threshold_backward(of_images, images, 0, grad_input=of_images)
        return of_images, of_weight, of_bias, None, None


def _by_quarters(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a transposed convolution, computed as a 2 x 2 convolution to four times the channels.

    Each of the four is for one pixel of a 2 x 2 square. A pixel gets its value from the 2 x 2 inputs around
    it. Pixels 2q - 1 and 2q of a row or column share theirs, inputs q - 1 and q: the former by the kernel's
    entries 2 and 0, the latter by its entries 3 and 1. q goes from 0 to H; the outermost pixels, -1 and 2H,
    are cut off.
    """
    inputs, channels = weight.shape[:2]
    quarters = weight.reshape(inputs, channels, 2, 2, 2, 2)  # kernel entry = 2 * tap + which of two pixels
    quarters = quarters.flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * channels, inputs, 2, 2)
    squares = F.conv2d(images, quarters, bias.repeat(4), padding=1).permute(0, 2, 3, 1)
    batch, rows, columns, _ = squares.shape
    squares = squares.reshape(batch, rows, columns, 2, 2 * channels).transpose(2, 3)
    pixels = squares.reshape(batch, 2 * rows, 2 * columns, channels)
    # A copy, because autograd would not let what follows write in place into a view.
    return pixels[:, 1:-1, 1:-1].permute(0, 3, 1, 2).clone(memory_format=torch.channels_last)


class _ByPatches(torch.autograd.Function):
    """A convolution of few channels, or a transposed one to few, by matrix products with their patches.

    With the layer of few channels as [N, 16 C] patches and that of many as [N, M] pixels, the gradient of the
    weight is one product, whichever of the two is the input. The output of a transposed one is computed
    `_by_quarters`. The patches of the images are a second output, so that the backward pass has them.
    """

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, bias: Tensor, transposed: bool
    ) -> tuple[Tensor, Tensor | None]:
        if transposed:
            return _by_quarters(images, weight, bias), None
        patches = _patches(images)
        batch, _, rows, columns = images.shape
        sizes = batch, len(weight), rows // 2, columns // 2
        # Autograd would not let what follows write in place into a view of the product.
        output = torch.empty(
            sizes, dtype=images.dtype, device=images.device, memory_format=torch.channels_last
        )
        torch.addmm(bias, patches, _matrix(weight).T, out=output.permute(0, 2, 3, 1).flatten(0, 2))
        return output, patches

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor | None]) -> None:
        images, weight, _, ctx.transposed = inputs
        if not ctx.transposed:
            ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(images, weight, output[1])

    @staticmethod
    def backward(ctx, gradient: Tensor, _) -> tuple[Tensor | None, ...]:
        images, weight, patches = ctx.saved_tensors
        for_images, for_weight, for_bias, _ = ctx.needs_input_grad
        few, many = (gradient, images) if ctx.transposed else (images, gradient)
        of_images = of_weight = None
        if patches is None or torch.is_grad_enabled():  # a second derivative passes through the patches, too
            patches = _patches(few)
        if for_weight:
            of_weight = many.permute(0, 2, 3, 1).flatten(0, 2).T @ patches
            of_weight = of_weight.unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        if for_images and ctx.transposed:
            of_images = _image(patches @ _matrix(weight).T, len(images), images.shape[2])
        elif for_images:
            of_images = F.conv_transpose2d(gradient, weight, stride=2, padding=1)
        return of_images, of_weight, gradient.sum((0, 2, 3)) if for_bias else None, None


def _patches(images: Tensor) -> Tensor:
    """Return what a kernel of 4 sees at every step of 2, [B * H/2 * W/2, 16 C], of images [B, C, H, W]."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    patches = padded.unfold(1, 4, 2).unfold(2, 4, 2)  # [B, H/2, W/2, C, 4, 4]
    return patches.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)


def _matrix(weight: Tensor) -> Tensor:
    """Return a weight [M, C, 4, 4] as [M, 16 C], in the order of `_patches`."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _image(pixels: Tensor, batch: int, rows: int) -> Tensor:
    """Return pixels [B * H * W, C] as images [B, C, H, W]."""
    return pixels.unflatten(0, (batch, rows, -1)).permute(0, 3, 1, 2)
