"""The page of it all: in one file, readable by who does not see, with what was drawn, written and spent."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from genai import figures, leaderboard, page
from tests.test_leaderboard import FIGURES, GRADES, project, trained


class Elements(HTMLParser):
    """The elements of a page with their attributes, and whether each that must be closed is."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "col", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = leaderboard.rows(project(FIGURES, GRADES))
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "leaderboard.json").write_text(json.dumps(board))
    for path, width in {
        "figures/best/confusion.png": 4, "figures/best/zebra.png": 4, "looks/best/filters.png": 8,
        "samples/bound/grid.png": 4, "reports/figures/curves.png": 8, "figures/gone/confusion.png": 4,
    }.items():  # fmt: skip
        figure, _ = figures.new(2, width=width)
        figures.save(figure, tmp_path / path)
    (tmp_path / "samples" / "bound" / "samples.json").write_text(
        json.dumps(
            [{"prompt": None, "text": "<script>alert(1)</script> & more"}, {"prompt": "Once [[3]]", "text": "x"}]
        )
    )
    trained("ridge", 12.34)
    return tmp_path


def read(root):
    page.write(root)
    return Elements((root / page.PAGE).read_text(encoding="utf-8"))


def test_it_is_whole_without_network_script_or_other_files(root):
    elements = read(root)
    assert not elements.open and elements.found[0][0] == "html"
    for tag, attributes in elements.found:
        assert tag != "script" and not any(key.startswith("on") for key in attributes)
        for key in ("src", "href"):
            assert re.match(r"data:|#", attributes.get(key) or "#"), attributes
    assert "@import" not in page.TEMPLATE and "url(" not in page.TEMPLATE


def test_every_figure_of_an_experiment_of_the_parameters_is_there_once_with_words_for_it(root):
    images = [attributes for tag, attributes in read(root).found if tag == "img"]
    assert len(images) == 5 and len({image["alt"] for image in images}) == 5
    alts = [image["alt"] for image in images]
    assert "best: confusion. " + page.CAPTIONS["confusion"] in alts and "best: zebra." in alts
    assert {image["width"] for image in images} == {"440", "880"}


def test_every_link_leads_to_something_on_the_page(root):
    found = read(root).found
    names = {attributes.get("id") for _, attributes in found}
    links = {a["href"][1:] for tag, a in found if tag == "a"}
    assert links <= names and {"leaderboard", "ridge", "bound"} <= links


def test_what_a_generator_wrote_is_text(root):
    text = read(root).text
    assert "<script>alert(1)</script> & more" in text and "Once [[3]]" in text


def test_it_shows_every_figure_and_what_was_spent_here(root):
    text = " ".join(read(root).text.split())
    assert "r2 0.5000 ± 0.0600 · 21 parameters · 12.3 CPU-s" in text
    assert "log_loss 0.2500" in text and "judge_bpc_real 1.9000" in text


def test_it_can_be_made_where_nothing_was_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()
    Path("reports/leaderboard.json").write_text(json.dumps(leaderboard.rows(project(FIGURES, GRADES))))
    assert "ridge" in read(tmp_path).text


def test_how_texts_were_written_is_on_the_page_once_with_all_who_wrote(root):
    trace = {"prompt": None, "tokens": ["</script>"], "given": [False], "evaluations": 1, "events": [[1, 0, 0.5]]}
    for name, ways in {"bound": ["left_to_right"], "best": ["ancestral", "remdm"]}.items():
        (root / "samples" / name).mkdir(exist_ok=True)
        replay = {"name": name, "traces": [trace | {"way": way} for way in ways]}
        (root / "samples" / name / "replay.json").write_text(json.dumps(replay))
    elements = read(root)
    assert not elements.open and [tag for tag, _ in elements.found].count("script") == 2
    (data,) = re.findall(r'"replay-data">(.*?)</script>', (root / page.PAGE).read_text(encoding="utf-8"))
    assert [one["name"] for one in json.loads(data)["replays"]] == ["best", "bound"]
    assert {"href": "#written"} in [a for tag, a in elements.found if tag == "a"]
    identifiers = [a["id"] for _, a in elements.found if "id" in a]
    assert len(identifiers) == len({*identifiers}) and "written" in identifiers
