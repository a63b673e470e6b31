"""Tables of whole grids, for the tests of abstract visual reasoning."""

from metric_tables import grid

from dislab.scoring.table import CodeTable

SIZES = (3, 4, 5)


def table_of(sizes, **changes) -> CodeTable:
    """The factors of the full grid of these sizes as their own codes."""
    factors = grid(sizes)
    return CodeTable(factors, factors, **({"sizes": sizes, "full_grid": True} | changes))
