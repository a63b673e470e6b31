"""The golden of models with few labels."""

from __future__ import annotations

import torch
from torch import Tensor

from dislab.benchmarks.goldens import Given, golden
from dislab.models.few_labels import S2BetaVAE, with_errors


@golden("semi_supervised", not_followed=("l2_sigmoid_published_code",))
def semi_supervised(given: Given) -> dict[str, object]:
    """The label terms, the binned labels and the schedules of the weight."""
    z, labels, sizes = given["z"], given["labels"], given["sizes"]

    def model(**settings) -> S2BetaVAE:
        return S2BetaVAE((1, 2, 2), latents=z.shape[1], network="mlp", **settings).double()

    def term(label_loss: str) -> Tensor:
        return model(label_loss=label_loss).label_term(z, labels, sizes)

    scaled, embedding = model(label_loss="l2_scaled"), model(label_loss="embed")
    # sigma scales the means and the embeddings alike.
    with torch.no_grad():
        scaled.scale.fill_(given["b"])
        for factor, size in enumerate(sizes.tolist()):
            embedding.embeddings[factor, :size] = given["sigma"] * given[f"embedding_{factor}"]
    schedule = {"label_weight": given["gamma"], "label_steps": given["threshold"]}
    l2, steps = term("l2"), given["steps"].double()
    return {
        "xent": term("xent"),
        "l2_sigmoid": l2,
        "l2_sigmoid_published_code": l2,
        "l2_scaled": scaled.label_term(z, labels, sizes).detach(),
        "cov": term("cov"),
        "embed": embedding.label_term(given["sigma"] * z, labels, sizes).detach(),
        "binned_labels": with_errors(labels, sizes, "binned", torch.Generator())[0],
        "anneal": model(**schedule).weight(steps),
        "fine_tune": model(fine_tune=True, **schedule).weight(steps),
    }
