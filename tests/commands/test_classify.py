"""Classification by likelihood: Bayes' rule on a joint that is enumerated, labels found by their documents' names."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from genai import __main__ as command_line
from genai import model as models
from genai.commands import classify, likelihood
from genai.core.config import UserError
from genai.core.dataset import Dataset
from genai.data import text
from tests.commands import conftest
from tests.commands.conftest import STATES, P, V, denoise

L = 2  # tokens of a text, after a context of as many


def test_the_posterior_over_labels_is_that_of_bayes_rule():
    """Three labels, each a mixture of two contexts: the score is log p(text | label), enumerated."""
    network = SimpleNamespace(denoise=denoise, mask=V, parameters=None)
    one = SimpleNamespace(name="exact", model=network)
    before = {label: STATES[[i, i + 40]][:, 1:] for label, i in (("a", 0), ("b", 13), ("c", 31))}  # (2, T - 1) each
    taken = [classify.Example("a 1", "", np.array(tokens)) for tokens in itertools.product(range(V), repeat=L)]
    brute = np.zeros((len(taken), len(before)))
    for n, example in enumerate(taken):
        for k, contexts in enumerate(before.values()):
            for context in contexts[:, -2:]:
                known = (STATES[:, :2] == context).all(1)
                brute[n, k] += P[known & (STATES[:, 2:] == example.tokens).all(1)].sum() / P[known].sum() / 2
    found = classify.scores(one, None, {}, before, taken)
    assert brute.sum(0) == pytest.approx(1)  # over all texts
    np.testing.assert_allclose(found[likelihood.EXACT], np.log(brute), rtol=1e-6)
    posterior = np.exp(found[likelihood.EXACT])
    posterior /= posterior.sum(1, keepdims=True)
    np.testing.assert_allclose(posterior, brute / brute.sum(1, keepdims=True), rtol=1e-6)


def test_the_bound_is_exact_where_the_conditionals_are_and_its_orders_are_averaged():
    """Of two tokens, hidden j = 1 or 2: the mean over many draws is -log p."""
    one = SimpleNamespace(model=SimpleNamespace(denoise=denoise, mask=V))
    rows = STATES[[5, 22, 60]]
    exact = classify.chain_rule(one, rows, L)
    draws = classify.DRAWS
    try:
        classify.DRAWS = 600
        np.testing.assert_allclose(classify.bound(one, rows, L), exact, rtol=0.1)
    finally:
        classify.DRAWS = draws


STORIES = {
    "Fox": "the red fox ran over a hill and hid",
    "1 Owl": "grey owls sleep by day while mice go by",
    "Elk": "elk",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text of named documents, of two labels that differ in their words and one that has little text."""
    root, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    documents = {}
    for label, said in STORIES.items():
        for i in range(1 if label == "Elk" else 40):  # one that is too large for validation or test
            paragraphs = [
                " ".join(rng.choice(said.split(), 9)) + f" {label[-1]}{i}{j}"
                for j in range(100 if label == "Elk" else 6)
            ]
            documents[f"{label} {i}"] = "\n\n".join(paragraphs)
    (root / "data/animals").mkdir(parents=True)
    config = text.TextConfig(vocabulary_size=300, window=64, validation=0.1, test=0.1)
    text.write([*documents.values()], config, root / "data/animals", "# Animals", [*documents])
    conftest.finish(root, data="animals", description=Dataset(root / "data/animals").description)
    return root


def test_labels_are_documents_names_without_their_number(here):
    dataset = Dataset(here / "data/animals")
    documents = classify.by_label(dataset, "train")
    assert set(documents) == {"Fox", "1 Owl", "Elk"}
    assert all(name.startswith("1 Owl ") and " o" not in text[:2] for name, text in documents["1 Owl"].items())
    whole = "\n\n".join(text for of_label in documents.values() for text in of_label.values())
    assert sorted(whole.split("\n\n")) == sorted(dataset.text("train").strip("\n").split("\n\n"))
    found = classify.examples(dataset, "validation", 5)
    assert {label: len(of_label) for label, of_label in found.items()} == {"Fox": 5, "1 Owl": 5}
    for label, of_label in found.items():
        assert all(one.label == label and one.text in dataset.text("validation") for one in of_label)
        assert all(dataset.tokenizer.decode(one.tokens.tolist()) == one.text for one in of_label)


def test_contexts_are_training_text_of_the_label_up_to_the_end_of_a_paragraph(here):
    dataset = Dataset(here / "data/animals")
    content = "\n\n".join(classify.by_label(dataset, "train")["Fox"].values())
    contexts = classify.before_a_text(dataset, "Fox", content, 3)
    assert contexts.shape == (3, 63)
    texts = [dataset.tokenizer.decode(context.tolist()) for context in contexts]
    assert len(set(texts)) == 3 and all(one.endswith("\n\n") and one in content + "\n\n" for one in texts)


def test_no_score_depends_on_which_texts_come_together(here):
    dataset = Dataset(here / "data/animals")
    training = classify.by_label(dataset, "train")
    content = {label: "\n\n".join(training[label].values()) for label in ("Fox", "1 Owl")}
    before = {label: classify.before_a_text(dataset, label, content[label], 2) for label in content}
    taken = [one for of_label in classify.examples(dataset, "validation", 3).values() for one in of_label]
    for name in ("diffusion", "control", "n_gram"):
        one = models.load(here / "models" / name)
        together = classify.scores(one, dataset, content, before, taken)
        for n, example in enumerate(taken):
            for way, log_p in classify.scores(one, dataset, content, before, [example]).items():
                np.testing.assert_array_equal(log_p[0], together[way][n])


def test_naive_bayes_is_that_of_the_words(here):
    taken = [classify.Example("a 1", "Red fox? New!", None)]
    found = classify.naive_bayes({"a": "red red fox", "b": "grey owl"}, taken)
    a = classify.ALPHA
    of_a = (2 + a) * (1 + a) / (3 + 4 * a) ** 2  # of four words
    of_b = a * a / (2 + 4 * a) ** 2
    assert found[0, 0] - found[0, 1] == pytest.approx(math.log(of_a / of_b))


def test_the_error_is_over_documents():
    right = np.array([True, False, True, True])
    assert classify.clustered_error(right, list("abcd")) == pytest.approx(right.std(ddof=1) / 2)
    twice = np.repeat(right, 2)
    assert classify.clustered_error(twice, list("aabbccdd")) == pytest.approx(right.std(ddof=1) / 2)


def run(here, capsys, *options):
    given = vars(command_line.parser().parse_args(["classify", "diffusion", "control", "n_gram", *options]))
    assert given.pop("command") == "classify"
    classify.main(**given)
    return capsys.readouterr().out.splitlines()


def test_it_prints_each_way_beside_baselines(here, capsys):
    lines = run(here, capsys, "--texts", "6", "--contexts", "1")
    rows = {(line[:24].strip(), line[25:39].strip()): line[39:].replace("±", "").split() for line in lines[3:]}
    assert [*rows] == [
        ("diffusion", likelihood.EXACT), ("diffusion", likelihood.BOUND), ("control", likelihood.EXACT),
        ("n_gram", "of each label"), ("naive Bayes", "words"), ("most text", "always"),
    ]  # fmt: skip
    assert rows["naive Bayes", "words"] == rows["n_gram", "of each label"] == ["100", "0", "100", "100"]
    assert rows["most text", "always"][0] == "50" and max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--labels", "Fox", "Owl"],
            "--labels: 'Owl' is no label of the training text; with 6 texts in .*: 1 Owl, Fox",
        ),
        (["--labels", "Fox"], "--labels: 1 with 6 texts in the validation split; two are needed"),
        (["--labels", "Fox", "Elk"], "--texts: 6 of 'Elk' where the validation split has 0"),
        (["--contexts", "0"], "--contexts: 0 should be at least 1"),
        (["--contexts", "99999"], "--contexts: 99999 where the training text of '1 Owl' has"),
    ],
)
def test_what_cannot_be_is_one_line(here, capsys, options, line):
    with pytest.raises(UserError, match=line):
        run(here, capsys, "--texts", "6", *options)
