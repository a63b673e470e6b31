"""The group-based VAE; benchmarks/goldens/groups.py holds it against numbers from Hosoya's formulas."""

import torch
from small_models import IMAGE_SHAPE, STEP, make_batch, make_model

from dislab.models.gvae_groups import GVAEGroups
from dislab.models.mlvae import MLVAE


def test_it_is_an_mlvae_with_another_default():
    assert GVAEGroups(IMAGE_SHAPE).posterior == "average"
    assert GVAEGroups(IMAGE_SHAPE, posterior="product").posterior == "product"
    ours, other = make_model(GVAEGroups), make_model(MLVAE, posterior="average")
    batch = make_batch([3, 2], latents=10)
    assert torch.equal(ours.loss(batch, STEP)["loss"], other.loss(batch, STEP)["loss"])
