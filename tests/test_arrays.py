"""What arrays of a user's are taken as codes and factors, and which are refused in one line."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_line
from scipy.sparse import csr_array

import dislab
from dislab.errors import DislabError, DislabWarning
from dislab.scoring.table import CodeTable


def with_value(value: float) -> np.ndarray:
    codes = np.zeros((5, 3))
    codes[4, 1] = value
    return codes


FACTORS = np.zeros((5, 2), int)
HIDDEN = np.ma.masked_greater(with_value(999), 9)


@pytest.mark.parametrize(
    ("codes", "factors", "given", "message"),
    [
        (np.zeros(5), FACTORS, {}, "codes must be an array of numbers [N, D], not float64 [5]"),
        (np.zeros((5, 3, 1)), FACTORS, {}, "not float64 [5, 3, 1]"),
        (np.zeros((5, 0)), FACTORS, {}, "not float64 [5, 0]"),
        (np.zeros((0, 3)), FACTORS[:0], {}, "not float64 [0, 3]"),
        (np.full((5, 3), "a"), FACTORS, {}, "codes must be an array of numbers"),
        (np.zeros((5, 3), complex), FACTORS, {}, "codes must be an array of numbers"),
        (with_value(np.nan), FACTORS, {}, "codes must be finite: dimension 1 is nan in row 4"),
        (with_value(-np.inf), FACTORS, {}, "codes must be finite: dimension 1 is -inf in row 4"),
        (np.zeros((4, 3)), FACTORS, {}, "codes have 4 rows but factors have 5"),
        (np.zeros((5, 3)), FACTORS, {"logvar": np.zeros((5, 2))}, "logvar is [5, 2] but codes are [5, 3]"),
        (np.zeros((5, 3)), FACTORS, {"logvar": with_value(np.inf)}, "logvar must be finite"),
        (np.zeros((5, 3)), FACTORS, {"names": ("a",)}, "1 factor names for 2 columns of factors"),
        (np.zeros((5, 3)), FACTORS + 0.5, {}, "factors must be whole numbers 0, 1, 2, …"),
        (np.zeros((5, 3)), FACTORS + np.nan, {}, "factors must be whole numbers"),
        (
            np.zeros((5, 3)),
            np.full((5, 2), "a"),
            {},
            "but 'a' is in row 0, column 0: number a factor's",
        ),
        (np.zeros((5, 3)), [["1", 2]] * 5, {}, "by np.unique(factors[:, k], return_inverse=True)[1]"),
        (np.zeros((5, 3)), np.array([["red", 2]] * 5, object), {}, "but 'red' is in row 0, column 0"),
        (np.zeros((5, 3)), list("abcab"), {}, "by np.unique(factors, return_inverse=True)[1]"),
        (np.zeros((5, 3)), FACTORS - [0, 1], {}, "but -1 is in row 0, column 1"),
        (np.zeros((5, 3)), 10**9 + FACTORS, {}, "but 1000000000 is in row 0, column 0: number"),
        (np.zeros((5, 3)), np.array([[0, None]] * 5), {}, "factors must be numbers, but hold None"),
        (np.zeros((5, 3)), np.zeros((5, 2, 1), int), {}, "factors must be whole numbers [N, K], not int64"),
        (np.zeros((5, 3)), np.zeros((5, 0), int), {}, "factors must be whole numbers [N, K], not int64"),
        (np.zeros((5, 3)), [[0, 1]] * 4 + [[0]], {}, "factors cannot be read as one array: "),
        (None, FACTORS, {}, "codes must be numbers, but hold None"),
        (np.array([["a", 1]] * 5, object), FACTORS, {}, "codes must be an array of numbers [N, D], not <U"),
        (HIDDEN, FACTORS, {}, "codes must be numbers, but some are masked"),
        (list(HIDDEN), FACTORS, {}, "codes must be numbers, but some are masked"),
        (np.zeros((5, 3)), FACTORS, {"logvar": HIDDEN}, "logvar must be numbers, but some are masked"),
        (np.zeros((5, 3)), HIDDEN.astype(int), {}, "factors must be numbers, but some are masked"),
        (torch.zeros(5, 3, device="meta"), FACTORS, {}, "codes cannot be read as one array: "),
    ],
)
def test_wrong_arrays_are_one_clear_line(codes, factors, given, message):
    with pytest.raises(DislabError) as error:
        CodeTable(codes, factors, **given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


CODES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "codes",
    [
        CODES.tolist(),
        CODES.astype(object),
        CODES.astype(np.float64),
        np.asfortranarray(CODES),
        np.ma.masked_array(CODES),  # with nothing masked
        pd.DataFrame(CODES),
        pd.DataFrame(CODES).astype("Float64"),
        pd.Series(list(CODES)),
        csr_array(CODES),
        torch.tensor(CODES, requires_grad=True),
        torch.tensor(CODES).to_sparse(),
        list(torch.tensor(CODES)),
    ],
)
def test_codes_of_many_types_are_the_same_codes(codes):
    table = CodeTable(codes, FACTORS, logvar=codes)
    for array in (table.mean, table.logvar):
        assert array.dtype == np.float32 and array.flags.c_contiguous
        assert np.array_equal(array, CODES)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_tensors_of_low_precision(kind):
    codes = torch.tensor(CODES).to(kind).requires_grad_()
    table = CodeTable(codes, torch.tensor([0, 1, 2, 3, 256]).to(kind), logvar=codes)
    assert np.array_equal(table.mean, codes.detach().float())
    assert np.array_equal(table.logvar, codes.detach().float())
    assert table.factors[:, 0].tolist() == [0, 1, 2, 3, 256]


@pytest.mark.parametrize(
    "factors",
    [
        np.array([[0, 2]] * 5, object),
        np.array([[np.int8(0), 2.0]] * 5, object),
        pd.DataFrame([[0, 2]] * 5).astype("Int64"),
        pd.DataFrame([[False, 2]] * 5),
        torch.tensor([[0, 2]] * 5).double(),
    ],
)
def test_factors_are_whole_numbers_of_any_type(factors):
    table = CodeTable(CODES, factors)
    assert table.factors.dtype == np.int64
    assert table.factors.tolist() == [[0, 2]] * 5


# What float32 cannot hold

FINE = np.random.default_rng(0).integers(0, 5, size=(2000, 3))


@pytest.mark.parametrize(
    ("codes", "dimension"),
    [
        (FINE + 1e8 * np.eye(3)[1], 1),
        (FINE.astype(np.int64) + 10**8 * np.eye(3, dtype=int)[2], 2),
        (FINE.astype(np.int32) + np.int32(2**31 - 9), 0),
        (FINE.astype(np.int64) + 2**60, 0),  # which float64 cannot hold either
        (FINE.astype(np.uint64) + np.uint64(2**63), 0),
        (FINE / 3 + 1e5, 0),
        (FINE * 1e39, 0),
        (FINE * 1e-50, 0),
        (1e39 + 0 * FINE, 0),
        (1 / 3 + 1e-9 * FINE, 0),
    ],
)
def test_codes_that_float32_would_change_are_refused_with_the_remedy(codes, dimension):
    with pytest.raises(DislabError, match=f"too coarse here: dimension {dimension} goes from") as error:
        CodeTable(codes, FINE)
    remedy = one_line(error).split("pass ")[1]
    if np.ptp(codes.astype(np.float64), axis=0).all():
        mean = CodeTable(eval(remedy, {"codes": codes.astype(np.float64)}), FINE).mean
        expected = (FINE - FINE.mean(axis=0)) / FINE.std(axis=0)
        np.testing.assert_allclose((mean / mean.std(axis=0)), expected, atol=1e-3)


@pytest.mark.parametrize(
    "codes",
    [
        FINE + 1e6,  # whole numbers below 2**24 are exact
        FINE.astype(np.int64) + 2**23,
        FINE / 3 + 100.0,
        np.float64(np.float32(FINE / 3 + 1e5)),  # rounded before
        1234.567 + 0.0 * FINE,  # constant
        1 / 3 + 1e-13 * FINE,  # constant up to the last digits of float64
        FINE * 1e-30,
        FINE * 1e30,
    ],
)
def test_codes_that_float32_holds_are_taken(codes):
    np.testing.assert_allclose(CodeTable(codes, FINE).mean, codes, rtol=1e-7)


def test_codes_that_float32_rounds_a_little_are_taken_with_a_remark():
    with pytest.warns(DislabWarning, match=r"float32, which is coarse here: dimension 0 goes from 10000 to"):
        CodeTable(FINE / 3 + 1e4, FINE)


def test_the_remedy_brings_the_scores_back():
    """Codes far from 0 have the scores of the same codes near 0 once they are centred in float64."""
    near, far = FINE - FINE.mean(axis=0), FINE + 1e8
    scores = [
        dislab.evaluate(codes=codes, factors=FINE, metrics=["mig", "sap"])
        for codes in (near, far - far.mean(axis=0))
    ]
    assert scores[0]["mig"] > 0.9 and scores[0]["sap"] > 0.2
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_log_variances_may_differ_by_little_but_not_lie_far_away():
    table = CodeTable(FINE, FINE, logvar=-5.3 + 1e-9 * FINE)
    assert np.array_equal(table.logvar, np.full(FINE.shape, np.float32(-5.3)))
    assert CodeTable(FINE, FINE, logvar=np.full(FINE.shape, -1e4)).logvar.max() == -1e4
    with pytest.raises(DislabError, match="logvar must be log-variances, but dimension 0 goes from 1000000"):
        CodeTable(FINE, FINE, logvar=FINE + 0.5 + 1e8)
