"""The pages of `dislab report`: what they say, that each stands alone, and which files are written."""

import base64
import io
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from conftest import one_line
from made_records import REFERENCE, TEMPLATES, made, picture, with_files, written
from PIL import Image
from scipy import stats

from dislab.cli import main
from dislab.errors import DislabError
from dislab.report.html.chart import Scale
from dislab.report.html.pages import write_report
from dislab.report.html.provenance import repeat
from dislab.report.html.rows import tables_of
from dislab.report.html.words import number
from dislab.runs.finished import Run
from dislab.runs.machine import Machine
from dislab.runs.resolve import resolve

VOID = {"meta", "link", "input", "img", "br"}
MOST_BYTES = 5_000_000


class Page(HTMLParser):
    """A page: its rows of cells as text, and whether its tags are balanced."""

    def __init__(self, path: Path):
        super().__init__()
        self.open, self.attributes, self.rows, self.ids, self.texts = [], [], [], [], []
        self.content = path.read_text()
        self.feed(self.content)
        assert not self.open, f"{self.open} of {path} are not closed"

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(text)
        if self.rows and self.rows[-1] and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += f" {text.strip()}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def row(self, *words: str) -> list[str]:
        """The cells of the first row with these words in it."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return next(row for row in rows if all(word in " ".join(row) for word in words))


# Pages ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The pages of the reference records and of a few others: name -> Page."""
    folder = tmp_path_factory.mktemp("report")
    values = {
        "vae": ([0.3, 0.34, 0.31], [0.2]),
        "mlvae": ([0.33, 0.31, 0.36], [0.4, 0.41]),
        "oracle": ([0.99], [1.0]),
        "betavae": ([0.1, 0.12], [0.3]),
    }
    others = [
        made(model, seed, {"mig": mig, **({"sap": sap[seed]} if seed < len(sap) else {})}, dataset=dataset)
        for dataset in ("mpi3d_toy", "cars3d")
        for model, (migs, sap) in values.items()
        for seed, mig in enumerate(migs)
    ]
    sweep = [
        made("betavae", 0, {"mig": beta / 20, "sap": 0.1}, dataset="cars3d", hyperparameters={"beta": beta})
        for beta in (1.0, 2.0, 8.0, 16.0)
    ]
    strange = made("<b>x&", 0, {"mig": 0.2, "mine": 3.0}, {"mine": "up"}, dataset="cars3d")
    reference = [json.loads(line) for line in REFERENCE.read_text().splitlines()]
    written(folder / "results", *reference, *others, *sweep, strange)
    pages, damaged = write_report(folder / "results", folder / "report", "dislab report results")
    assert not damaged
    return {path.name: Page(path) for path in pages}


def test_every_page_stands_alone(report):
    assert {"leaderboard.html", "figures.html", "model-mlvae.html", "model-_b_x_.html"} <= {*report}
    for name, page in report.items():
        assert len(page.content.encode()) < MOST_BYTES
        assert page.content.startswith("<!-- made by dislab")
        assert len(set(page.ids)) == len(page.ids), name
        for tag, attribute, value in page.attributes:
            if attribute == "src" or (tag == "link" and attribute == "href"):
                assert value.startswith("data:")
            if tag == "a" and attribute == "href" and not value.startswith(("data:", "https://", "#")):
                assert value in report or value.startswith("../results/"), f"{name} links to {value}"
            if tag == "a" and attribute == "href" and value.startswith("#"):
                assert value[1:] in page.ids
            assert attribute not in ("onclick", "onload", "background", "srcset", "action")
        styles = "".join(re.findall(r"<style>.*?</style>", page.content, re.DOTALL))
        assert "@import" not in styles and "url(" not in styles
        assert not re.search(
            r"fetch\(|XMLHttp|import\(|https?://(?!www\.w3\.org)", page.content.split("<script>")[-1]
        )


def test_names_are_escaped(report):
    for page in report.values():
        assert "<b>x" not in page.content
    assert "<b>x&" in report["leaderboard.html"].text


def test_the_leaderboard_has_the_numbers_of_the_records(report):
    page = report["leaderboard.html"]
    [link] = [value for _, name, value in page.attributes if name == "href" and value.startswith("data:text")]
    head, *lines = [line.split(",") for line in unquote(link.partition(",")[2]).splitlines()]
    for mean, std, words in (("0.317", "0.021", "VAE"), ("0.333", "0.025", "ML-VAE")):
        cells = page.row(words, mean, f"± {std}")
        assert any(mean in cell for cell in cells)
    found = [dict(zip(head, line, strict=True)) for line in lines]
    wanted = {"model": "vae", "dataset": "cars3d", "score": "mig"}
    [vae] = [line for line in found if line.items() >= wanted.items()]
    low, high = stats.t.interval(0.95, 2, np.mean([0.3, 0.34, 0.31]), stats.sem([0.3, 0.34, 0.31]))
    assert [float(vae[name]) for name in ("mean", "ci95_low", "ci95_high")] == pytest.approx(
        [0.316667, low, high], rel=1e-5
    )
    assert vae["n"] == "3"


def test_a_score_that_does_not_apply_is_not_shown(report):
    leaderboard = report["leaderboard.html"]
    assert TEMPLATES["betatcvae"]["scores"]["style_accuracy"] == 0.9957
    assert "0.9957" not in leaderboard.content and "0.98585" not in leaderboard.content
    assert any("no style block" in cell for cell in leaderboard.row("β-TCVAE", "0.168"))
    assert "0.102" in " ".join(leaderboard.row("ML-VAE", "0.124 ± 0.156"))
    assert "0.9957" not in report["model-betatcvae.html"].content
    assert any("Style acc." in " ".join(row) for row in report["model-mlvae.html"].rows)
    assert not any("Style acc." in " ".join(row) for row in report["model-betatcvae.html"].rows)


def test_codes_of_another_program_stand_in_every_table_of_their_dataset(tmp_path):
    protocol = {"name": "external", "steps": 0, "learning_rate": 1.0, "batch_size": 2, "rows": None}
    mine = made("mine", 0, {"mig": 0.9}, source="external", protocol=protocol)
    mine |= {"timings": dict.fromkeys(mine["timings"]), "train_rows": None}
    others = [made("vae", 0, {"mig": 0.2}), made("vae", 0, {"mig": 0.3}, source="official")]
    elsewhere = made("vae", 0, {"mig": 0.4}, dataset="cars3d")
    written(tmp_path / "results", *others, elsewhere, mine)
    write_report(tmp_path / "results", tmp_path / "report")
    page = Page(tmp_path / "report" / "leaderboard.html")
    rows = [row for row in page.rows if "mine" in " ".join(row) and "0.900" in " ".join(row)]
    assert len(rows) == 2 and all(
        "external" in row[0] and "1 mine" in " ".join(row[0].split()) for row in rows
    )
    text = Page(tmp_path / "report" / "model-mine.html").text
    assert "how they were learned is not known here" in text and "--model mine" not in text


def test_a_cell_of_fewer_seeds_than_its_row_says_so(report):
    assert any(
        cell.startswith("0.405") and "n 2" in cell
        for cell in report["leaderboard.html"].row("ML-VAE", "0.333")
    )


def test_reference_points_are_not_ranked(report):
    content = report["leaderboard.html"].content
    for body in re.findall(r'<tbody class="ranked">.*?</tbody>', content, re.DOTALL):
        assert "Oracle" not in body and "Untrained" not in body and "Reference points" not in body
    bodies = re.findall(r'<tbody class="references">.*?</tbody>', content, re.DOTALL)
    assert len(bodies) == 3 and all("Oracle" in body and 'class="place"' not in body for body in bodies)


def test_a_models_page_keeps_here_and_published_apart(report):
    page = report["model-mlvae.html"]
    cells = page.row("MIG", "0.124 ± 0.156")
    assert any("0.354 ± 0.165" in cell and "Sun et al. 2024" in cell for cell in cells)
    assert "2 of 3 untested" in cells
    assert "differs in images and training" in page.text
    toy = [row for row in page.rows if "MPI3D-toy" in " ".join(row)]
    assert toy and all("none published" in " ".join(row) for row in toy), "mpi3d_real is not mpi3d_toy"
    assert any("MPI3D-real" in " ".join(row) for row in page.rows), (
        "it is listed among those without a row here"
    )
    assert "reference point" in report["model-oracle.html"].text
    assert "not registered here" in report["model-_b_x_.html"].text


def test_figures_of_the_report(report):
    text = report["figures.html"].text
    for title in ("Sweep: beta of β-VAE", "Training length: ML-VAE on Shapes3D",
                  "Scores by model: Cars3D", "Every model, published and here", "Time and cost"):  # fmt: skip
        assert title in text
    for page in report.values():
        charts = (
            page.content.count('<svg class="chart wide"'),
            page.content.count('<svg class="chart narrow"'),
        )
        assert charts[0] == charts[1] == page.content.count('<figure class="panel')
        assert not re.search(r"\bnan\b", re.sub(r'="data:[^"]*"', "", page.content))


def test_numbers_and_ticks():
    assert [number(v) for v in (0, 1, -0.0001, -0.45, 4051.8, 99.94)] == [
        *("0.000", "1.000", "0.000", "−0.450", "4,052", "99.940")
    ]
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Scale(80, 30_000, 0, 1, True).ticks() == [100, 1000, 10_000]
    assert Scale(1, 100, 0, 10, True)(10) == 5


def test_the_commands_repeat_the_runs():
    for model, record in TEMPLATES.items():
        [table] = tables_of([Run(Path("nowhere"), record)])
        words = shlex.split(repeat(table.rows[0]))
        assert words[:2] == ["dislab", "run"]
        options = list(zip(words[2::2], words[3::2], strict=True))
        given = {name: value for name, value in options if name not in ("--set", "--group-by")}
        settings = dict(value.split("=") for name, value in options if name == "--set")
        again = resolve(
            given["--model"],
            given["--dataset"],
            Machine.here("cpu"),
            protocol=given["--protocol"],
            source=given["--source"],
            steps=int(given["--steps"]) if "--steps" in given else None,
            group_by=[value.split(",") for name, value in options if name == "--group-by"],
            **settings,
        )
        assert again.row == table.rows[0].config.row, model


# Files and errors -----------------------------------------------------------------------------------


def test_pictures_of_a_run(tmp_path):
    files = {"swap.png": picture("RGB", (2000, 500)), "traversals.png": picture("RGB", (40, 40))}
    files |= {"traversals.gif": picture("L", (30, 20), frames=3), "swap.svg": b"<svg/>", "notes.txt": b""}
    record = with_files(tmp_path / "results", made("mlvae", 0, {"mig": 0.1}), files)
    written(tmp_path / "results", record)
    (tmp_path / "results" / record["folder"] / "traversals.png").write_bytes(b"changed")
    _, damaged = write_report(tmp_path / "results", tmp_path / "report")
    assert len(damaged) == 1 and "traversals.png' is damaged" in damaged[0]
    page = Page(tmp_path / "report" / "model-mlvae.html")
    images = [value.partition(",") for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    kinds = ["data:image/webp;base64", "data:image/gif;base64", "data:image/webp;base64"]
    assert [kind for kind, *_ in images] == kinds
    assert base64.b64decode(images[1][2]) == files["traversals.gif"], "it moves as the run wrote it"
    with Image.open(io.BytesIO(base64.b64decode(images[0][2]))) as still:
        assert still.size == (30, 20) and not getattr(still, "is_animated", False)
    assert 'width="1000" height="250"' in page.content and 'width="30" height="20"' in page.content
    words = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(words) == 3 and all("ML-VAE on Shapes3D" in text for text in words)
    assert "the first frame" in words[0]


def test_pages_are_small_unless_all_pictures_are_asked_for(tmp_path):
    files = {"traversals.png": picture("RGB", (9, 9)), "traversals.gif": picture("L", (300, 300), frames=9)}
    records = [
        with_files(tmp_path / "results", made("vae", seed, {"mig": 0.1}, dataset=dataset), files)
        for dataset in ("shapes3d", "cars3d", "dsprites", "mpi3d_toy")
        for seed in (0, 1)
    ]
    written(tmp_path / "results", *records)
    room = 4_000_000 // (len(files["traversals.gif"]) * 4 // 3)
    assert 1 <= room < 4
    sizes = {}
    for wanted, moving, still in (("one", room, 4), ("all", 8, 8)):
        write_report(tmp_path / "results", tmp_path / wanted, pictures=wanted)
        page = tmp_path / wanted / "model-vae.html"
        text, sizes[wanted] = page.read_text(), page.stat().st_size
        assert text.count("data:image/gif") == text.count('class="still"') == moving
        assert text.count("data:image/webp") == moving + still, "what moves is left out first"
        assert text.count("1 more in the run") == 4 - moving if wanted == "one" else text.count("seed 1") >= 4
        assert text.count('<details class="pictures" open>') == (4 if wanted == "one" else 1)
    assert sizes["one"] < MOST_BYTES < sizes["all"]


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(Path("results"), made("mlvae", 0, {"mig": 0.1}), made("vae", 0, {"mig": 0.2}))
    assert main(["report"]) == 0
    assert "4 pages: results/report/leaderboard.html" in capsys.readouterr().out
    before = Path("results/report/leaderboard.html").read_bytes()
    written(Path("results"), made("mlvae", 0, {"mig": 0.1}))
    Path("results/report/model-notes.html").write_text("mine")
    assert main(["report"]) == 0
    names = {path.name for path in Path("results/report").iterdir()}
    assert names == {"leaderboard.html", "figures.html", "model-mlvae.html", "model-notes.html"}
    assert before != Path("results/report/leaderboard.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "nowhere"], "does not exist"),
        (["report", "empty"], "no finished run"),
        (["report", "results", "--out", "file"], "cannot make the folder"),
        (["report", "results", "--out", "taken"], "dislab did not write it"),
        (["report", "results", "--pictures", "every"], "known are one, all"),
    ],
)
def test_bad_input_is_answered_in_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    written(Path("results"), made("vae", 0, {"mig": 0.2}))
    Path("empty").mkdir()
    Path("taken").mkdir()
    Path("taken/figures.html").write_text("<html>mine</html>")
    Path("file").write_text("")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_foreign_page_is_kept(tmp_path):
    written(tmp_path / "results", made("vae", 0, {"mig": 0.2}))
    (tmp_path / "leaderboard.html").write_text("mine")
    with pytest.raises(DislabError) as error:
        write_report(tmp_path / "results", tmp_path)
    assert "leaderboard.html" in one_line(error)
    assert (tmp_path / "leaderboard.html").read_text() == "mine"
