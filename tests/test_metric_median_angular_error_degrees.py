"""The viewpoint error: rotations against the projection of PASCAL3D+, and codes whose error is known."""

from math import acos, cos, degrees, pi, radians, sin

import numpy as np
import pytest

from dislab.data.space import Circle
from dislab.metrics.median_angular_error_degrees import rotation_between
from dislab.scoring import readouts
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

NAME = "median_angular_error_degrees"


def camera(azimuth: float, elevation: float, theta: float) -> np.ndarray:
    """The rotation of the dataset's own projection: a model is turned, tilted, and turned in the image."""
    a, e, t = -radians(azimuth), -(pi / 2 - radians(elevation)), radians(theta)
    turn = np.array([[cos(a), -sin(a), 0], [sin(a), cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, cos(e), -sin(e)], [0, sin(e), cos(e)]])
    in_plane = np.array([[cos(t), -sin(t), 0], [sin(t), cos(t), 0], [0, 0, 1]])
    return in_plane @ tilt @ turn


def test_the_angle_between_viewpoints_is_that_of_the_rotation_between_cameras():
    rng = np.random.default_rng(0)
    one, other = (rng.uniform([0, -90, -180], [360, 90, 180], (50, 3)) for _ in range(2))
    expected = [
        degrees(acos((np.trace(camera(*a) @ camera(*b).T) - 1) / 2)) for a, b in zip(one, other, strict=True)
    ]
    assert rotation_between(one, other) == pytest.approx(expected, abs=1e-6)


def test_angles_between_viewpoints_that_are_known():
    level = np.array([[10.0, 0, 0]])
    for other, angle in (([50, 0, 0], 40), ([10, 25, 0], 25), ([10, 0, -15], 15), ([190, 0, 0], 180)):
        assert rotation_between(level, np.array([other])) == pytest.approx(angle)
    # Seen from above, a turn of the camera is one of the image: the two cancel if they have these signs.
    assert rotation_between(np.array([[0.0, 90, 0]]), np.array([[30.0, 90, 30]])) == pytest.approx(
        0, abs=1e-5
    )
    assert rotation_between(np.array([[0.0, 90, 0]]), np.array([[30.0, 90, -30]])) == pytest.approx(60)


@pytest.fixture
def factors(monkeypatch) -> np.ndarray:
    monkeypatch.setattr(readouts, "HIDDEN", (32,))
    monkeypatch.setattr(readouts, "UPDATES", 300)
    return np.random.default_rng(0).integers([0, 80, 0, 0], [360, 121, 21, 3], size=(600, 4))


def scored(codes: np.ndarray, factors: np.ndarray, **options):
    names, sizes = ("azimuth", "elevation", "theta", "cad_index"), (360, 181, 360, 3)
    table = CodeTable(codes, factors, names=names, sizes=sizes, circle=Circle("azimuth", 360), **options)
    scores = score(table, [NAME])
    assert not scores.failed
    return scores


def test_codes_of_all_of_some_and_of_no_angles(factors):
    azimuth, noise = np.radians(factors[:, :1]), np.random.default_rng(1).standard_normal((600, 3))
    turned = np.hstack([np.sin(azimuth), np.cos(azimuth)])
    all_angles = scored(np.hstack([turned, factors[:, 1:3] / 10]), factors)
    assert all_angles[NAME] < 6 and all_angles[f"{NAME}_accuracy_30"] > 0.97
    assert all_angles[f"{NAME}_test_rows"] == 120
    # The elevations -10 to 30 and theta 0 to 20 are read as their means: 10 and 5 degrees off, if halfway.
    half = scored(turned, factors)
    assert half[f"{NAME}_azimuth"] < 6 < half[f"{NAME}_in_line"] < half[NAME] < 20
    for codes in (noise, np.full((600, 2), 0.3)):
        none = scored(codes, factors)
        assert 65 < none[NAME] < 120 and 65 < none[f"{NAME}_azimuth"] < 115
        assert none[f"{NAME}_accuracy_15"] < 0.2


def test_units_of_the_codes_do_not_matter_and_the_tested_rows_are_the_dataset_s(factors):
    azimuth = np.radians(factors[:, :1])
    codes = np.hstack([np.sin(azimuth), np.cos(azimuth)])
    tested = np.arange(600) >= 500
    codes[tested] *= -1  # all tested images are seen from the other side
    wrong = scored(codes, factors, tested=tested)
    assert wrong[f"{NAME}_azimuth"] > 170 and wrong[f"{NAME}_test_rows"] == 100
    assert wrong == scored(codes * 8, factors, tested=tested)


def test_a_table_without_viewpoints_is_left_out():
    factors = np.arange(60)[:, None] % 24
    table = CodeTable(np.ones((60, 2)), factors, names=("azimuth",), circle=Circle("azimuth", 24))
    assert table.viewpoint is None
    assert "azimuth and elevation in whole degrees" in score(table, [NAME]).left_out[NAME]
