"""Content and style scores: against closed forms, and which rows they read."""

import os
from functools import partial
from math import erf

import numpy as np
import pytest
import torch
from metric_tables import class_table, grid

import dislab
from dislab.data.dataset import unit_images
from dislab.data.groups import Groups
from dislab.metrics import content_style, content_style_few
from dislab.registry import MODELS
from dislab.scoring import class_readout
from dislab.scoring.encoding import encode
from dislab.scoring.score import score

CONTENT_STYLE = ["content_accuracy", "content_entropy", "style_accuracy", "style_entropy"]


@pytest.fixture
def few_draws(monkeypatch):
    """Fewer draws and epochs, for tests of what is far from chance."""
    monkeypatch.setattr(content_style, "MOST_DRAWS", 2_000)
    monkeypatch.setattr(content_style, "Classifier", partial(content_style.Classifier, max_epochs=40))


def test_content_that_knows_the_class_and_style_that_does_not(few_draws):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size=6000)
    mean = np.column_stack(
        [np.eye(4)[labels] + 0.1 * rng.standard_normal((6000, 4)), rng.standard_normal((6000, 3))]
    )
    table = class_table(mean, labels, blocks={"content": slice(0, 4), "style": slice(4, 7)})
    scores = score(table, CONTENT_STYLE, num_draws=200)
    assert not scores.failed and not scores.left_out
    assert scores["content_accuracy"] > 0.99 and scores["content_accuracy_k10"] == 1
    assert scores["content_entropy"] < 0.05
    assert abs(scores["style_accuracy"] - 0.25) < 0.05
    assert scores["style_entropy"] == pytest.approx(2, abs=0.03)
    assert scores["content_accuracy_chance"] == scores["style_accuracy_chance"] == 0.25
    assert scores["content_entropy_of_class"] == scores["style_entropy_of_class"] == 2
    assert [k for k, _ in scores.details["content_accuracy_curve"]] == [1, 2, 3, 5, 10]
    assert score(table, ["style_accuracy"], num_draws=200)["style_accuracy"] == scores["style_accuracy"]
    assert score(table, CONTENT_STYLE, num_draws=200) == scores


def true_entropy(distance, std):
    """H(y | z) in bits and best accuracy for z ~ Normal(± distance / 2, std²), y a coin, by integration."""
    z = np.linspace(-10, 10, 40_001)
    densities = np.exp(-0.5 * ((z[:, None] - [distance / 2, -distance / 2]) / std) ** 2)
    shares = densities / densities.sum(axis=1, keepdims=True)
    bits = -(shares * np.log2(shares.clip(1e-300))).sum(axis=1)
    return (bits * densities.sum(axis=1)).sum() / densities.sum(), 0.5 + 0.5 * erf(
        distance / 2 / std / 2**0.5
    )


def test_entropy_is_an_upper_bound_near_the_truth():
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    mean = (labels - 0.5)[:, None] * 1.2 + rng.standard_normal((20_000, 1))
    scores = score(class_table(mean, labels, logvar=np.zeros_like(mean)), CONTENT_STYLE)
    bits, accuracy = true_entropy(1.2, 1.0)
    # A table without blocks is read as a whole for both. 20,000 draws.
    for name in ("content_entropy_calibrated", "style_entropy"):
        assert bits - 0.03 < scores[name] < bits + 0.04
    for part in ("content", "style"):
        assert scores[f"{part}_accuracy"] == pytest.approx(accuracy, abs=0.05)
    entropies, accuracies = (scores.details[f"content_{name}_curve"] for name in ("entropy", "accuracy"))
    for (k, got), (_, right) in zip(entropies, accuracies, strict=True):
        bits, accuracy = true_entropy(1.2, 1 / np.sqrt(k))
        assert got > bits - 0.05  # a bound for every k, and near where training and test agree in k
        assert right == pytest.approx(accuracy, abs=0.05)
    assert got < bits + 0.06


def test_precisions_decide_which_images_count(few_draws):
    rng = np.random.default_rng(0)
    labels = np.arange(4000) % 2
    sure = rng.random((4000, 1)) < 0.5
    mean = np.where(sure, 2.0 * labels[:, None] - 1, 8 * rng.standard_normal((4000, 1)))
    informed = score(class_table(mean, labels, logvar=np.where(sure, -4.0, 4.0)), ["content_accuracy"])
    equal = score(class_table(mean, labels), ["content_accuracy"])
    assert informed["content_accuracy_k10"] > 0.98
    assert equal["content_accuracy_k10"] < 0.8


def test_few_images_per_class(few_draws):
    labels = np.repeat([0, 3, 4], [4, 5, 9])  # class names need not be dense
    mean = np.eye(5)[labels] + 0.01
    scores = score(class_table(mean, labels), CONTENT_STYLE)
    assert not scores.failed and not scores.left_out
    assert scores["content_accuracy"] == 1 and "content_accuracy_k10" not in scores
    assert [k for k, _ in scores.details["content_entropy_curve"]] == [1, 2]
    assert scores["style_accuracy_chance"] == pytest.approx(1 / 3)
    assert np.isfinite(list(scores.values())).all()
    # A class of three rows is not read.
    others = score(class_table(mean[1:], labels[1:]), CONTENT_STYLE)
    assert others.notes() == [
        ("content_accuracy", "content_accuracy: 1 of the 3 classes have fewer than 4 rows and are not read")
    ]
    assert others == score(class_table(mean[4:], labels[4:]), CONTENT_STYLE)
    assert others["content_accuracy_chance"] == 0.5
    one = score(class_table(mean[1:8], labels[1:8]), ["style_entropy"])
    assert "at least two groups (see group_by) of at least 4 rows" in one.left_out["style_entropy"]


def test_constant_and_outlying_codes_give_finite_entropies(few_draws):
    labels = np.arange(400) % 4
    flat = score(class_table(np.full((400, 2), 1234.567), labels), CONTENT_STYLE)
    assert flat["content_accuracy"] == flat["style_accuracy"] == 0.25
    assert flat["content_entropy"] == pytest.approx(2, abs=0.01)
    spike = np.zeros((400, 2))
    spike[::37] = 1e30
    spike = score(class_table(spike, labels, logvar=np.full((400, 2), -90.0)), CONTENT_STYLE)
    assert not spike.failed and np.isfinite(list(spike.values())).all()


def test_groups_by_name(few_draws):
    factors = grid((4, 5), copies=30)
    codes = factors[:, :1] + 0.01 * np.random.default_rng(0).standard_normal((600, 1))
    known = dislab.evaluate(
        codes=codes, factors=factors, metrics=["content_accuracy"], factor_names=["a", "b"]
    )
    assert known["content_accuracy"] > 0.9
    unknown = dislab.evaluate(
        codes=codes, factors=factors, metrics=["content_accuracy"], factor_names=["a", "b"], group_by="b"
    )
    assert abs(unknown["content_accuracy"] - 0.2) < 0.06


def make_tested_table(tested_mean, untested_mean, **more):
    """Four classes of 60 rows whose codes are to train a readout, and of 40 that are to test it, mixed."""
    labels = np.tile(np.arange(4), 100)
    tested = np.arange(400) >= 240
    mean = np.where(tested[:, None], tested_mean(labels), untested_mean(labels))
    order = np.random.default_rng(0).permutation(400)
    return class_table(mean[order], labels[order], tested=tested[order], **more)


def test_readouts_are_trained_on_the_untested_rows_and_tested_on_the_tested(few_draws):
    rng = np.random.default_rng(0)

    def known(labels):
        return np.eye(4)[labels] + 0.01 * rng.standard_normal((400, 4))

    def next_class(labels):
        return known((labels + 1) % 4)

    def noise(labels):
        return rng.standard_normal((400, 4))

    names = ["content_accuracy", "style_accuracy"]
    for tested, untested, low, high in (
        (known, known, 1, 1),
        (next_class, known, 0, 0),  # a single row on the wrong side would be read right
        (known, next_class, 0, 0),
        (noise, known, 0.15, 0.35),
        (known, noise, 0.0, 0.6),  # whatever was learned of noise; what it says of four points is chance
    ):
        scores = score(make_tested_table(tested, untested), names, num_draws=80)
        for name in names:
            assert low <= scores[name] <= high, (name, scores)


def test_all_tested_rows_count_alike():
    # Of three tested rows per class one looks like the next class: a third of the draws of one image.
    labels = np.tile(np.arange(4), 23)
    tested = np.arange(92) >= 80
    looks = np.where(np.arange(92) >= 88, (labels + 1) % 4, labels)
    scores = score(
        class_table(np.eye(4)[looks], labels, tested=tested), ["content_accuracy", "style_accuracy"]
    )
    assert scores["content_accuracy"] == pytest.approx(2 / 3, abs=1e-3)
    assert scores["style_accuracy"] == pytest.approx(2 / 3, abs=1e-3)
    assert [k for k, _ in scores.details["content_accuracy_curve"]] == [1, 2, 3], "no more than are tested"


@pytest.mark.parametrize("few", ["tested", "untested"])
def test_two_rows_of_every_class_must_be_tested_and_two_untested(few):
    labels = np.arange(40) % 4
    tested = np.arange(40) < 8
    mean = np.eye(4)[labels]
    assert score(class_table(mean, labels, tested=tested), ["style_accuracy"])["style_accuracy"] == 1
    tested[0] = False  # one of class 0 is left
    scores = score(class_table(mean, labels, tested=tested == (few == "tested")), ["style_accuracy"])
    assert "style_accuracy" in scores.left_out


def test_what_a_draw_of_the_style_knows_of_the_class(few_draws):
    rng = np.random.default_rng(0)
    labels = np.arange(1200) % 4
    mean = np.eye(4)[labels] - 0.25 + 0.1 * rng.standard_normal((1200, 4))
    names = ["content_accuracy", "style_accuracy", "style_entropy"]
    # Means at a millionth of the prior's scale with its variance: nothing that a decoder could see.
    hidden = score(
        class_table(1e-6 * mean, labels, logvar=np.zeros((1200, 4))), ["style_accuracy"], num_draws=200
    )
    assert hidden["style_accuracy"] > 0.95
    assert abs(hidden["style_accuracy_sampled"] - 0.25) < 0.04
    sure = score(class_table(mean, labels, logvar=np.full((1200, 4), -20.0)), names, num_draws=200)
    assert sure["style_accuracy"] > 0.95
    for name in ("style_accuracy", "style_entropy"):
        assert sure[f"{name}_sampled"] == pytest.approx(sure[name], abs=0.02)
    assert "content_accuracy_sampled" not in sure
    plain = score(class_table(mean, labels), names, num_draws=200)
    assert "style_accuracy" in plain
    assert not any(name.endswith("_sampled") for name in plain)


def test_a_draw_of_the_style_has_the_posterior_as_its_noise():
    # Two classes at ±0.6 whose posteriors have a standard deviation of 1: the accuracy of such a draw.
    labels = np.arange(8000) % 2
    mean = 1.2 * (labels - 0.5)[:, None]
    scores = score(class_table(mean, labels, logvar=np.zeros_like(mean)), ["style_accuracy", "style_entropy"])
    bits, accuracy = true_entropy(1.2, 1.0)
    assert scores["style_accuracy"] == 1
    assert scores["style_accuracy_sampled"] == pytest.approx(accuracy, abs=0.03)
    assert scores["style_entropy_sampled"] == pytest.approx(bits, abs=0.04)


def test_nothing_is_joined_at_k_of_one():
    # Each of two code dimensions says one bit of the class: a mean of k has its standard deviation over √k.
    rng = np.random.default_rng(0)
    labels = np.arange(8000) % 4
    bits = np.column_stack([labels % 2, labels // 2])
    mean = 0.8 * (bits - 0.5) + rng.standard_normal((8000, 2))
    scores = score(class_table(mean, labels), ["content_accuracy", "style_accuracy"])

    def best(k):  # Bayes: both bits by their sign
        return (0.5 + 0.5 * erf(0.4 * k**0.5 / 2**0.5)) ** 2

    assert best(10) - best(1) > 0.35
    for name in ("content_accuracy", "style_accuracy"):
        assert scores[name] == pytest.approx(best(1), abs=0.04)
    assert scores["content_accuracy_k10"] == pytest.approx(best(10), abs=0.05)
    assert scores.details["content_accuracy_curve"][0] == [1, scores["content_accuracy"]]


@pytest.mark.parametrize("name", ["mlvae", "mlvae_svi"])
def test_an_image_is_encoded_alone_at_test_time(name, tiny_dataset):
    """Whatever other images stand beside it, in whatever order, and whatever the classes are."""
    torch.manual_seed(0)
    model = MODELS[name].make(tiny_dataset.image_shape, content=3, style=2, network="mlp").eval()

    def codes(rows, group_by="shape"):
        return encode(model.encode, tiny_dataset, np.asarray(rows), group_by=[[group_by]])

    rng = np.random.default_rng(0)
    everything = codes(np.arange(60))
    order = rng.permutation(60)
    selections = [order, order[:7], [59], np.repeat([4, 31], 5), np.arange(15)]  # the last: all of one class
    for rows in selections:
        for group_by in ("shape", "position"):
            found = codes(rows, group_by)
            np.testing.assert_allclose(found.mean, everything.mean[rows], atol=2e-3)
            np.testing.assert_allclose(found.logvar, everything.logvar[rows], atol=2e-3)
    # What grouping would do is far more than that.
    groups = Groups(torch.from_numpy(everything.labels[:, 0]), torch.arange(0, 60, 15))
    with torch.inference_mode():
        joined, _ = model.encode_groups(unit_images(tiny_dataset.images(np.arange(60))), (groups,))
    assert np.abs(joined.numpy() - everything.mean)[:, :3].max() > 0.05


@pytest.mark.skipif("DISLAB_DATA" not in os.environ, reason="DISLAB_DATA is not set: no real MNIST files")
def test_readouts_of_mnist_are_tested_on_the_official_test_images():
    dataset = dislab.load_dataset("mnist")
    rows = dataset.evaluation_rows()
    np.testing.assert_array_equal(rows, np.arange(50_000, 70_000))
    np.testing.assert_array_equal(dataset.is_test(rows), rows >= 60_000)
    few = np.array([69_999, 50_000, 60_000, 59_999])
    table = encode(lambda images: images.flatten(1)[:, :2], dataset, few)
    assert table.tested.tolist() == [True, False, True, False]
    other = dataset.with_held_out(np.arange(100), "the first 100")
    assert other.is_test(rows) is None
    assert encode(lambda images: images.flatten(1)[:, :2], other, few).tested is None
    assert dataset.is_test(rows) is not None, "the dataset itself is as it was"


FEW = ["content_accuracy_few", "style_accuracy_few"]


def test_few_images_tell_a_content_that_is_the_class_and_no_style_that_is_noise():
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 4
    mean = np.column_stack([np.eye(4)[labels], rng.standard_normal((2000, 3))])
    blocks = {"content": slice(0, 4), "style": slice(4, 7)}
    swapped = {"style": slice(0, 4), "content": slice(4, 7)}
    logvar = np.full((2000, 7), -8.0)
    for named, content, style in ((blocks, 1, 0.25), (swapped, 0.25, 1)):
        scores = score(class_table(mean, labels, blocks=named, logvar=logvar), FEW)
        for name in ("content_accuracy_few", "content_accuracy_few_k10", "content_accuracy_few_sampled"):
            assert scores[name] == pytest.approx(content, abs=0.05)
        for name in ("style_accuracy_few", "style_accuracy_few_sampled"):
            assert scores[name] == pytest.approx(style, abs=0.05)
        assert scores["content_accuracy_few_chance"] == scores["style_accuracy_few_chance"] == 0.25
        assert [k for k, _ in scores.details["content_accuracy_few_curve"]] == [1, 2, 3, 5, 10]
        assert "style_accuracy_few_k10" not in scores
    assert not any("sampled" in name for name in score(class_table(mean, labels), FEW))


def test_a_classifier_of_few_images_sees_ten_of_each_class_and_none_that_are_tested(monkeypatch):
    """Codes are the rows' numbers, and a draw of no variance is the mean."""
    labels = np.repeat([0, 1], 40)
    tested = np.arange(80) % 2 == 0
    table = class_table(np.arange(80.0)[:, None], labels, tested=tested, logvar=np.full((80, 1), -90.0))
    seen, fit = [], content_style_few.logistic_regression

    def spied(inputs, classes):
        seen.append(np.bincount(classes))
        return fit(inputs, classes)

    means, product = [], content_style_few.product_of_normals

    def joined(mean, logvar, rows, rng):
        means.append((rows, rng is not None))
        return product(mean, logvar, rows, rng)

    monkeypatch.setattr(content_style_few, "logistic_regression", spied)
    monkeypatch.setattr(content_style_few, "product_of_normals", joined)
    assert score(table, ["content_accuracy_few"], num_choices=2)["content_accuracy_few_sampled"] > 0.9
    assert [[*counts] for counts in seen] == [[50, 50]] * 4
    trained = means[::6]  # then five tests, k = 1, 2, 3, 5, 10
    assert [drawn for _, drawn in trained] == [False, False, True, True]
    for rows, _ in trained:
        assert rows.shape[1] == 10 and not tested[rows].any()
        assert all(len(np.unique(rows[labels[rows[:, 0]] == one])) == 10 for one in (0, 1))
    assert not np.array_equal(np.sort(trained[0][0]), np.sort(trained[1][0])), "another choice"
    assert all(tested[rows].all() for part in (1, 5) for rows, _ in means[part::6])
    means.clear(), seen.clear()
    score(table, ["style_accuracy_few"], num_choices=2)
    assert [[*counts] for counts in seen] == [[50, 50]] * 4
    assert all(rows.shape[1] == 1 for rows, _ in means), "style is never joined"


def test_of_many_classes_some_are_read(monkeypatch, few_draws):
    monkeypatch.setattr(class_readout, "MOST_CLASSES", 5)
    labels = np.arange(400) % 20
    table = class_table(np.eye(20)[labels], labels)
    names = ["content_accuracy", *FEW]
    scores = score(table, names)
    for name in names:
        assert scores[name] == 1 and scores[f"{name}_chance"] == 1 / 5
        assert scores.metrics[name]["notes"] == ["5 of the 20 classes are read, drawn at random"]
