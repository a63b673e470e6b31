"""What a model's own file says of it: what it is, its objective, its hyper-parameters."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from dislab.registry import MODELS
from dislab.report.html.words import entry_of

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
LONGEST = 90  # characters of a meaning
PARAMETERS = re.compile(r"Parameters\n-+\n(.*?)(?=\n\n\S|\n\S+\n-+\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class About:
    """A model, in the words of its file; all is empty for a model that is not registered here."""

    title: str = ""
    reference: str = ""
    link: str = ""
    file: str = ""
    sentences: tuple[str, ...] = ()
    equations: str = ""  # lines of the file's own notation
    objective: str = ""  # the same in one line
    meanings: dict[str, str] | None = None  # of its hyper-parameters


def about_model(name: str) -> About:
    """Return what pages say of a registered model."""
    entry = entry_of(MODELS, name)
    if entry is None:
        return About()
    make = entry.make
    module = inspect.cleandoc(getattr(inspect.getmodule(make), "__doc__", None) or "")
    paragraphs = [part for part in module.split("\n\n") if part.strip()]
    plain = [" ".join(part.split()) for part in paragraphs if not part.startswith("    ")]
    equations = [textwrap.dedent(part) for part in paragraphs if part.startswith("    ")]
    found = ARXIV.search(entry.reference)
    own = inspect.cleandoc(make.__doc__ or "").split("\n\n")[0]
    return About(
        title=entry.title,
        reference=ARXIV.sub("", entry.reference).strip(" ,;").replace(", ,", ","),
        link=f"https://arxiv.org/abs/{found[1]}" if found else "",
        file=_file_of(make, name),
        sentences=tuple(re.sub(r"`([^`]*)`", r"\1", text) for text in plain[:2]),
        equations=equations[0] if equations else "",
        objective=" ".join(own.split()) if re.search(r"[+*|]", own) else "",
        meanings=_meanings(make),
    )


def _file_of(make: type, name: str) -> str:
    try:
        path = Path(inspect.getsourcefile(make) or "")
    except TypeError:
        return ""
    return f"models/{path.name}" if MODELS.is_built_in(name) else path.name


def _meanings(make: type) -> dict[str, str]:
    """Return what the class and its bases say of each hyper-parameter, up to the first full stop."""
    meanings: dict[str, str] = {}
    for base in make.__mro__:
        section = PARAMETERS.search(inspect.cleandoc(base.__doc__ or "") + "\n")
        for entry in re.split(r"\n(?=\S)", section[1]) if section else []:
            names, colon, text = entry.partition(" : ")
            if colon:
                words = re.split(r"(?<!et al)[.;:](?:\s|$)", " ".join(text.split()))[0]
                words = textwrap.shorten(words, LONGEST, placeholder=" …")
                if not words.startswith("see "):  # the base says it
                    for name in names.split(","):
                        meanings.setdefault(name.strip(), words.replace("`", ""))
    return meanings
