"""What the variants of dSprites draw on a sprite: colours, noise, pieces of a picture.

disentanglement_lib draws these anew whenever an image is shown. Here they follow from the image's row by a
hash of whole numbers, so that an image is the same each time and on every machine. The numbers of different
rows are unrelated. Sprites are uint8 [B, 1, 64, 64] of 0 and 255, images uint8 [B, 3, 64, 64].
"""

import torch
from torch import Tensor

VERSION = 1  # of all these drawings, and of drawn sprites beneath them: a change needs a new one
SIDE = 64
WORDS = 3 * SIDE * SIDE // 4  # numbers of 32 bits that hold an image
ORIENTATIONS = 40

GREYS = (0, 64, 128, 191, 255)  # 0, 1/4, 1/2, 3/4 and 1
# Six hues of the HUSL space (h 0.1, s 0.7, l 0.7), those of disentanglement_lib rounded to bytes.
OBJECT_COLOURS = (
    (232, 150, 93),
    (162, 177, 92),
    (96, 186, 152),
    (101, 180, 201),
    (178, 159, 229),
    (232, 141, 191),
)


def color(sprites: Tensor, rows: Tensor) -> Tensor:
    """Return the sprites in a colour of the row: each channel is uniform in 128 to 255."""
    shade = 128 + (_bytes(rows, 1)[:, :3] >> 1)
    return torch.minimum(sprites, shade[:, :, None, None])


def noisy(sprites: Tensor, rows: Tensor) -> Tensor:
    """Return the sprites before noise of the row: each channel of a pixel is uniform in 0 to 255."""
    return torch.maximum(sprites, _bytes(rows, WORDS).view(-1, 3, SIDE, SIDE))


def scream(sprites: Tensor, rows: Tensor, picture: Tensor) -> Tensor:
    """Return pieces of a picture, tinted by a colour, with inverted colours where the sprite is.

    The piece and the colour are those of the row. A pixel is the mean of the piece and the colour.

    Parameters
    ----------
    picture : uint8 [3, H, W], with sides above 64. As in disentanglement_lib, no piece touches its right or
        lower edge.
    """
    pieces = picture.unfold(1, SIDE, 1).unfold(2, SIDE, 1)
    words = _words(rows, 3)
    top, left, tint = words[:, 0], words[:, 1], words.view(torch.uint8)[:, 8:11, None, None]
    piece = pieces[:, _below(top, picture.shape[1] - SIDE), _below(left, picture.shape[2] - SIDE)]
    piece = piece.transpose(0, 1)
    # The mean of two bytes, a half rounded up, without a wider type.
    mean = (piece >> 1) + (tint >> 1) + ((piece | tint) & 1)
    return mean ^ sprites  # 255 inverts a byte


def orientations(rows: Tensor) -> Tensor:
    """Return the orientation int64 [B] of each row, uniform in 0 to 39."""
    return _below(_words(rows, 1)[:, 0], ORIENTATIONS)


def palette(device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return the greys uint8 [5, 1] and the colours uint8 [6, 3] of `abstract` on a device."""
    greys = torch.tensor(GREYS, dtype=torch.uint8, device=device)[:, None]
    return greys, torch.tensor(OBJECT_COLOURS, dtype=torch.uint8, device=device)


def abstract(sprites: Tensor, greys: Tensor, colours: Tensor) -> Tensor:
    """Return sprites in colours, uint8 [B, 3], before greys, uint8 [B, 1]."""
    greys, colours = greys[:, :, None, None], colours[:, :, None, None]
    return greys ^ ((greys ^ colours) & sprites)  # measured at a twentieth of the time of torch.where


def _words(rows: Tensor, number: int) -> Tensor:
    """Return pseudo-random numbers of 32 bits of each row, int32 [B, number].

    No two rows and positions share an input of the hash, which is C. Wellons' lowbias32: of every bit that
    changes in the input, each bit of the output changes in half of the cases, to 0.2 %.
    """
    first = (rows[:, None] * number + 0x9E3779B9).to(torch.int32)  # higher bits are dropped, in products too
    x = first + torch.arange(number, dtype=torch.int32, device=rows.device)
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def _bytes(rows: Tensor, number: int) -> Tensor:
    """Return pseudo-random bytes of each row, uint8 [B, 4 * number]."""
    return _words(rows, number).view(torch.uint8)


def _below(words: Tensor, bound: int) -> Tensor:
    """Return whole numbers in 0 .. bound - 1, int64 [B], of words int32 [B]."""
    return (words.to(torch.int64) & 0xFFFFFFFF) * bound >> 32
