"""What the site needs beyond MkDocs: files from outside docs/, and this code's kind of docstrings."""

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {"index.md": "README.md", "CHANGELOG.md": "CHANGELOG.md"}  # of the site, from files of the repository
LINK = re.compile(r"(\[[^\]]*\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
SECTION = re.compile(r"^(Parameters|Attributes|Returns|Raises|Warns)\n-+\n", re.M)
NAME = re.compile(r"^\w+$", re.M)
ITEM = re.compile(r"^(\S[^\n:]*?) : (.*(?:\n+    .*)*)$", re.M)


def on_files(files, config):
    """Add the README and the changes as pages, and every file of the repository that a page links to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for page in files.documentation_pages():
        for _, target, _ in LINK.findall(page.content_string):
            path = in_repository(page.src_uri, target)
            is_known = path.startswith("docs/") or path in PAGES.values() or path in files.src_uris
            if (ROOT / path).is_file() and not is_known:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, **_):
    """Make links fit the site. A link to a folder, which a site cannot show, becomes its text."""

    def on_site(link):
        text, target, anchor = link[1], link[2], link[3] or ""
        path = in_repository(page.file.src_uri, target)
        if (ROOT / path).is_dir():
            return text[1:-1]
        named = {source: page for page, source in PAGES.items()}
        uri = named.get(path, path.removeprefix("docs/"))
        return f"{text}({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(on_site, markdown)


def in_repository(page: str, target: str) -> str:
    """Return the path in the repository of what a page of the site links to."""
    source = PAGES.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


class Sections(griffe.Extension):
    """Read "name : meaning" in a section as a name and its description; types are those of the signature."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            head, *parts = SECTION.split(obj.docstring.value)
            for title, text in zip(parts[::2], parts[1::2], strict=True):
                text = ITEM.sub(each_alone, text)
                if title == "Parameters" and obj.is_function:
                    text = more_apart(text, {one.name for one in obj.parameters})
                head += underlined(title) + text
            obj.docstring.value = head


def each_alone(item: re.Match) -> str:
    """Write "a, b : meaning" as two items, because each has a type and a default of its own."""
    return "\n".join(f"{name}\n    {item[2]}" for name in item[1].split(", "))


def more_apart(text: str, named: set[str]) -> str:
    """Give what `**settings` takes a section of its own: the signature names neither it nor a default."""
    first = next((name for name in NAME.finditer(text) if name[0] not in named), None)
    if first is None:
        return text
    return f"{text[: first.start()]}\n{underlined('Other Parameters')}{text[first.start() :]}"


def underlined(title: str) -> str:
    return f"{title}\n{'-' * len(title)}\n"
