"""Goldens of models of groups of any size."""

from __future__ import annotations

import torch

from dislab.benchmarks.goldens import Given, golden
from dislab.benchmarks.goldens.vaes import IMAGE_SHAPE
from dislab.data.groups import Groups
from dislab.models.gvae_groups import GVAEGroups
from dislab.models.mlvae import MLVAE
from dislab.networks.distributions import kl_to_standard_normal
from dislab.training.batches import Batch


@golden("gvae_groups")
def gvae_groups(given: Given) -> dict[str, object]:
    """Contents of each group by `gvae_groups` and by `mlvae`, their losses, and gradients of the KL."""
    return of_model(given, GVAEGroups, "gvae") | of_model(given, MLVAE, "mlvae")


def of_model(given: Given, kind: type[MLVAE], name: str) -> dict[str, object]:
    """Return the quantities of one of the two models."""
    number, size, content = given["content_mean"].shape
    style = given["style_mean"].shape[2]
    model = kind(IMAGE_SHAPE, content=content, style=style, group_size=size, network="mlp").double()
    of_content = [given[f"content_{part}"].requires_grad_() for part in ("mean", "logvar")]
    joined = [
        torch.cat([part, given[f"style_{which}"]], dim=2)
        for part, which in zip(of_content, ("mean", "logvar"), strict=True)
    ]
    noise = torch.zeros(number, size, content + style, dtype=torch.float64)
    noise[..., :content] = given["noise"][:, None]  # one draw serves all images of a group
    alone = Groups(torch.zeros(size, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    losses, groups, drawn, kls = [], [], [], []
    for index, (mean, logvar) in enumerate(zip(*joined, strict=True)):
        model.encode = lambda images, own=(mean, logvar): own
        images = torch.zeros(size, *IMAGE_SHAPE, dtype=torch.float64)
        terms = model.loss(Batch(images, noise[index], size, (alone,)), torch.zeros(()))
        # The loss with the golden's reconstruction in place of the decoder's.
        losses.append(terms["loss"] - size * terms["reconstruction"] + given["nll"][index].sum())
        groups.append([part[0, :content] for part in model.encode_groups(images, (alone,))])
        own = mean[:, :content], logvar[:, :content], noise[index][:, :content]
        codes, kl = model.content_of(alone, *own)
        drawn.append(codes[0])
        kls.append(kl.sum())
    values: dict[str, object] = {
        f"{name}_mean": torch.stack([mean for mean, _ in groups]).detach(),
        f"{name}_logvar": torch.stack([logvar for _, logvar in groups]).detach(),
        f"kl_content_{name}": torch.stack(kls).detach(),
        f"loss_{name}": torch.stack(losses).detach(),
        f"mean_loss_{name}": torch.stack(losses).mean().detach(),
        "kl_style": kl_to_standard_normal(given["style_mean"], given["style_logvar"]).sum(2),
    }
    if name == "gvae":
        slopes = torch.autograd.grad(torch.stack(kls).sum(), of_content)
        values |= {"grad_kl_mean": slopes[0], "grad_kl_logvar": slopes[1]}
        values["gvae_content"] = torch.stack(drawn).detach()
    return values
