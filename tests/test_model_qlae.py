"""The quantised latent autoencoder: what is rounded, and who learns from which term."""

import pytest
import torch
import torch.nn.functional as F
from small_models import IMAGE_SHAPE, STEP, make_batch, make_model, random_normals

from dislab.models.qlae import QLAE, nearest_value, quantised, straight_through
from dislab.networks.adam import Adam

SETTINGS = {"latents": 3, "values": 4}


def test_every_dimension_has_the_nearest_of_its_own_values():
    outputs, _ = random_normals(50, 3)
    values = torch.tensor([[-1.0, 0.0, 0.5, 2.0], [0.3, -0.3, 5.0, 9.0], [0.0, 1.0, 2.0, -2.0]]).double()
    index = nearest_value(outputs, values)
    codes = quantised(index, values)
    for i in range(50):
        for d in range(3):
            distances = [abs(outputs[i, d] - value).item() for value in values[d]]
            assert distances[index[i, d]] == min(distances)
            assert codes[i, d] == values[d, index[i, d]]
    assert torch.equal(quantised(nearest_value(codes, values), values), codes)


def test_on_a_tie_the_lower_index_is_taken():
    values = torch.tensor([[-0.5, 0.5], [0.5, -0.5]])
    assert nearest_value(torch.zeros(1, 2), values).tolist() == [[0, 0]]


@pytest.mark.parametrize("number", [2, 10])
def test_every_value_can_be_reached(number):
    model = QLAE(IMAGE_SHAPE, latents=3, values=number, network="mlp")
    expected = torch.linspace(-0.5, 0.5, number).expand(3, number)
    assert torch.equal(model.values, expected)
    index = nearest_value(expected.T + 0.01, model.values)
    assert torch.equal(index, torch.arange(number)[:, None].expand(number, 3))


def test_codes_are_the_quantised_values():
    model = make_model(QLAE, **SETTINGS)
    codes = model.encode(torch.rand(9, *IMAGE_SHAPE, dtype=torch.float64))
    assert codes.shape == (9, 3)
    assert (codes[:, :, None] == model.values).any(2).all() and len(codes.unique()) > 2


def test_the_gradient_of_the_codes_goes_to_the_outputs_and_not_to_the_values():
    outputs, upstream = random_normals(6, 3)
    outputs.requires_grad_()
    values = torch.linspace(-1, 1, 5).double().repeat(3, 1).requires_grad_()
    codes = quantised(nearest_value(outputs, values), values)
    passed = straight_through(outputs, codes)
    torch.testing.assert_close(passed, codes)
    of_outputs, of_values = torch.autograd.grad(
        (passed * upstream).sum(), [outputs, values], allow_unused=True
    )
    assert torch.equal(of_outputs, upstream) and of_values is None


def test_the_loss_is_per_pixel_and_each_term_has_one_learner():
    model = make_model(QLAE, **SETTINGS, quantise=0.3, commit=0.7)
    batch = make_batch([1] * 6, latents=3)
    terms = model.loss(batch, STEP)
    outputs = model.encoder(batch.images).detach().requires_grad_()
    # Slowly: the mean over all pixels, and the nearest values by themselves.
    codes = model.encode(batch.images).detach()
    error = (outputs - codes).square().mean()
    per_pixel = F.binary_cross_entropy_with_logits(model.decode(codes), batch.images)
    torch.testing.assert_close(terms["reconstruction"], 64 * per_pixel)
    torch.testing.assert_close(terms["loss"], per_pixel + (0.3 + 0.7) * error)
    # The values are means of the outputs near them, as in k-means: their gradient by finite counts.
    (of_values,) = torch.autograd.grad(terms["loss"], model.values, retain_graph=True)
    index = nearest_value(outputs, model.values)
    for d in range(3):
        for v in range(4):
            near = outputs[index[:, d] == v, d].detach()
            expected = 0.3 * 2 * (model.values[d, v] - near).sum() / (6 * 3)
            torch.testing.assert_close(of_values[d, v], expected)
    # The encoder gets the decoder's gradient at the codes, and that of the commitment.
    leaf = codes.clone().requires_grad_()
    (of_codes,) = torch.autograd.grad(
        F.binary_cross_entropy_with_logits(model.decode(leaf), batch.images), leaf
    )
    expected = of_codes + 0.7 * 2 * (outputs - codes) / (6 * 3)
    weight = model.encoder[-1].bias  # its gradient is the sum of the outputs' gradients
    torch.testing.assert_close(torch.autograd.grad(terms["loss"], weight)[0], expected.sum(0).detach())


def test_no_number_of_a_gradient_is_above_one():
    model = make_model(QLAE, **SETTINGS)
    terms = model.loss(make_batch([1] * 6, latents=3), STEP)
    (1e4 * terms["loss"]).backward()
    assert max(parameter.grad.abs().max() for parameter in model.parameters()) == 1
    model.zero_grad()
    (1e-3 * model.loss(make_batch([1] * 6, latents=3), STEP)["loss"]).backward()
    assert 0 < max(parameter.grad.abs().max() for parameter in model.parameters()) < 0.1


def test_the_weights_decay_apart_from_the_gradient():
    model = QLAE(IMAGE_SHAPE, network="mlp", weight_decay=0.5)
    optimiser = Adam(model.parameters(), 0.01, **model.adam)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old * (1 - 0.01 * 0.5))
