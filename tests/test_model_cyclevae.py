"""The cycle-consistent VAE: both cycles against slow formulas, and who gets which gradient."""

import torch
from small_models import STEP, make_batch, make_groups, make_model
from torch.distributions import Normal, kl_divergence

from dislab.models.cyclevae import CONTENT_LOGVAR, CycleVAE

PIXELS, STYLE = 64, 2


def make_cycle(**hyperparameters) -> CycleVAE:
    return make_model(CycleVAE, content=3, style=STYLE, **hyperparameters)


def slow_loss(model: CycleVAE, batch) -> torch.Tensor:
    """The authors' code: means over elements of squared errors, of KLs over pixels, and of differences."""
    content, mean, logvar = model.parts(batch.images)
    noise, prior = batch.noise[:, :STYLE], batch.noise[:, STYLE:]
    first, second = range(0, 8, 2), range(1, 8, 2)
    total = 0
    for own, other in ((first, second), (second, first)):
        squares, divergences = [], []
        for i, j in zip(own, other, strict=True):
            deviation = torch.exp(logvar[i] / 2)
            codes = torch.cat([content[j], mean[i] + deviation * noise[i]])
            image = torch.sigmoid(model.decode(codes[None])[0])
            squares.append((image - batch.images[i]).square())
            prior_of_style = Normal(torch.zeros_like(mean[i]), torch.ones_like(mean[i]))
            divergences.append(kl_divergence(Normal(mean[i], deviation), prior_of_style).sum())
        total = total + 2 * torch.stack(squares).mean() + 3 * sum(divergences) / (4 * PIXELS)
    differences = []
    for i in range(4):
        styles = []
        for one in (i, i + 4):
            image = torch.sigmoid(model.decode(torch.cat([content[one].detach(), prior[i]])[None]))
            styles.append(model.parts(image.detach())[1][0])
        differences.append((styles[0] - styles[1]).abs())
    return total + 10 * torch.stack(differences).mean()


def test_loss_is_that_of_the_authors():
    model, batch = make_cycle(reverse_weight=10.0), make_batch([2] * 4, latents=2 * STYLE)
    loss, expected = model.loss(batch, STEP)["loss"], slow_loss(model, batch)
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    for mine, slow in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert mine.abs().max() > 1e-6
        torch.testing.assert_close(mine, slow)


def test_terms_are_sums_over_pixels_and_dimensions():
    model, batch = make_cycle(reconstruction_weight=0.5, kl_weight=0.5), make_batch([2] * 4, latents=4)
    terms = model.loss(batch, STEP)
    forward = (terms["reconstruction"] + terms["kl"]) / PIXELS
    torch.testing.assert_close(terms["loss"], forward + 0.3 * terms["reverse"] / STYLE)


def test_reverse_cycle_moves_the_encoder_alone():
    """Its gradient must not let the decoder hide the class, nor move the contents that it starts from."""
    model, batch = make_cycle(), make_batch([2] * 4, latents=2 * STYLE)
    reverse = model.loss(batch, STEP)["reverse"]
    encoder, decoder = list(model.encoder.parameters()), list(model.decoder.parameters())
    gradients = torch.autograd.grad(reverse, encoder + decoder, allow_unused=True)
    assert all(one is None for one in gradients[len(encoder) :])
    found, bias = gradients[: len(encoder)], gradients[len(encoder) - 1]
    assert found[0].abs().max() > 1e-6
    assert (bias[:3] == 0).all() and (bias[3 + STYLE :] == 0).all(), "only the styles' means are compared"


def test_images_of_a_pair_exchange_their_contents():
    model, batch = make_cycle(), make_batch([2, 2, 1], latents=2 * STYLE)
    content, mean, logvar = (part.detach() for part in model.parts(batch.images))
    seen = []
    decode = model.decode
    model.decode = lambda codes: seen.append(codes.detach()) or decode(codes)
    model.loss(batch, STEP)
    forward, reverse = seen
    # The last one of an odd number has no partner but itself.
    torch.testing.assert_close(forward[:, :3], content[[1, 0, 3, 2, 4]])
    torch.testing.assert_close(forward[:, 3:], mean + torch.exp(logvar / 2) * batch.noise[:, :STYLE])
    torch.testing.assert_close(reverse[:, :3], content[:4])
    torch.testing.assert_close(reverse[:, 3:], batch.noise[[0, 1, 0, 1], STYLE:])


def test_a_perfect_exchange_costs_nothing_but_the_kl():
    model, batch = make_cycle(), make_batch([2] * 4, latents=2 * STYLE)
    model.mean_image = lambda codes: batch.images
    terms = model.loss(batch, STEP)
    assert terms["reconstruction"] == 0


def test_codes_are_content_and_style_and_groups_share_the_mean_of_their_contents():
    model, batch = make_cycle(), make_batch([3, 2], latents=2 * STYLE)
    content, style_mean, style_logvar = model.parts(batch.images)
    mean, logvar = model.encode(batch.images)
    assert model.blocks == {"content": slice(0, 3), "style": slice(3, 5)}
    torch.testing.assert_close(mean, torch.cat([content, style_mean], dim=1))
    torch.testing.assert_close(logvar[:, 3:], style_logvar)
    assert (logvar[:, :3] == CONTENT_LOGVAR).all()
    joined, joined_logvar = model.encode_groups(batch.images, (make_groups([3, 2]),))
    expected = torch.stack([content[:3].mean(0)] * 3 + [content[3:].mean(0)] * 2)
    torch.testing.assert_close(joined, torch.cat([expected, style_mean], dim=1))
    torch.testing.assert_close(joined_logvar, logvar)
