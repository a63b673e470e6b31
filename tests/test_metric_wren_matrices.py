"""Matrices of abstract visual reasoning: by brute force, and against what published code draws."""

import numpy as np
import pytest
from wren_tables import SIZES, table_of

from dislab.scoring.matrices import (
    RELATIONS,
    Panels,
    answers_only,
    draw_matrices,
    follows_rule,
    last_row_only,
    reordered,
)
from dislab.scoring.table import CodeTable

SHAPES3D = (10, 10, 10, 8, 4, 15)


def slow_rule(rows: list, active) -> bool:
    """Whether rows of three panels follow the rule, factor by factor in words of the paper."""
    for k, is_active in enumerate(active):
        numbers = [len({panel[k] for panel in row}) for row in rows]
        if is_active and numbers != [1, 1, 1]:
            return False
        if not is_active and numbers[:2] in ([1, 1], [3, 3]):
            return False
    return True


@pytest.mark.parametrize("kind", RELATIONS)
def test_every_matrix_has_its_rule_and_one_right_answer(kind):
    panels = Panels(table_of((*SIZES, 6)))
    drawn = draw_matrices(panels, kind, 150, np.random.default_rng(0))
    way, numbers = RELATIONS[kind]
    for context, answers, label, active in zip(*drawn, strict=True):
        assert active.sum() in numbers
        seen, choices = panels.values[context].tolist(), panels.values[answers].tolist()
        assert len({*map(tuple, choices)}) == 6, "published code has answers that are the same"
        right = choices[label]
        for number, answer in enumerate(choices):
            rows = [seen[:3], seen[3:6], [*seen[6:], answer]]
            assert slow_rule(rows, active) == (number == label)
            changed = [k for k in np.flatnonzero(active) if answer[k] != right[k]]
            if way == "hard" and number != label:
                assert len(changed) == 1, "published code makes easy ones where it is asked for these"
    assert {*drawn.active.sum(axis=1)} == {*numbers} and {*drawn.label} == {*range(6)}


def test_what_follows_the_rule():
    rng = np.random.default_rng(0)
    values, active = rng.integers(0, 3, (3_000, 3, 3, 2)), rng.random((3_000, 2)) < 0.3
    values[::2, :, :, 0] = values[::2, :, :1, 0]
    expected = [slow_rule(*one) for one in zip(values.tolist(), active, strict=True)]
    assert follows_rule(values, active).tolist() == expected and 100 < sum(expected) < 2_900


def slow_matrix(sizes, number: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Values [3, 3, K] of a matrix and its first wrong answer [K], as published code draws them."""

    def solved(active):
        values = np.empty((3, 3, len(sizes)), int)
        for k, size in enumerate(sizes):
            while True:
                values[:, :, k] = rng.integers(size, size=(3, 1 if k in active else 3))
                distinct = [len(set(row)) for row in values[:2, :, k].tolist()]
                if k in active or distinct not in ([1, 1], [3, 3]):
                    break
        return values

    active = rng.choice(len(sizes), number, replace=False)
    matrix = solved(active)
    while True:
        wrong = solved(rng.choice(len(sizes), number, replace=False))[2, 2]
        if (wrong != matrix[2, 2])[active].any():
            return matrix, wrong


def test_panels_and_wrong_answers_are_as_likely_as_in_published_code():
    """Shares of equal panels in each row and factor, and of values that a wrong answer has in common."""
    rng, number = np.random.default_rng(1), 700
    panels = Panels(table_of(SIZES))
    for relations in (1, 2):
        drawn = draw_matrices(panels, f"easy{relations}", 8 * number, rng)
        right = drawn.answers[np.arange(8 * number), drawn.label]
        ours = panels.values[np.column_stack([drawn.context, right])].reshape(-1, 3, 3, 3)
        wrong = panels.values[np.where(drawn.label == 0, drawn.answers[:, 1], drawn.answers[:, 0])]
        slow = [slow_matrix(SIZES, relations, rng) for _ in range(number)]
        theirs, other = (np.array(part) for part in zip(*slow, strict=True))
        for mine, published in (
            (statistics(ours, wrong), statistics(theirs, other)),
            (ours[:, 2, 2] == 0, theirs[:, 2, 2] == 0),
        ):
            deviation = np.sqrt(mine.std(axis=0) ** 2 / len(mine) + published.std(axis=0) ** 2 / number)
            assert (np.abs(mine.mean(axis=0) - published.mean(axis=0)) < 4.5 * deviation + 1e-9).all()


def statistics(values: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Which panels of a row are equal in a factor, and where the wrong answer is as the right one."""
    equal = [values[:, :, i] == values[:, :, j] for i, j in ((0, 1), (1, 2))]
    return np.concatenate([*equal, (wrong == values[:, 2, 2])[:, None]], axis=1).reshape(len(values), -1)


def test_shapes3d_is_shown_with_the_values_of_the_published_study():
    table = table_of(SHAPES3D)
    panels = Panels(table)
    assert panels.sizes.tolist() == [10, 10, 10, 4, 4, 4] and len(panels) == 64_000 and panels.exact
    factors = table.factors[panels.rows]
    assert [sorted({*column}) for column in factors[:, 3:].T] == [[0, 2, 4, 6], [0, 1, 2, 3], [0, 3, 7, 11]]
    np.testing.assert_array_equal(panels.values[:, :3], factors[:, :3])


def test_rows_of_no_full_grid_count_as_the_next_lower_value():
    rows = np.random.default_rng(0).choice(480_000, 6_000, replace=False)
    factors = np.stack(np.unravel_index(rows, SHAPES3D), axis=1)
    panels = Panels(CodeTable(factors, factors, sizes=SHAPES3D))
    assert len(panels) == 6_000 and not panels.exact
    for value, shown in zip(factors[:, 5], panels.values[:, 5], strict=True):
        assert shown == sum(value >= other for other in (3, 7, 11))
    drawn = draw_matrices(panels, "easy3", 100, np.random.default_rng(0))
    right = drawn.answers[np.arange(100), drawn.label]
    solved = panels.values[np.column_stack([drawn.context, right])].reshape(100, 3, 3, 6)
    assert follows_rule(solved, drawn.active).all()


def test_rules_that_see_the_answers_only():
    rng = np.random.default_rng(0)
    values, label = rng.integers(0, 3, (60, 6, 4)), rng.integers(0, 6, 60)
    expected = np.zeros(2)
    for answers, right in zip(values.tolist(), label, strict=True):
        shared = [
            sum(a == b for other in answers for a, b in zip(one, other, strict=True)) for one in answers
        ]
        for number, extreme in enumerate((max(shared), min(shared))):
            expected[number] += (shared[right] == extreme) / shared.count(extreme) / 60
    assert answers_only(values, label) == pytest.approx(tuple(expected))


def test_a_rule_that_sees_the_last_row_only():
    panels = Panels(table_of((*SIZES, 6)))
    drawn, expected = draw_matrices(panels, "mixed", 80, np.random.default_rng(0)), 0
    for context, answers, label, _ in zip(*drawn, strict=True):
        one, other = panels.values[context[6:]].tolist()
        points = []
        for answer in panels.values[answers].tolist():
            agrees = [
                np.log(n) * (a == b == c) for a, b, c, n in zip(answer, one, other, (*SIZES, 6), strict=True)
            ]
            points.append(round(sum(agrees), 9))
        expected += (points[label] == max(points)) / points.count(max(points)) / 80
    assert last_row_only(panels, drawn) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["easy1", "hard3"])
def test_panels_in_another_order_follow_the_same_rule(kind):
    panels, rng = Panels(table_of((*SIZES, 6))), np.random.default_rng(0)
    drawn = draw_matrices(panels, kind, 300, rng)
    other = reordered(drawn.context, rng)
    right = drawn.answers[np.arange(300), drawn.label]
    solved = panels.values[np.column_stack([other, right])].reshape(300, 3, 3, 4)
    assert follows_rule(solved, drawn.active).all()
    numbers = np.arange(8)[None].repeat(4_000, axis=0)
    orders = {tuple(order) for order in reordered(numbers, rng).tolist()}
    assert len(orders) == 2 * 6 * 6 * 2
    for order in orders:
        rows = [{*order[:3]}, {*order[3:6]}]
        assert {*order[6:]} == {6, 7} and {0, 1, 2} in rows and {3, 4, 5} in rows


def test_hard_matrices_are_solved_without_their_context():
    panels = Panels(table_of((5, 5, 5, 4, 4, 4)))
    shares = {}
    for kind in ("easy3", "hard3"):
        drawn = draw_matrices(panels, kind, 600, np.random.default_rng(0))
        shares[kind] = max(answers_only(panels.values[drawn.answers], drawn.label))
    assert shares["hard3"] > 0.5 and shares["easy3"] < 0.25
