"""The variational autoencoder, from which most other models are derived."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dislab.networks.distributions import (
    kl_to_standard_normal,
    likelihood_of,
    mean_image,
    negative_log_likelihood,
    observed,
    pixel_channels,
    sample_normal,
)
from dislab.networks.named import make_networks
from dislab.registry import register_model
from dislab.training.batches import Batch

Likelihood = Literal["bernoulli", "binarised", "gaussian"]
PixelLogvar = Literal["floor", "tanh", "tanh5", "fixed"]


@register_model("vae", title="Variational autoencoder", reference="Kingma & Welling 2014, arXiv:1312.6114")
class VAE(nn.Module):
    """Variational autoencoder with a diagonal Normal posterior.

    Parameters
    ----------
    image_shape : (C, H, W).
    latents : number of code dimensions D.
    network : "conv" (Locatello et al. 2019), another of `dislab list networks`, a function in a file as
        "FILE.py:FUNCTION", or "auto": conv if the image sides allow it, else mlp.
    likelihood : "bernoulli", which takes a grey pixel for the probability of 1; "binarised", the Bernoulli of
        images whose pixels become 1 from 0.5 on and else 0, also before the encoder, so that the model is one
        of binary images (Németh 2020); or "gaussian", with a mean per pixel.
    pixel_logvar : log-variance of a "gaussian" pixel, by the decoder's output o of its own: "floor", o above
        the smooth floor 2 ln(1/255); "tanh", tanh(o), or "tanh5", 5 tanh(o), so that no pixel outweighs the
        others by far; or "fixed", 0 without such an output.
    """

    supervision = "iid"  # the loss sees single images; see dislab.training.model.Model

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        latents: int = 10,
        network: str = "auto",
        likelihood: Likelihood = "bernoulli",
        pixel_logvar: PixelLogvar = "floor",
    ):
        super().__init__()
        self.latents = latents
        self.likelihood = likelihood_of(likelihood, pixel_logvar)
        channels = pixel_channels(self.likelihood, image_shape[0])
        self.encoder, self.decoder = make_networks(
            network, image_shape, outputs=2 * latents, latents=latents, channels=channels
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), both [B, D], for images [B, C, H, W] in [0, 1]."""
        mean, logvar = self.encoder(observed(images, self.likelihood)).chunk(2, dim=1)
        return mean, logvar

    def decode(self, codes: Tensor) -> Tensor:
        """Return the parameters of p(x|z), as `negative_log_likelihood` takes them, for codes [B, D]."""
        return self.decoder(codes)

    def mean_image(self, codes: Tensor) -> Tensor:
        """Return E[x|z], [B, C, H, W] in [0, 1], for codes [B, D]."""
        return mean_image(self.decode(codes), self.likelihood)

    def reconstruction(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return -ln p(x|z) in nats, [B], with z ~ q(z|x) drawn by the standard Normal noise [B, D]."""
        codes = sample_normal(*self.encode(images), noise)
        return negative_log_likelihood(self.decode(codes), images, self.likelihood)

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the negative ELBO and its terms, nats per image."""
        mean, logvar = self.encode(batch.images)
        codes = sample_normal(mean, logvar, batch.noise)
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
