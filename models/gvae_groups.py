"""The group-based VAE: an ML-VAE whose group's content is the average of what its images say."""

from __future__ import annotations

from dislab.models.mlvae import MLVAE, Posterior
from dislab.registry import register_model


@register_model("gvae_groups", title="Group-based VAE", reference="Hosoya 2019, arXiv:1809.02383")
class GVAEGroups(MLVAE):
    """Group-based VAE: q(c_G|x_G) has the mean of the members' means and the mean of their variances.

    The objective is that of the ML-VAE. Hosoya's own gradients count the KL of the content once for every
    image of a group; beta_content = group_size does that. He has separate networks for content and style, and
    Gaussian pixels of variance 1 (likelihood=gaussian, pixel_logvar=fixed).

    Parameters
    ----------
    posterior, others : see `MLVAE`.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, posterior: Posterior = "average", **others):
        super().__init__(image_shape, posterior=posterior, **others)
