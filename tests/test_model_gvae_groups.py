"""The group-based VAE against numbers from Hosoya's formulas."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import IMAGE_SHAPE, STEP, fix_posterior, make_batch, make_model

from dislab.models import mlvae
from dislab.models.gvae_groups import GVAEGroups
from dislab.models.mlvae import MLVAE

FOLDER = Path(os.environ.get("DISLAB_DATA", "")).parent / "goldens" / "models"
needs_golden = pytest.mark.skipif(
    not (FOLDER / "gvae_groups.npz").is_file(), reason="no folder of goldens beside $DISLAB_DATA"
)


@needs_golden
@pytest.mark.parametrize(("kind", "name"), [(GVAEGroups, "gvae"), (MLVAE, "mlvae")])
def test_loss_of_the_golden_groups(kind, name, monkeypatch):
    golden = {key: torch.from_numpy(value) for key, value in np.load(FOLDER / "gvae_groups.npz").items()}
    scalars = json.loads((FOLDER / "gvae_groups.json").read_text())["scalars"]
    parts = ("content_mean", "content_logvar", "style_mean", "style_logvar")
    content_mean, content_logvar, style_mean, style_logvar = (golden[part].flatten(0, 1) for part in parts)
    content_mean.requires_grad_()
    content_logvar.requires_grad_()
    model = make_model(kind, content=4, style=2)
    mean, logvar = torch.cat([content_mean, style_mean], 1), torch.cat([content_logvar, style_logvar], 1)
    fix_posterior(model, mean, logvar)
    batch = make_batch([5, 5, 5], latents=6)
    batch.noise[batch.groupings[0].first, :4] = golden["noise"]
    monkeypatch.setattr(mlvae, "negative_log_likelihood", lambda *_: golden["nll"].flatten())

    groups = batch.groupings[0]
    content, kl = model.content_of(groups, content_mean, content_logvar, batch.noise[:, :4])
    torch.testing.assert_close(kl, golden[f"kl_content_{name}"], rtol=1e-9, atol=0)
    joined = [
        part[groups.first, :4] for part in model.encode_groups(torch.zeros(15, *IMAGE_SHAPE), (groups,))
    ]
    for part, expected in zip(joined, ("mean", "logvar"), strict=True):
        torch.testing.assert_close(part, golden[f"{name}_{expected}"], rtol=1e-9, atol=1e-9)
    terms = model.loss(batch, STEP)
    assert terms["loss"].item() == pytest.approx(scalars[f"mean_loss_{name}"]["value"], rel=1e-9)
    torch.testing.assert_close(terms["kl_style"], golden["kl_style"].mean(), rtol=1e-9, atol=0)
    if kind is GVAEGroups:
        expected = golden["gvae_content"].repeat_interleave(5, 0)
        torch.testing.assert_close(content, expected, rtol=1e-9, atol=1e-9)
        # His published gradients of the KL are five times these: once for every member.
        slopes = torch.autograd.grad(kl.sum(), (content_mean, content_logvar))
        for slope, part in zip(slopes, ("mean", "logvar"), strict=True):
            torch.testing.assert_close(slope, golden[f"grad_kl_{part}"].flatten(0, 1), rtol=1e-9, atol=1e-12)


def test_it_is_an_mlvae_with_another_default():
    assert GVAEGroups(IMAGE_SHAPE).posterior == "average"
    assert GVAEGroups(IMAGE_SHAPE, posterior="product").posterior == "product"
    ours, other = make_model(GVAEGroups), make_model(MLVAE, posterior="average")
    batch = make_batch([3, 2], latents=10)
    assert torch.equal(ours.loss(batch, STEP)["loss"], other.loss(batch, STEP)["loss"])
