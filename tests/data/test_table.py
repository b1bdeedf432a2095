"""Tables are read, typed and encoded by what training alone has, split without copies, and refused by line and name."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from genai.core.config import UserError
from genai.core.dataset import SPLITS, Dataset
from genai.data import table

N = 200


def people(n=N):
    """A table of numbers and categories, of which some are missing."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n).astype(float),
            "income": rng.lognormal(3, 1, n),
            "city": rng.choice(["Rome", "Oslo", "Lima|Callao", "Bonn"], n, p=[0.5, 0.3, 0.19, 0.01]),
            "code": rng.integers(1, 4, n),
        }
    )
    frame.loc[rng.random(n) < 0.1, "income"] = np.nan
    frame.loc[rng.random(n) < 0.1, "city"] = None
    frame["price"] = frame.age * 2 + rng.normal(size=n)
    frame["kind"] = np.where(frame.age > 40, "old", "new")
    return frame


def write_csv(path, frame, **options):
    frame.to_csv(path, index=False, **options)
    return path


def config(**changes):
    given = {"target": "price", "task": "regression", "validation": 0.2, "test": 0.2, "seed": 0, "drop": ["kind"]}
    return table.Config(**given | changes)


def prepare(folder, path, **changes):
    (folder / "out").mkdir(exist_ok=True)
    table.prepare(config(**changes), folder / "out", path)
    return Dataset(folder / "out")


def rows(frame, dataset, split):
    """Return the rows of a split, found by their target, in their order."""
    y = dataset.arrays(split)["y"]
    return frame.iloc[[int(np.abs(frame.price - value).argmin()) for value in y]]


def test_every_split_is_encoded_as_scikit_learn_does_when_it_is_fitted_to_training(tmp_path):
    frame = people()
    data = prepare(tmp_path, write_csv(tmp_path / "a.csv", frame), categories=["code"])
    number = make_union(
        make_pipeline(SimpleImputer(), StandardScaler()), MissingIndicator(features="missing-only")
    )  # the mean, standardised by the sd of the values that are there, is scaled apart below
    category = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    train = rows(frame, data, "train")
    oracle = ColumnTransformer(
        [("age", StandardScaler(), ["age"]), ("income", number, ["income"]), ("city", category, ["city"]),
         ("code", category, ["code"])]
    ).fit(train)  # fmt: skip
    income = train.income.dropna()
    for split in SPLITS:
        part = rows(frame, data, split)
        expected = oracle.transform(part)
        expected[:, 1] = ((part.income - income.mean()) / income.std(ddof=0)).fillna(0)
        # scikit-learn's missing level comes last among the levels, as ours does
        np.testing.assert_allclose(data.arrays(split)["x"], expected, rtol=1e-5, atol=1e-6)
    assert data.description.shape == [expected.shape[1]]


def test_the_description_and_the_card_say_what_was_inferred(tmp_path):
    frame = people()
    data = prepare(tmp_path, write_csv(tmp_path / "a.csv", frame), categories=["code"])
    columns = {column.name: column for column in data.description.columns}
    assert {name: column.type for name, column in columns.items()} == {
        "age": "number", "income": "number", "city": "category", "code": "category",
    }  # fmt: skip
    assert columns["code"].levels == ["1", "2", "3"] and columns["city"].missing and not columns["age"].missing
    train = rows(frame, data, "train")
    assert columns["age"].mean == pytest.approx(train.age.mean()) and columns["city"].features[-1] == "city is missing"
    card = (tmp_path / "out" / "card.md").read_text()
    assert f"| income | number | {frame.income.isna().sum()} |" in card and "Lima\\|Callao" in card
    assert "Left out: `kind`." in card and "`NA`" in card


def test_training_alone_decides_how_rows_become_numbers(tmp_path):
    """Other values in the test split's rows leave the encoding as it is."""
    frame = people()
    before = prepare(tmp_path, write_csv(tmp_path / "a.csv", frame))
    test = rows(frame, before, "test").index
    frame.loc[test, "age"] = 1000.0 + np.arange(len(test))
    frame.loc[test, "city"] = "Rio"
    (tmp_path / "b").mkdir()
    after = prepare(tmp_path / "b", write_csv(tmp_path / "a.csv", frame))
    assert after.description == before.description
    levels = [i for i, name in enumerate(f for c in after.description.columns for f in c.features) if "city" in name]
    assert len(levels) > 3 and not after.arrays("test")["x"][:, levels].any()  # a level that training has not


def test_rows_given_to_a_served_model_are_encoded_as_in_preparation(tmp_path):
    frame = people()
    data = prepare(tmp_path, write_csv(tmp_path / "a.csv", frame))
    for split in SPLITS:
        part = rows(frame, data, split).drop(columns=["price", "kind"])
        x = data.description.encode(part[part.columns[::-1]])  # in any order
        np.testing.assert_array_equal(x, data.arrays(split)["x"])
        back = data.description.decode(x)
        np.testing.assert_allclose(back.income, part.income, rtol=1e-5)
        assert back.city.fillna("none").tolist() == part.city.fillna("none").tolist()
        np.testing.assert_allclose(data.description.encode(back), x, rtol=1e-6)
    with pytest.raises(
        UserError, match="columns missing: 'age'; unknown: 'Age', 'b'; should be 'age', 'income', 'city'"
    ):
        data.description.encode(part.rename(columns={"age": "Age"}).assign(b=1))
    with pytest.raises(UserError, match="age: 'old' should be a number"):
        data.description.encode(part.astype({"age": object}).assign(age="old"))


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({}, "price"),
        ({"unit": "pounds"}, "price, pounds"),
        ({"target": "kind", "task": "classification", "drop": ["price"], "unit": "pounds"}, ""),
    ],
)
def test_a_number_to_predict_is_named_with_its_unit(tmp_path, changes, target):
    assert prepare(tmp_path, write_csv(tmp_path / "a.csv", people()), **changes).description.target == target


def test_classes_are_named_in_order_and_dealt_class_by_class(tmp_path):
    frame = people()
    frame["code"] = frame["code"].replace({3: 11})
    path = write_csv(tmp_path / "a.csv", frame)
    data = prepare(tmp_path, path, target="kind", task="classification", drop=["price"])
    assert data.description.classes == ["new", "old"] and data.arrays("train")["y"].dtype == np.int64
    shares = [
        np.bincount(data.arrays(split)["y"]) / (frame.kind == "old").value_counts().sort_index() for split in SPLITS
    ]
    np.testing.assert_allclose(np.transpose(shares), [[0.6, 0.2, 0.2]] * 2, atol=0.02)
    data = prepare(tmp_path, path, target="code", task="classification")
    assert data.description.classes == ["1", "2", "11"]


def test_a_rare_class_has_an_example_in_each_split(tmp_path):
    frame = people().assign(kind=["rare"] * 3 + ["common"] * (N - 3))
    path = write_csv(tmp_path / "a.csv", frame)
    data = prepare(tmp_path, path, target="kind", task="classification", drop=[], validation=0.05, test=0.05)
    assert [np.count_nonzero(data.arrays(split)["y"] == 1) for split in SPLITS] == [1, 1, 1]


def test_copies_are_kept_in_the_latest_split_alone(tmp_path):
    frame = people()
    path = write_csv(tmp_path / "a.csv", pd.concat([frame, frame], ignore_index=True))
    data = prepare(tmp_path, path)
    found = [set(data.arrays(split)["y"].tolist()) for split in SPLITS]
    assert sum(map(len, found)) == len(set.union(*found)) == N
    sizes = [len(data.arrays(split)["y"]) for split in SPLITS]
    assert sizes[2] == 80  # the test split keeps its rows, copies within it too
    dropped = f"{240 - sizes[0]} rows were dropped\nfrom train and {80 - sizes[1]} from validation"
    assert dropped in (tmp_path / "out" / "card.md").read_text()
    frame["price"] += np.arange(N) % 2 * 1000.0  # the same features with another target are no copy
    both = pd.concat([people(), frame[frame.index % 2 == 1]], ignore_index=True)
    data = prepare(tmp_path, write_csv(path, both))
    assert sum(len(data.arrays(split)["y"]) for split in SPLITS) == N * 3 // 2


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_csv_may_be_quoted_marked_separated_and_ended_as_programs_do(tmp_path, separator):
    frame = people().assign(note=['a "b"' + separator + "\r\nc", "d"] * (N // 2))
    plain = prepare(tmp_path, write_csv(tmp_path / "a.csv", frame))
    expected = plain.arrays("train"), plain.description
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + frame.to_csv(index=False, sep=separator, lineterminator="\r\n").encode())
    for declared in (None, separator):
        data = prepare(tmp_path, path, separator=declared)
        assert data.description == expected[1]
        np.testing.assert_array_equal(data.arrays("train")["x"], expected[0]["x"])
    assert data.description.columns[-1].levels == ['a "b"' + separator + "\r\nc", "d"]


@pytest.mark.parametrize("token", table.MISSING)
def test_what_says_that_a_value_is_missing(tmp_path, token):
    frame = people().fillna({"income": 1.5}).astype({"income": object})
    frame.loc[frame.index % 5 == 0, "income"] = f" {token} "
    path = tmp_path / "a.csv"
    path.write_text(frame.to_csv(index=False))
    column = prepare(tmp_path, path).description.columns[1]
    assert column.type == "number" and column.missing


SMALL = "a,b,y\n1,x,1\n2,z,2\n3,x,3\n4,x,4\n5,z,5\n6,x,6\n7,x,7\n8,z,8\n9,x,9\n10,x,10\n"


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (SMALL, {"target": "z"}, r"target: 'z' is no column of .*; it has 'a', 'b', 'y'"),
        (SMALL, {"drop": ["c"]}, r"drop: 'c' is no column"),
        (SMALL, {"categories": ["c"]}, r"categories: 'c' is no column"),
        (SMALL, {"drop": ["y"]}, r"drop: \['y'\] leaves \['a', 'b'\]; should leave the target"),
        (SMALL, {"task": "classification"}, r"target 'y': class '\d+' has 1 of 10 examples, should be at least 3, one for each split"),
        (SMALL, {"target": "b"}, r"target 'b', line 2: 'x' is not a number; should it be task: classification"),
        (SMALL.replace("3,x,3", "3,x,"), {}, r"target 'y': 1 of 10 values are missing, the first in line 4"),
        (SMALL.replace("3,x,3", "3,x,inf"), {}, r"target 'y', line 4: 'inf' is not a number"),
        (SMALL.replace("3,x", "inf,x"), {}, r"column 'a', line 4: 'inf' should be a finite number"),
        (SMALL.replace("3,x,3", "3,x"), {}, r"line 4: 2 fields, should be 3 as in line 1"),
        (SMALL.replace("3,x,3", "3,x,3,"), {}, r"line 4: 4 fields, should be 3"),
        (SMALL.replace("3,x,3", '3,"x,3'), {}, r"line 11: not CSV \(unexpected end of data\)"),
        (SMALL.replace("a,b", "a,a"), {}, r"line 1: 'a' names 2 of the columns"),
        (SMALL.replace("a,b", ",b"), {}, r"line 1: '' names 1 of the columns"),
        (SMALL.replace("a,b,y", "1,2,3"), {}, r"line 1: '1' is a number; the first line should name the columns"),
        (SMALL, {"separator": ";"}, r"line 1: one column by ';'"),
        ("a,b,y\n", {}, r"no row"),
        ("", {}, r"line 1: one column by ','"),
        (SMALL.replace("x", "").replace("z", "?"), {}, r"column 'b' has no value; leave it out by `drop`"),
        ("a,y\n" + "".join(f"n{i},{i}\n" for i in range(20)), {}, r"column 'a': 20 different texts in 20 rows, 'n0' in line 2 say"),
        ("a,y\n" + "".join(f"{i},1\n" for i in range(20)), {}, r"the target is 1.0 in every row of test"),
        ("a,y\n" + "".join(f"{i},c\n" for i in range(20)), {"task": "classification"}, r"one class, 'c'"),
        ("a,y\n" + "".join(f"{i},{i}\n" for i in range(200)), {"task": "classification"}, r"200 different numbers are too many classes; should it be task: regression"),
    ],
)  # fmt: skip
def test_a_wrong_csv_is_one_line_and_writes_nothing(tmp_path, text, changes, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^datasets.out(: .*a.csv.*|: |\\.){message}") as caught:
        prepare(tmp_path, path, **{"target": "y", "drop": []} | changes)
    assert "\n" not in str(caught.value) and list((tmp_path / "out").iterdir()) == []


def test_bytes_that_are_not_utf8_and_what_is_no_file_are_one_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("a,y\nKöln,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"datasets.out.source: .*a.csv is not UTF-8 text \(byte 5\)"):
        prepare(tmp_path, path)
    with pytest.raises(UserError, match="Is a directory; it should be a file"):
        prepare(tmp_path, tmp_path)


def test_a_column_that_training_has_but_once_or_never_varies_becomes_zeros(tmp_path):
    frame = people().assign(age=0.1, income=np.nan)
    data = prepare(tmp_path, write_csv(tmp_path / "a.csv", frame), drop=["kind", "income"])
    assert data.description.columns[0].scale == 1 and np.abs(data.arrays("train")["x"][:, 0]).max() < 1e-6
    assert table.learn(pd.Series([np.nan, np.nan], name="a", dtype=float)).mean == 0


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_values_of_a_source_that_do_not_fit_are_refused(tmp_path):
    x, y = pd.DataFrame({"a": np.arange(10.0)}), np.arange(10.0)
    indices = {"train": np.arange(6), "validation": np.arange(6, 8), "test": np.arange(8, 10)}
    wrong = [
        (x, np.where(y == 2, np.nan, y), None, "a value of the target is not finite"),
        (x, np.where(y == 2, 1e39, y), None, "a value of the target is not finite"),  # in float32
        (x, y, ["a", "b"], r"classes \[0.0, 1.0, .*\]; should be every number from 0 to 1"),
        (x, np.repeat([0, 1], [8, 2]), ["a", "b"], "class 'b' has no example in train"),
        (x.where(x != 9, np.inf), y, None, "column 'a': inf should be finite"),
    ]
    for frame, target, classes, message in wrong:
        with pytest.raises(UserError, match=f"datasets.{tmp_path.name}: {message}"):
            table.write(tmp_path, "Measured", frame, target, indices, "About.", classes)
    assert list(tmp_path.iterdir()) == []
