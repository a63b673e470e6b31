"""What joining the images of a group does to the posterior of their content and to their likelihood.

Bouchacourt et al. 2017, section 4, call it accumulating evidence: the posterior of a group's content narrows
as more of its images are encoded.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dislab.data.dataset import Dataset, unit_images
from dislab.data.groups import Groups, draw_groups, join_by_one
from dislab.networks.distributions import negative_log_likelihood, normal_log_density, sample_normal
from dislab.scoring.protocols import IMAGES

MOST_GROUPS = 10
# Draws of the content, and of all else for each of them: an image is decoded CONTENTS * STYLES times. The
# ELBO of groups of ten less that of single images, 38 nats for an ML-VAE on Shapes3D, was measured to spread
# over 8 seeds by 3.9 nats; by 3.1 with 5 styles, and by 6.0 with 3 contents of 3 styles. With 5 styles the
# bound of the log-likelihood was 2 to 3 nats higher.
CONTENTS, STYLES = 5, 2


def evidence(
    model, dataset: Dataset, rows: np.ndarray, labels: np.ndarray, seed: int, device
) -> list[dict[str, float]]:
    """Measure the content posterior and the likelihood of the same images, joined by k, for every k.

    Images of one class are joined: `labels` int64 [N, G] has the class of each of the dataset rows int64 [N]
    by each grouping. A dict is returned for each grouping and k. All values are means over the same groups
    of ten images; if k does not divide ten, the images that are left over are not used.

    - grouping : 1, 2, …
    - k : number of images joined; 1 is no grouping.
    - groups, images : number of groups, and of images in all of them.
    - content_variance : mean variance of q(c_G|x_G) over its dimensions.
    - reconstruction : E ln p(x_i|c_G, s_i), nats per image.
    - elbo : ELBO(G) (Bouchacourt et al. 2017, eq. 4), nats per image. A posterior that is a mixture is
        replaced by the Normal of its moments.
    - log_likelihood : ln p(x_G), nats per image: the importance-weighted bound (Burda et al. 2016) with
        CONTENTS contents, and for each of them STYLES styles of every image.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator(device).manual_seed(seed)
    lines = []
    contents = list(model.blocks.values())[:-1]
    for grouping, (block, classes) in enumerate(zip(contents, labels.T, strict=True)):
        members = draw_groups(rng, classes, MOST_GROUPS, max(IMAGES))
        for k in (k for k in IMAGES if k <= members.shape[1]):
            joined = members[:, : members.shape[1] // k * k].reshape(-1, k)
            with torch.inference_mode():
                images = unit_images(dataset.images(rows[joined.flatten()]).to(device))
                groupings = join_by_one(*joined.shape, grouping, len(contents), device)
                means = _measure(model, images, groupings, block, groupings[grouping], generator)
            counts = {"groups": len(joined), "images": joined.size}
            lines.append({"grouping": grouping + 1, "k": k} | counts | means)
    return lines


def _measure(model, images: Tensor, groupings, block: slice, groups: Groups, generator) -> dict[str, float]:
    """Return the means that `evidence` lists, of images [B, C, H, W] that are joined by one grouping."""
    mean, logvar = model.encode_groups(images, groupings)
    shared = torch.zeros(mean.shape[1], dtype=torch.bool, device=mean.device)
    shared[block] = True
    nothing = mean.new_zeros(groups.number)
    weights, reconstruction, elbo = [], mean.new_zeros(()), mean.new_zeros(())
    for _ in range(CONTENTS):
        content_noise = torch.randn(mean.shape, generator=generator, device=mean.device)[groups.first]
        image_weights = []
        for _ in range(STYLES):
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            noise[:, shared] = content_noise[groups.index][:, shared]
            codes = sample_normal(mean, logvar, noise)
            likelihood = -negative_log_likelihood(model.decode(codes), images, model.likelihood)
            prior = normal_log_density(codes, torch.zeros_like(codes), torch.zeros_like(codes))
            ratio = prior - normal_log_density(codes, mean, logvar)
            image_weights.append(likelihood + ratio[:, ~shared].sum(1))
            reconstruction += likelihood.mean() / (CONTENTS * STYLES)
        ratio_content = ratio[groups.first][:, shared].sum(1)  # the same in all draws of the styles
        of_images = torch.stack(image_weights)
        elbo += (of_images.mean(0).sum() + ratio_content.sum()) / (CONTENTS * len(images))
        mean_weights = of_images.logsumexp(0) - math.log(STYLES)
        weights.append(nothing.index_add(0, groups.index, mean_weights) + ratio_content)
    log_likelihood = (torch.stack(weights).logsumexp(0) - math.log(CONTENTS)).sum() / len(images)
    return {
        "content_variance": float(logvar[groups.first][:, shared].exp().mean()),
        "reconstruction": float(reconstruction),
        "elbo": float(elbo),
        "log_likelihood": float(log_likelihood),
    }
