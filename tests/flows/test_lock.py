"""dvc.lock under the flow and under plain `dvc repro`: byte for byte the same, whatever a stage is."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml, modify_yaml

from flows import lock
from flows import pipeline as flow
from flows.lock import as_text, join
from tests.flows.test_flow import api, dvc, here, last_run, repro  # noqa: F401

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # in Prefect's server
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # in DVC
    pytest.mark.filterwarnings("ignore::ruamel.yaml.error.ReusedAnchorWarning"),
]
PARAMS = """\
models: {a: {n: 1}, b: {n: 2}}
values: {rate: 1.0e-05, big: 1e20, none: null, text: "yes: # no", folded: "one two three four five six seven eight nine ten
  eleven twelve thirteen", list: [1, [2, 3]], "é": true}
"""
DAG = """\
stages:
  nothing_above:
    cmd: mkdir -p made/sub && cp params.yaml made/sub/p && touch made/empty
    outs: [made]
  lists:
    cmd:
      - mkdir -p folder && echo "a 'quoted' word" > folder/x
      - echo '#' second > folder/y; test -n "$DVC_ROOT" && echo $DVC_STAGE > folder/z
    deps: [made]
    outs: [folder]
  inside_a_folder:
    cmd: |
      cat folder/x made/sub/p > inside.txt
      echo more >> inside.txt
    deps: [folder/x, made/sub]
    params: [values, values.list, other.yaml: [deep.er]]
    outs: [inside.txt]
  each:
    foreach: ${models}
    do:
      cmd: mkdir -p each && echo ${item.n} > each/${key} && echo '{"n":${item.n}}' > each-${key}.json
      deps: [inside.txt, code]
      params: ["models.${key}"]
      outs: ["each/${key}"]
      metrics:
        - each-${key}.json: {cache: false}
  grid:
    matrix: {size: [1, 2], kind: [x, y]}
    cmd: echo ${item.size}${item.kind} > grid-${key}.csv
    deps: [each]
    plots:
      - grid-${key}.csv: {x: step}
  kept:
    cmd: cat folder/y >> kept.txt
    deps: [folder]
    outs:
      - kept.txt: {persist: true}
  always:
    cmd: echo always > always.txt
    deps: [folder]
    outs: [always.txt]
    always_changed: true
  no_cache:
    cmd: echo plain > no_cache.txt
    deps: [code]
    outs:
      - no_cache.txt: {cache: false}
  callback:
    cmd: echo nothing to keep
  frozen:
    cmd: "false"
    deps: [each]
    outs: [frozen.txt]
    frozen: true
  elsewhere:
    wdir: work
    cmd: cat ../inside.txt there.txt > here.txt
    deps: [../inside.txt, there.txt]
    outs: [here.txt]
  last:
    cmd: cat each-*.json grid-*.csv > last.txt
    deps: [each-a.json, each-b.json, grid-1-x.csv, grid-1-y.csv, grid-2-x.csv, grid-2-y.csv, work/here.txt, kept.txt, added]
    outs: [last.txt]
"""
SCALARS = [
    *("a", "yes", "~", "1", "1e-5", "a: b", "# c", "", " lead", "trail ", "two\nlines", "\n\n  indented\n", "é 漢"),
    *("q'uo\"te", "x" * 90, "word " * 40, "*z", "&id001", "2026-01-01", "\x07", "=", "long/path/" * 15 + " > x && "),
    *(3, 1e-05, 1e20, -0.0, float("inf"), True, None),
]


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """A project in git with a stage of every kind, before anything ran."""
    folder = tmp_path_factory.mktemp("kinds")
    git(folder, "init", "-q")
    dvc(folder, "init", "-q")
    for name, text in {"params.yaml": PARAMS, "other.yaml": "deep: {er: [1]}\n", "dvc.yaml": DAG}.items():
        (folder / name).write_text(text)
    for name in ("code", "work/there.txt", "added"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    dvc(folder, "add", "-q", "added")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-qm", "first")
    (folder / "frozen.txt").write_text("there before\n")
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def state(folder: Path) -> dict:
    """Return what DVC left: its lock, all files and the names of its cache and run-cache; what git ignores."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    found = {name: path for name, path in found.items() if not {".git", "tmp", ".prefect", "runs"} & set(name.parts)}
    ignored = {str(name): sorted(found[name].read_text().splitlines()) for name in found if name.name == ".gitignore"}
    return {str(name): path.read_bytes() for name, path in found.items()} | ignored


def runs(folder: Path) -> list[str]:
    """Return the entries of the run-cache."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob(".dvc/cache/**/runs/**/*") if path.is_file())


def test_every_kind_of_stage_leaves_what_dvc_repro_leaves(every_kind, here, tmp_path):  # noqa: F811
    project, other = here(every_kind), shutil.copytree(every_kind, tmp_path / "other")
    for file, old, new in (("code", "", ""), ("params.yaml", "n: 2", "n: 3"), ("work/there.txt", "there", "elsewhere")):
        for folder in (project, other):
            text = (folder / file).read_text()
            assert old in text
            (folder / file).write_text(text.replace(old, new))
        lock = repro(other)
        assert flow.run([]) == 0
        assert Path("dvc.lock").read_bytes() == lock
        left = state(project)
        assert left == state(other)
        assert {"dvc.lock", "each/a", "each/.gitignore", "work/here.txt", "kept.txt", "no_cache.txt"} <= set(left)
        assert runs(project) == runs(other) != []
        assert git(project, "status", "--porcelain") == git(other, "status", "--porcelain")


def test_it_restores_from_what_dvc_repro_cached_and_the_other_way_round(every_kind, here, tmp_path):  # noqa: F811
    project, other = here(every_kind), shutil.copytree(every_kind, tmp_path / "other")
    lock = repro(other)
    shutil.copytree(other / ".dvc/cache", ".dvc/cache", dirs_exist_ok=True)
    assert flow.run([]) == 0
    restored = {name for name, message in last_run().messages.items() if message == "restored from DVC's cache"}
    assert {"lists", "inside_a_folder", "each@a", "grid@1-x", "elsewhere"} <= restored
    assert Path("dvc.lock").read_bytes() == lock

    third = shutil.copytree(every_kind, tmp_path / "third")
    shutil.copytree(project / ".dvc/cache", third / ".dvc/cache", dirs_exist_ok=True)
    printed = dvc(third, "repro")
    assert "Stage 'each@a' is cached - skipping run" in printed and "Running stage 'each@a'" not in printed
    assert (third / "dvc.lock").read_bytes() == lock


def test_entries_that_are_joined_are_what_dvc_writes_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chance, aliases = random.Random(0), 0
    for _ in range(40):
        Path("dvc.lock").unlink(missing_ok=True)
        names = chance.sample(["prepare", "train@a", "train@b", "grid@1-y z", "123", "no", "x" * 140], 4)
        entries = {name: entry(chance) for name in names}
        for name in names:
            with modify_yaml("dvc.lock") as data:  # as dvc.dvcfile.Lockfile does
                if not data:
                    data.update({"schema": "2.0"})
                data["stages"] = data.get("stages", {})
                data["stages"].update({name: entries[name]})
        text = ""
        for some in (names[:2], names):  # in two batches
            text = join(
                text,
                {name: entries[name] for name in some},
                {name: as_text(name, entries[name]) for name in some},
                names,
            )
        assert text == Path("dvc.lock").read_text()
        aliases += "&id" in text
    assert 5 < aliases < 35


def test_dvc_is_asked_for_entries_with_aliases_alone(monkeypatch):
    """It reads and writes the whole file for each."""
    once, value = {"cmd": "x", "params": {"params.yaml": {"a": 1}}}, [{"c": 1}]
    twice = {"cmd": "x", "params": {"params.yaml": {"a": value, "b": value}}}
    ran = {"p": once, "q": twice, "r": once}
    texts = {name: as_text(name, each) for name, each in ran.items()}
    asked: list[list[str]] = []
    monkeypatch.setattr(lock, "dumps_yaml", lambda data: asked.append([*data["stages"]]) or dumps_yaml(data))
    text = join("", ran, texts, ["p", "q", "r"])
    assert asked == [["p", "q", "r"]] and "&id001" in text


def entry(chance: random.Random) -> dict:
    """Return an entry of dvc.lock with parameters of any kind, sometimes the same twice."""
    value = anything(chance, 0)
    params = {"a": value, "a.b": value if chance.random() < 0.1 else anything(chance, 0)}
    command = chance.choice(SCALARS[:20]) or "x"
    return {"cmd": command, "params": {"params.yaml": params}, "outs": [{"path": "x", "size": 3}]}


def anything(chance: random.Random, depth: int):
    kind = chance.random()
    if depth > 3 or kind < 0.5:
        return chance.choice(SCALARS)
    if kind < 0.7:
        return [anything(chance, depth + 1) for _ in range(chance.randint(0, 4))]
    return {chance.choice(SCALARS[:20]): anything(chance, depth + 1) for _ in range(chance.randint(0, 4))}
