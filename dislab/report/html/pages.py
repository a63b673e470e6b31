"""Write the pages of a results folder: the leaderboard, a page for each model, the figures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from dislab import __version__
from dislab.errors import DislabError
from dislab.files import OWN_BEGINNINGS, write_own
from dislab.registry import MODELS, unknown_name
from dislab.report.html.figures import figures_page
from dislab.report.html.leaderboard import leaderboard
from dislab.report.html.model import model_page
from dislab.report.html.provenance import provenance
from dislab.report.html.rows import Table, tables_of
from dislab.report.html.words import model_name
from dislab.runs.finished import Run
from dislab.runs.record import results_of

# Whose pictures model pages show: of one run per model and dataset, or of every run.
PICTURES = ("one", "all")
HEAD = f"<!-- made by dislab {__version__} -->\n"


def write_report(
    folder: Path, out: Path, command: str = "dislab report", pictures: str = "one"
) -> tuple[list[Path], list[str]]:
    """Write the pages of a results folder, or of a folder within one.

    Each page stands alone: styles, script and pictures are inside, and it needs no network.

    Parameters
    ----------
    out : the folder of the pages; it is made if it is not there.
    command : what the pages say that they were made by.
    pictures : "one" shows those of one run per model and dataset, and pages have at most 5 MB; "all" those of
        every run.

    Returns
    -------
    The paths of the pages, the leaderboard first; and a line for each damaged record or picture, which is
    left out.

    Raises
    ------
    DislabError : there is no finished run in the folder, a file that is not dislab's stands in the way, or
        `pictures` is neither.
    RunFailed : a page cannot be written.
    """
    if pictures not in PICTURES:
        raise unknown_name("choice of pictures", pictures, PICTURES)
    results = results_of(folder)
    runs, damaged = results.runs(within=folder), results.damaged
    if not runs:
        raise DislabError(
            f"there is no finished run in '{folder}'" + "".join(f"; {line}" for line in damaged)
        )
    pages, remarks = pages_of(runs, folder, out, command, pictures)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DislabError(f"cannot make the folder '{out}': {error.strerror}") from None
    for name, text in pages.items():
        write_own(out / name, text.encode())
    _remove_old(out, pages)
    return [out / name for name in pages], damaged + remarks


def pages_of(
    runs: Iterable[Run], folder: Path, out: Path, command: str, pictures: str
) -> tuple[dict[str, str], list[str]]:
    """Return the pages of finished runs, file name -> text, and a line for each damaged picture."""
    tables = tables_of(runs)
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    models = models_of(tables)
    shared = {
        "models": models,
        "provenance": provenance(tables, folder, command),
    }
    contexts, damaged = {"leaderboard.html": leaderboard(tables, models, str(folder))}, []
    for name, (title, page) in models.items():
        about, lines = model_page(name, tables, out, pictures)
        damaged += lines
        objective = f"objectives/{name}.html" if MODELS.is_built_in(name) else ""
        about["objective"] = objective if objective in environment.list_templates() else ""
        contexts[page] = {"page": page, "title": title} | about
    contexts["figures.html"] = figures_page(tables)
    pages = {}
    for name, context in contexts.items():
        template = environment.get_template(re.sub(r"^model-.*", "model.html", name))
        pages[name] = HEAD + template.render(shared | context)
    return pages, damaged


def models_of(tables: Iterable[Table]) -> dict[str, tuple[str, str]]:
    """Return the models of all tables, sorted: name -> what pages call it, and its page."""
    names = {row.model for table in tables for row in table.rows}
    shown = {name: (model_name(name), page_of(name)) for name in names}
    return dict(sorted(shown.items(), key=lambda item: (item[1][0].lower().replace("β", "beta"), item[0])))


def page_of(model: str) -> str:
    """Return the file name of a model's page."""
    name = re.sub(r"[^\w-]", "_", model)
    return f"model-{name}.html"


def _remove_old(out: Path, pages: Iterable[str]) -> None:
    """Delete the pages of models that the report no longer has; what dislab did not write stays."""
    for path in out.glob("model-*.html"):
        if path.name not in pages and path.is_file():
            with path.open("rb") as file:
                is_own = file.read(100).startswith(OWN_BEGINNINGS)
            if is_own:
                path.unlink()
