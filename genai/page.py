"""One page of it all, reports/index.html: leaderboard, figures by topic, samples, what each model cost.

It needs no other file and no network. It is a view of what the stages wrote, as MLflow is, and no output of a stage:
it shows the CPU-seconds of the trainings that ran here, which no two runs share.
"""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai import leaderboard
from genai.core.dataset import write_text
from genai.replay import page as replay

PAGE = Path("reports/index.html")
TOPICS = {
    "basics": "Machine learning basics",
    "neural_networks": "Neural networks",
    "cnn": "Convolutional networks",
    "diffusion": "Diffusion",
}
# What a figure is, by its file's name; of one that is not here, the name says it
CAPTIONS = {
    "confusion": "Test examples by class (rows) and prediction (columns). What lies off the diagonal is wrong.",
    "calibration": "How often a prediction is right, by how confident it is. Above the dashed line the model is better "
    "than it says, below it worse. The bars count the examples.",
    "decision_regions": "What the model says of examples in the plane in which the training examples vary most. Marks "
    "are test examples, projected: they lie off the plane, so what the model says of them may differ from the colour under them.",
    "contingency": "Test examples by class (rows) and the cluster they were put into (columns).",
    "cluster_map": "Test examples on the plane in which the training examples vary most. Where colours and marks "
    "disagree, a cluster holds several classes or a class several clusters.",
    "predictions": "What the model predicts for each test example, over the truth.",
    "residuals": "What is left of each test example's number once the prediction is taken off. A trend is something that "
    "the model missed.",
    "most_wrong": "The test examples that cost most.",
    "bits_per_character": "How hard each stretch of the test text is to predict.",
    "denoising_error": "How far the image that it makes out in noise is from the true one, by how much of the picture is image.",
    "weights": "What it learned, where weights are images themselves: centers, templates or filters.",
    "grid": "What it draws: a row for each class.",
    "denoising": "From noise to image, as it happens.",
    "trajectories": "From noise to image, at the steps of its sampler.",
    "guidance": "The same noises under more and more guidance: from any class to the stereotype of one.",
    "interpolations": "From the image of one noise to that of another, of the same class.",
    "architecture": "The layers from image to class, drawn from the model, with what each makes of one image.",
    "filters": "The filters of the first layer.",
    "feature_maps": "What channels of each depth answer to the same images.",
    "exciting": "The training images that excite a channel most, and which part of them.",
    "grad_cam": "Where it looks: the places that speak for the class (Grad-CAM).",
    "neighbors": "The training images that are nearest in the space of features: a classifier's own, or those of a generator's judge.",
    "mistakes": "What it gets wrong on validation, and how surely.",
    "curves": "Loss on training and validation over the steps of training.",
}


def write(root: Path) -> None:
    """Write the page of what stands in the folder of the project."""
    write_text(root / PAGE, html(root, json.loads((root / "reports" / "leaderboard.json").read_text())))


def html(root: Path, board: list[leaderboard.Row]) -> str:
    """Return the page."""
    from jinja2 import Environment
    from markupsafe import Markup

    of_topic: dict[str, dict[str, list[leaderboard.Row]]] = {}
    for row in board:
        if row["experiment"] != row["recipe"]:
            continue  # another seed, whose figures look like those of the first
        of_topic.setdefault(row["topic"], {}).setdefault(row["experiment"], []).append(row)
    topics = {
        key: (TOPICS.get(key, key), {name: (own, figures_of(root, name)) for name, own in of_topic[key].items()})
        for key in [*TOPICS, *(key for key in of_topic if key not in TOPICS)]
        if key in of_topic
    }
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals = vars(leaderboard) | {
        "cost": lambda row: leaderboard.cpu_seconds(root, row.get("names", [row["experiment"]]))
    }
    whole = [Figure(path, "all experiments") for path in sorted((root / "reports" / "figures").glob("*.png"))]
    return environment.from_string(TEMPLATE).render(
        groups_of=leaderboard.groups(board),
        topics=topics,
        whole=whole,
        texts=texts(root, board),
        replay=Markup(replay.fragment(written)) if (written := replays(root, board)) else "",
    )


def texts(root: Path, board: list[leaderboard.Row]) -> dict[str, list[dict[str, Any]]]:
    """Return what each generator of text wrote for people: prompt and text."""
    paths = {row["experiment"]: root / "samples" / row["experiment"] / "samples.json" for row in board}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def replays(root: Path, board: list[leaderboard.Row]) -> list[dict[str, Any]]:
    """Return how each generator of text wrote, first the one that was recorded in the most ways."""
    names = dict.fromkeys(row["experiment"] for row in board if row["experiment"] == row["recipe"])
    found = [one for name in names if (one := replay.read(root / "samples" / name))]
    return sorted(found, key=lambda one: -len(one["traces"]))


def figures_of(root: Path, name: str) -> list["Figure"]:
    """Return an experiment's pictures: samples, what it looks at, its task's figures, its weights."""
    return [*_figures(root, name, "samples", "generated", "looks", "figures", "reports/figures")]


def _figures(root: Path, name: str, *folders: str) -> Iterator["Figure"]:
    for folder in folders:
        for path in sorted((root / folder / name).glob("*.png"), key=_order):
            yield Figure(path, name)


def _order(path: Path) -> tuple[int, str]:
    return [*CAPTIONS, path.stem].index(path.stem), path.stem


class Figure:
    """A PNG as the page shows it."""

    def __init__(self, path: Path, name: str):
        content = path.read_bytes()
        self.width, self.height = struct.unpack(">II", content[16:24])  # of the header that a PNG begins with
        self.source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
        stem = path.stem.replace("_", " ")
        if stem.startswith("learning curve "):
            what = "Error on validation and test over the number of training examples: what experience is worth."
        else:
            what = CAPTIONS.get(path.stem, "")
        self.title, self.caption, self.alt = stem, what, f"{name}: {stem}. {what}".strip()
        self.wide = self.width > 640


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>genai: what was learned</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5c636b; --line: #d9dde2; --back: #fff; --card: #f5f6f8;
  --link: #0b5cad; --best: #e8f1fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7eb; --soft: #a2aab4; --line: #363c44; --back: #15181c; --card: #1f242a; --link: #7ab8f5; --best: #1c2f42; }
  figure img { filter: brightness(.88); } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.5rem; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; } footer { color: var(--soft); padding-bottom: 4rem; }
h1 { font-size: 2rem; line-height: 1.15; margin: 0 0 .4rem; letter-spacing: -.02em; }
h2 { font-size: 1.5rem; line-height: 1.2; margin: 3.5rem 0 .8rem; letter-spacing: -.01em; }
h3 { font-size: 1.1rem; line-height: 1.3; margin: 2.4rem 0 .1rem; } h4 { font-size: 1rem; margin: 1.8rem 0 .5rem; font-weight: 600; }
p { max-width: 44rem; margin: .4rem 0 .8rem; } a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
nav { position: sticky; top: 0; z-index: 1; background: var(--back); border-bottom: 1px solid var(--line); margin-top: 1.2rem; overflow-x: auto; }
nav div { max-width: 66rem; margin: 0 auto; padding: .6rem 1.25rem; display: flex; gap: 1.4rem; white-space: nowrap; }
.soft { color: var(--soft); font-size: .9rem; } .facts { color: var(--soft); font-size: .9rem; margin: 0 0 .6rem; max-width: none; }
.facts b { color: var(--text); font-weight: 600; }
.table { overflow-x: auto; margin: 0 -1.25rem; padding: 0 1.25rem; }
table { border-collapse: collapse; width: 100%; min-width: 58rem; table-layout: fixed; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 0 .3rem 1.2rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; padding-left: .4rem; }
td.beside { white-space: normal; text-align: left; color: var(--soft); }
th.beside { text-align: left; } tr.best td { background: var(--best); } tr.best td:nth-child(3) { font-weight: 600; }
.tag { font-size: .75rem; color: var(--soft); border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem; margin-left: .4rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; align-items: start; }
figure { margin: 0; background: var(--card); border-radius: .5rem; padding: .6rem; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figure img { display: block; width: auto; max-width: 100%; height: auto; margin: 0 auto; border-radius: .25rem; background: #fff; }
figcaption { font-size: .85rem; line-height: 1.45; color: var(--soft); padding: .5rem .2rem 0; } figcaption b { color: var(--text); font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.5 ui-monospace, Menlo, Consolas, monospace; background: var(--card);
  padding: .8rem 1rem; border-radius: .5rem; margin: .4rem 0 1rem; }
@media (max-width: 44rem) { table { table-layout: auto; min-width: 0; font-size: .82rem; } th, td { padding-left: .7rem; }
  .beside { display: none; } .tag { display: block; width: max-content; margin: 0; } }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; }
</style>
</head>
<body>
{% macro picture(f) %}
<figure{% if f.wide %} class="wide"{% endif %}><img src="{{ f.source }}" width="{{ f.width }}" height="{{ f.height }}" alt="{{ f.alt }}">
<figcaption><b>{{ f.title }}</b>{% if f.caption %} · {{ f.caption }}{% endif %}</figcaption></figure>
{% endmacro %}
{% macro seconds(row) %}{% set took = cost(row) %}{{ "%.1f"|format(took) if took is not none else "–" }}{% endmacro %}
<header><h1>What was learned</h1>
<p>Every model of this project beside its baseline: what it reaches, what it looks like, what it cost. Recipes are chosen on
validation; tables rank by test, which only evaluation reads.</p></header>
<nav><div><a href="#leaderboard">Leaderboard</a>{% for key, (title, _) in topics.items() %}<a href="#{{ key }}">{{ title }}</a>{% endfor %}
{% if replay %}<a href="#written">How a text is written</a>{% endif %}</div></nav>
<main>
<h2 id="leaderboard">Leaderboard</h2>
<p class="soft">± is a standard error; of several seeds, the mean and sd over them. Parameters are the numbers that a model has learned.
CPU-s are the CPU-seconds of its training; – where it did not run on this machine but came from DVC's cache.</p>
{% for group in groups_of %}
<h4>{{ heading(group) }}</h4>
<div class="table"><table>
<colgroup><col style="width: 25%"><col style="width: 15%"><col style="width: 16%"><col style="width: 10%"><col style="width: 6%"><col></colgroup>
<tr><th>experiment</th><th>validation</th><th>test</th><th>parameters</th><th>CPU-s</th><th class="beside">beside it, on test</th></tr>
{% for row in group %}
{% set cell = cells(row, group) %}
<tr{% if loop.first and group|length > 1 %} class="best"{% endif %}><td><a href="#{{ row.experiment }}">{{ cell[0] }}</a>
{%- if row.experiment == row.baseline %}<span class="tag">baseline</span>{% endif %}</td>
<td>{{ cell[1] }}</td><td>{{ cell[2] }}</td><td>{{ cell[3] }}</td><td>{{ seconds(row) }}</td>
<td class="beside">{% for name, value in row.others.items() %}{{ name }} {{ number(value) }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
</table></div>
{% endfor %}
{% if whole %}
<h3>All experiments</h3>
<div class="figures">{% for f in whole %}{{ picture(f) }}{% endfor %}</div>
{% endif %}
{% for key, (title, experiments) in topics.items() %}
<h2 id="{{ key }}">{{ title }}</h2>
{% for name, (rows, figures) in experiments.items() %}
<section id="{{ name }}"><h3>{{ name }}</h3>
<p class="facts">{{ rows[0].model }} of <code>{{ rows[0].code }}</code> on {{ rows[0].data }} ·
{% for row in rows %}{{ row.metric }} <b>{{ number(row.test) }}</b>{% if row.test_se is not none %} ± {{ number(row.test_se) }}{% endif %} · {% endfor %}
{{ "{:,}".format(rows[0].parameters) }} parameters{% if cost(rows[0]) is not none %} · {{ seconds(rows[0]) }} CPU-s{% endif %}</p>
<div class="figures">{% for f in figures %}{{ picture(f) }}{% endfor %}</div>
{% for sample in texts.get(name, []) %}
<p class="soft">{% if sample.prompt %}Asked to go on or to fill: <code>{{ sample.prompt }}</code>{% else %}It writes:{% endif %}</p>
<pre>{{ sample.text }}</pre>
{% endfor %}
</section>
{% endfor %}
{% endfor %}
{% if replay %}
<h2 id="written">How a text is written</h2>
<p>An evaluation of the network at a time. Diffusion fills in what is hidden, in any order; the autoregressive model goes from
left to right. With the slider in focus, the arrow keys move it and the space bar plays.</p>
{{ replay }}
{% endif %}
</main>
<footer><p>Made by <code>python -m genai report</code> from <code>metrics/</code>, <code>grades/</code>, <code>figures/</code>,
<code>looks/</code>, <code>samples/</code> and <code>models/</code>; every number that it depends on stands in <code>params.yaml</code>.</p></footer>
</body>
</html>
"""
