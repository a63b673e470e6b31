"""The command line's `dislab data list`, `fetch`, `verify` and `show`: official dataset files and a picture.

What needs torch or matplotlib is imported inside `show`; the others answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import DataDir, Factors, Plugin, Source, a_path, load_plugins
from dislab.cli.tables import print_table
from dislab.errors import DislabError, RunFailed

app = typer.Typer(
    name="data",
    help="Official dataset files, and pictures of datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_command(data_dir: DataDir = None) -> None:
    """List the datasets and their official files.

    Shows which files are there, what is used without them, and how large a download is. Nothing is read or
    downloaded; `dislab data verify` checks the files.
    """
    from dislab.data import official as files

    folder = files.data_folder(data_dir)
    print(f"data folder: {folder} (another: --data-dir or $DISLAB_DATA)")
    lines = [("dataset", "official files", "used by default", "download", "licence", "drawn twin")]
    pages, found = [], []
    for dataset in files.published().values():
        paths = [files.locate(dataset, file, data_dir) for file in dataset.files]
        state = _state(dataset, paths)
        if None not in paths:
            used = "official files"
        else:
            can_draw = files.is_complete(dataset.name, "auto", data_dir)
            used = "embedded drawing" if can_draw else "nothing: fetch it"
        twin = "yes" if dataset.is_drawn else "no"
        size = files.readable(dataset.size)
        lines.append((dataset.name, state, used, size, dataset.licence, twin))
        pages.append(f"{dataset.name}: {dataset.page}")
        found += [f"{dataset.name}: {path}" for path in paths if path is not None]
    print_table(lines)
    # Below the table, where long lines are not cut off to a narrow terminal.
    print("\n".join(["", "published at", *pages]))
    if found:
        print("\n".join(["", "found", *found]))


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset, see `dislab data list`.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there but has the wrong hash.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Download the official files of a dataset.

    A file is kept only if it is whole and its hash is right. The same command resumes an interrupted
    download; files that are there already are not downloaded again.

    The published hashes of MPI3D are those of its earlier host. A file with another hash is kept if it is
    whole by the checksum that it contains, and both hashes are shown.
    """
    from dislab.data.download import fetch

    fetch(name, data_dir, force)


@app.command("verify")
def verify_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A dataset; all of them by default.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check the official files by their hashes.

    Those that are there are held against the published hashes; the exit code is 1 if any is wrong. A file
    that holds the published content in another wrapper (MNIST compressed anew) is right. Of several copies
    of a file all are checked, and the first decides: it is the one that is read.
    """
    from dislab.data import official as files

    wrong = 0
    for dataset in files.published().values() if name is None else [files.official(name)]:
        for file in dataset.files:
            path = files.locate(dataset, file, data_dir)
            if path is None:
                print(f"{dataset.name}: {file.name}: not present")
                continue
            for copy in [path] if path.is_dir() else files.copies(dataset, file, data_dir):
                verdict = files.keep(copy, file, files.check(copy, file))
                wrong += copy == path and not verdict.is_right
                not_read = "" if copy == path else f" (a copy that is not read: '{path}' is)"
                print(f"{dataset.name}: {copy}: {verdict.text}{not_read}", flush=True)
    if wrong:
        raise RunFailed(f"{wrong} {'file is' if wrong == 1 else 'files are'} wrong")


@app.command("show")
def show_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A dataset, see `dislab list datasets`; or a folder.")
    ],
    factors: Factors = None,
    source: Source = "auto",
    out: Annotated[
        Path | None,
        typer.Option(parser=a_path, metavar="FILE.png", help="The picture; by default NAME-SOURCE.png."),
    ] = None,
    data_dir: DataDir = None,
    plugin: Plugin = None,
) -> None:
    """Draw what each factor of a dataset does.

    One row per factor, one image per value of it, with the other factors at a middle value. If the images
    are no grid of factors, as in MNIST, a row shows images of one value.
    """
    # Both are checked before a dataset is drawn or decoded, which can take minutes the first time.
    if out is not None and out.suffix.lower() != ".png":
        raise DislabError(f"--out is '{out}': the picture is a .png file")
    if out is not None and not out.parent.is_dir():
        raise DislabError(f"--out is '{out}': the folder '{out.parent}' does not exist")
    load_plugins(plugin)
    from dislab.data.load import load_dataset
    from dislab.files import save_figure
    from dislab.report.dataset_picture import factor_picture

    dataset = load_dataset(name, factors=factors, source=source, data_dir=data_dir)
    path = out or Path(f"{dataset.name}-{dataset.source}.png")
    save_figure(factor_picture(dataset), path)
    print(path)


def _state(dataset, paths: list[Path | None]) -> str:
    """Return in a word what is there of a dataset. Sizes are compared here, hashes by `verify`."""
    there = [(file, path) for file, path in zip(dataset.files, paths, strict=True) if path is not None]
    for file, path in there:
        fixed = file.exact_size and not file.content and path.is_file()
        if fixed and path.stat().st_size != file.size:
            return "wrong size"
    if len(paths) > 1 and 0 < len(there) < len(paths):
        return f"{len(there)} of {len(paths)} present"
    if not there:
        return "not present"
    return "unpacked" if there[0][1].is_dir() else "present"
