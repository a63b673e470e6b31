"""Models that take no training: the oracle, the untrained encoder and principal components."""

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE, SIZES, make_tiny_dataset
from torch.utils._python_dispatch import TorchDispatchMode

import dislab
from dislab.data.dataset import Dataset, unit_images
from dislab.data.space import FactorSpace
from dislab.models.oracle import Oracle
from dislab.models.pca import PCA
from dislab.models.vae import VAE
from dislab.training.precision import arithmetic


def noise_dataset() -> Dataset:
    """Sixty images of noise, whose principal components are all different."""
    images = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    space = FactorSpace(("image",), (60,))
    return Dataset("noise", "own", space, (1, 8, 8), lambda rows: images[rows], ["image"])


def fitted_pca(dataset: Dataset, **parameters) -> PCA:
    model = PCA(dataset.image_shape, **parameters)
    model.fit(dataset, dataset.train_rows(), torch.Generator().manual_seed(0))
    return model


def test_pca_is_the_singular_value_decomposition():
    dataset = noise_dataset()
    images = unit_images(dataset.images(np.arange(60)))
    flat = images.flatten(1).double().numpy()
    left, _, right = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    model = fitted_pca(dataset, latents=4)
    codes = model.encode(images).numpy()
    expected = left[:, :4] * np.sqrt(len(flat) - 1)
    np.testing.assert_allclose(codes, expected * np.sign((codes * expected).sum(0)), atol=1e-3)
    # The image of a code is the projection on the components.
    projected = flat.mean(0) + (flat - flat.mean(0)) @ right[:4].T @ right[:4]
    drawn = model.mean_image(torch.from_numpy(codes)).flatten(1).numpy()
    np.testing.assert_allclose(drawn, projected.clip(0, 1), atol=1e-4)


def test_pca_never_multiplies_in_tf32():
    model = fitted_pca(make_tiny_dataset())
    seen = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                seen.append(torch.get_float32_matmul_precision())
            return function(*args, **(kwargs or {}))

    with arithmetic(torch.device("cuda"), "tf32"), Seen():
        model.encode(torch.rand(3, *IMAGE_SHAPE))
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert seen == ["highest", "high"]


def test_pca_with_more_components_than_images():
    dataset = noise_dataset()
    codes = fitted_pca(dataset, latents=100).encode(unit_images(dataset.images(np.arange(60))))
    assert codes.shape == (60, 100) and torch.isfinite(codes).all()


def test_the_oracle_knows_the_factors():
    dataset = make_tiny_dataset()
    rows = np.array([0, 7, 59])
    codes = Oracle(dataset.image_shape).encode_rows(dataset, rows)
    expected = np.stack(np.unravel_index(rows, SIZES), axis=1) / (np.array(SIZES) - 1)
    np.testing.assert_allclose(codes, expected, atol=1e-7)


@pytest.mark.parametrize("model", ["oracle", "untrained", "pca"])
def test_runs_need_no_steps_and_can_be_read_back(model, tmp_path):
    dataset = make_tiny_dataset()
    run = dislab.run(model, dataset, steps=500, seed=3, out=tmp_path, metrics=["mig", "factorvae_score"])
    assert run.config.protocol.steps == 0 and run.record["timings"]["train_images_per_second"] is None
    codes = run.codes.mean
    again = dislab.run(model, dataset, seed=3, out=tmp_path / "again", metrics=["mig"])
    assert np.array_equal(again.codes.mean, codes) and again.scores["mig"] == run.scores["mig"]
    images = unit_images(dataset.images(np.arange(60)))
    if model == "oracle":
        assert run.scores["factorvae_score"] == 1
    else:
        with torch.inference_mode():
            encoded = run.model.encode(images)
        encoded = encoded[0] if isinstance(encoded, tuple) else encoded
        np.testing.assert_allclose(encoded.numpy(), codes, atol=1e-5)
        assert (run.path / "traversals.png").is_file()


def test_the_untrained_encoder_is_the_vae_before_its_first_step(tmp_path):
    dataset = make_tiny_dataset()
    untrained = dislab.run("untrained", dataset, seed=5, out=tmp_path, metrics=["mig"])
    vae = dislab.run("vae", dataset, steps=0, seed=5, out=tmp_path, metrics=["mig"])
    assert np.array_equal(untrained.codes.mean, vae.codes.mean)
    assert np.array_equal(untrained.codes.reconstruction, vae.codes.reconstruction)


def test_reconstruction_errors_are_those_of_the_decoder(tmp_path):
    dataset = make_tiny_dataset()
    run = dislab.run("vae", dataset, steps=5, batch_size=8, out=tmp_path, metrics=["mig"], network="mlp")
    assert run.codes.reconstruction.shape == (60,) and run.codes.reconstruction.dtype == np.float32
    model: VAE = run.model
    images = unit_images(dataset.images(np.arange(60)))
    with torch.inference_mode():
        at_mean = model.reconstruction(images, torch.zeros(60, model.latents)).mean().item()
    # One draw of the noise around the mean: the sums over all images differ by little so early in training.
    assert run.codes.reconstruction.mean() == pytest.approx(at_mean, rel=0.05)
