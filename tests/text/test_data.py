"""Rows of data files, and training and test items out of them: formats, bad lines, no overlap."""

import csv
import gzip
import hashlib
import json
import pathlib
import sys

import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.data.splits import names_test, open_split, read_rows

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"
QA = ("question", "answer")


def qa(count, first=0):
    return [{"question": f"q{i}", "answer": f"a{i}"} for i in range(first, first + count)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def split(data, test_data=None, **changes):
    options = {"needed": QA, "train_items": 3, "test_items": 2, "seed": 0} | changes
    return open_split(data, test_data, **options)


def real(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def message(function, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def as_csv(rows, delimiter):
    return "\n".join([delimiter.join(rows[0]), *(delimiter.join(r.values()) for r in rows)]) + "\n"


FORMATS = {
    "a.jsonl": lines,
    "a.JSONL": lambda rows: "\n" + lines(rows).replace("\n", "\r\n\r\n"),
    "b.json": json.dumps,
    "c.json": lambda rows: json.dumps({"version": "1", "tags": ["x"], "data": rows}, indent=1),
    "d.json": lines,
    "e.csv": lambda rows: "\ufeff" + as_csv(rows, ","),
    "f.tsv": lambda rows: as_csv(rows, "\t").replace("\n", "\r\n"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_every_text_format_gives_the_same_rows(tmp_path, name, packed):
    content = FORMATS[name](qa(4)).encode()
    if packed:
        path = write(tmp_path / (name + ".gz"), gzip.compress(content))
    else:
        path = write(tmp_path / name, content)
    assert read_rows(path, QA) == qa(4)
    assert read_rows(str(path), ()) == qa(4)


def test_parquet_gives_json_values(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import datetime
    import decimal

    import pyarrow

    path = tmp_path / "a.parquet"
    rows = [
        {
            "numbers": [3, 4],
            "text": "a\r\nb",
            "raw": b"\xc3\xa9" if i else b"\xff",
            "day": datetime.date(2024, 1, 2),
            "price": decimal.Decimal("1.50"),
            "note": None,
        }
        for i in range(2)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = read_rows(path, ("numbers", "text"))
    assert json.loads(json.dumps(found)) == found
    assert found[1] == {
        "numbers": [3, 4],
        "text": "a\r\nb",
        "raw": "é",
        "day": "2024-01-02",
        "price": "1.50",
        "note": None,
    }
    assert message(read_rows, path, ("note",)) == f"{path} row 1 has no value (null) in 'note'"
    assert "b.parquet is not a readable parquet file" in message(
        read_rows, write(tmp_path / "b.parquet", path.read_bytes()[:200]), QA
    )
    assert "is not a readable parquet file" in message(
        read_rows, write(tmp_path / "c.parquet", lines(qa(2))), QA
    )


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "a.parquet", b"PAR1")
    assert message(read_rows, path, QA) == f'{path} needs pyarrow; pip install "thicket-jax[text]"'


def test_values_keep_their_line_ends_and_separators(tmp_path):
    value = "def f():\r\n\treturn '\u2028\x85'\r\n"
    text = json.dumps({"code": value}, ensure_ascii=False).replace("\\u2028", "\u2028")
    assert read_rows(write(tmp_path / "a.jsonl", text), ["code"]) == [{"code": value}]
    table = 'n,code\n1,"' + value + '"\n2,x\n'
    rows = read_rows(write(tmp_path / "a.csv", table), ["code"])
    assert rows == [{"n": "1", "code": value}, {"n": "2", "code": "x"}]


def test_a_json_object_with_the_columns_is_one_row(tmp_path):
    path = write(tmp_path / "a.json", json.dumps({"numbers": [1, 2], "steps": [{"a": 1}]}))
    assert read_rows(path, ["numbers"]) == [{"numbers": [1, 2], "steps": [{"a": 1}]}]


def test_a_column_may_have_several_names(tmp_path):
    path = write(tmp_path / "a.jsonl", lines([{"problem": "p", "answer": "1"}, *qa(1)]))
    needed = (("question", "problem"), "answer")
    assert len(read_rows(path, needed)) == 2
    assert message(read_rows, path, QA) == (
        f"{path} line 1 has no 'question', only problem, answer; the task reads question, answer"
    )
    assert "has no 'x' or 'y', only" in message(read_rows, path, (("x", "y"),))


GOOD = '{"question": "q", "answer": "a"}\n'
BAD = [
    ("a.jsonl", GOOD + '{"question": "q"}\n', "line 2 has no 'answer', only question; the task"),
    ("a.jsonl", GOOD + "\n[1, 2]\n", "line 3 is not an object but [1, 2]; the task reads question"),
    ("a.jsonl", GOOD + GOOD[:-3], "line 2: not JSON, Unterminated string"),
    ("a.jsonl", GOOD + "q,a\n", "line 2: not JSON, Expecting value at column 1; a .jsonl file has"),
    ("a.jsonl", GOOD.replace('"a"', "null"), "line 1 has no value (null) in 'answer'"),
    ("a.jsonl", GOOD.encode() * 2 + b'{"question": "\xe9"}', "line 3: byte 0xe9 is not UTF-8"),
    ("a.jsonl", GOOD.encode("utf-16"), "line 1: byte 0xff is not UTF-8; save the file as UTF-8"),
    ("a.jsonl", GOOD + GOOD.replace('"q"', '"\\ud800"'), "line 2: 'utf-8' codec can't encode"),
    ("a.jsonl", GOOD.replace('"a"', "1" * 5000), "line 1: Exceeds the limit"),
    ("a.jsonl", GOOD + "[" * 200_000, "line 2: "),
    ("a.jsonl", "", "has no rows; the task reads question, answer"),
    ("a.jsonl", "\n \n", "has no rows"),
    ("a.json", "", "has no rows"),
    ("a.json", "[]", "has no rows"),
    ("a.json", '[\n{"question": 1, "answer": 2},\n{"question": 3}\n]', "entry 2 has no 'answer'"),
    (
        "a.json",
        '[\n{"question": 1, "answer": 2}\n{"question": 3}\n]',
        "line 3: not JSON, Expecting",
    ),
    ("a.json", "{}", "is one object and must have one list of objects in it (found: none)"),
    ("a.json", '{"train": [{}], "test": [{}]}', "one list of objects in it (found: train, test)"),
    ("a.json", '{"data": [{"question": 1}]}', "entry 1 of 'data' has no 'answer', only question"),
    ("a.json", GOOD + GOOD + "oops", "line 3: not JSON"),
    ("a.json", '"text"', "entry 1 is not an object"),
    ("a.csv", "question,answer\nq,a\nq\n", "line 3 has 1 values and the header has 2 columns"),
    ("a.csv", 'question,answer\n"q\nq",a\nq,a,b\n', "line 4 has 3 values and the header has 2"),
    ("a.csv", 'question,answer\nq,a\n"q,a\nq,a\n', "line 3: unexpected end of data; quotes are"),
    ("a.csv", "question,question\nq,a\n", "line 1: two columns have one name"),
    ("a.csv", "question,answer\n", "has no rows"),
    ("a.csv", "q;a\n1;2\n", "line 2 has no 'question', only q;a; the task reads question, answer"),
    ("a.jsonl.gz", GOOD, "is not a whole gzip file"),
    ("a.jsonl.gz", gzip.compress(GOOD.encode() * 9, mtime=0)[:-9], "is not a whole gzip file"),
    ("a.txt", GOOD, "is not a data file: its name must end in .jsonl, .json, .csv, .tsv"),
    ("a.parquet.gz", GOOD, "is not a data file"),
]


@pytest.mark.parametrize(("name", "content", "expected"), BAD)
def test_a_bad_file_is_one_line_with_its_place(tmp_path, name, content, expected):
    path = write(tmp_path / name, content)
    text = message(read_rows, path, QA)
    assert text.startswith(str(path))
    assert expected in text
    assert len(text) < len(str(path)) + 300


NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-2.5E400"]
DEPTHS = ["{}", "[1, {}]", '{{"a": [{{"b": {}}}]}}']


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("word", NO_NUMBERS)
def test_a_json_number_that_is_none_is_refused_with_its_line(tmp_path, word, depth):
    row = '{"question": "NaN, \\"Infinity 1e999", "answer": ' + depth.format(word) + "}"
    good = '{"question": "-Infinity NaN -2.5E400", "answer": "NaN"}'
    assert f"line 3: {word} is" in message(
        read_rows, write(tmp_path / "a.jsonl", f"{good}\n\n{row}\n"), QA
    )
    listed = write(tmp_path / "a.json", f"[\n{good},\n{good},\n{row}]")
    assert f"line 4: {word} is" in message(read_rows, listed, QA)
    assert len(read_rows(write(tmp_path / "b.jsonl", good), QA)) == 1


@pytest.mark.parametrize("word", ["nan", "NaN", " NAN", "-nan"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_nan_in_a_needed_value_of_a_table_is_refused_with_its_line(tmp_path, name, word):
    rows = [{"question": "q", "answer": "a", "note": "nan"}]
    delimiter = "," if name.endswith("csv") else "\t"
    assert len(read_rows(write(tmp_path / name, as_csv(rows, delimiter)), QA)) == 1
    for column in QA:
        spoiled = write(tmp_path / name, as_csv([*rows, {**rows[0], column: word}], delimiter))
        text = message(read_rows, spoiled, QA)
        assert f"{name} line 3 has {word.strip()} in {column!r}" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")]], ids=str)
def test_no_number_of_parquet_is_nan(tmp_path, value):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    good = [0.5] if isinstance(value, list) else 0.5
    rows = [{"question": "q", "answer": good}, {"question": "r", "answer": value}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    text = message(read_rows, tmp_path / "a.parquet", QA)
    assert "a.parquet row 2 has " in text and "in 'answer', which equals no answer" in text


def test_a_path_that_is_no_file(tmp_path):
    assert "is a folder, not a data file; the task reads question" in message(
        read_rows, tmp_path, QA
    )
    gone = tmp_path / "nothing"
    assert message(read_rows, gone, QA) == f"{gone} cannot be read: No such file or directory"
    assert "cannot be read: No such" in message(split, gone)


@pytest.mark.parametrize(
    ("name", "is_test"),
    [
        ("test.jsonl", True),
        ("TEST.JSONL.gz", True),
        ("gsm8k_test.jsonl", True),
        ("test-00000-of-00001.parquet", True),
        ("math-test.v2.csv", True),
        ("test/0000.parquet", True),
        ("test/mine.jsonl", False),
        ("latest.jsonl", False),
        ("contest.jsonl", False),
        ("attest-1.csv", False),
        ("train.jsonl", False),
        ("train_test_split.jsonl", False),
        ("validation.jsonl", False),
    ],
)
def test_test_is_a_word_of_the_name(name, is_test):
    assert names_test(pathlib.Path("data") / name) == is_test


def test_two_files_are_used_as_such_in_file_order(tmp_path):
    write(tmp_path / "train.jsonl", lines(qa(9)))
    write(tmp_path / "test.jsonl", lines(qa(4, 20)))
    found = split(tmp_path)
    assert (found.train, found.test, found.notes) == (qa(3), qa(2, 20), ())
    assert found == split(tmp_path, seed=5)
    assert found == split(tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    assert found == split(tmp_path / "train.jsonl", tmp_path)
    assert split(tmp_path, test_items=None).test == qa(4, 20)
    digest = hashlib.sha256((tmp_path / "train.jsonl").read_bytes()).hexdigest()
    assert found.provenance["split"] == "files"
    assert found.provenance["files"][0] == {
        "name": "train.jsonl",
        "use": "train",
        "rows": 9,
        "sha256": digest,
    }
    assert [(f["use"], f["rows"]) for f in found.provenance["files"]] == [("train", 9), ("test", 4)]
    json.dumps(found.provenance)


def test_training_rows_that_are_test_items_are_left_out(tmp_path):
    shared = {"answer": "a1", "id": 7, "question": "q1"}  # the same to the task, in another order
    write(tmp_path / "train.jsonl", lines(qa(4)))
    write(tmp_path / "test.jsonl", lines([qa(1)[0], shared, qa(1, 3)[0]]))
    found = split(tmp_path, train_items=2)
    assert found.train == qa(2, 2)  # the third row of the test file was not chosen
    assert found.notes == ("2 rows of train.jsonl are also test items and are not trained on",)
    text = message(split, tmp_path)
    assert text == (
        "train.jsonl has 2 training items (files) that are not test items, and 3 were asked for; "
        "ask for fewer"
    )


def test_identity_names_what_makes_an_item(tmp_path):
    write(tmp_path / "train.jsonl", lines(qa(4)))
    write(tmp_path / "test.jsonl", lines([{"question": "q0", "answer": "other"}, *qa(1, 9)]))
    assert split(tmp_path).train == qa(3)
    assert split(tmp_path, identity=("question",)).train == qa(3, 1)


def test_one_file_is_split_without_overlap(tmp_path):
    path = write(tmp_path / "mine.jsonl", lines(qa(40)))
    found = split(path, train_items=10, test_items=12)
    keys = [{row["question"] for row in part} for part in (found.train, found.test)]
    assert [len(part) for part in keys] == [10, 12]
    assert not keys[0] & keys[1]
    assert found.train != qa(10)
    assert found.notes == (
        "mine.jsonl was split at random without overlap (seed 0): no test file beside it",
    )
    assert found == split(tmp_path, train_items=10, test_items=12)  # the folder's only file
    # Asking for more of one part changes neither part's first items.
    more = split(path, train_items=20, test_items=20)
    assert (more.train[:10], more.test[:12]) == (found.train, found.test)
    assert len(split(path, train_items=10, test_items=None).test) == 30
    assert split(path, train_items=10, test_items=12, seed=1).train != found.train
    assert split(path, train_items=10, test_items=12, seed=-1).train != found.train


def test_the_permutation_stays_the_same(tmp_path):
    path = write(tmp_path / "mine.jsonl", lines(qa(10)))
    found = split(path)
    assert [row["question"] for row in found.train + found.test] == ["q4", "q6", "q2", "q1", "q8"]


def test_repeated_rows_of_one_file_never_meet(tmp_path):
    path = write(tmp_path / "mine.jsonl", lines(qa(10) * 3 + [{"id": 1, **qa(1)[0]}]))
    found = split(path, train_items=5, test_items=5)
    assert sorted(row["question"] for row in found.train + found.test) == [
        f"q{i}" for i in range(10)
    ]
    assert found.notes[1] == "21 rows of mine.jsonl repeat an item and were left out"
    text = message(split, path, train_items=6, test_items=5)
    assert "mine.jsonl has 10 different items, and 6 training + 5 test items = 11" in text


@pytest.mark.parametrize("changes", [{"train_items": 10}, {"train_items": 10, "test_items": None}])
def test_too_few_items_say_how_many_there_are(tmp_path, changes):
    path = write(tmp_path / "mine.jsonl", lines(qa(10)))
    assert "mine.jsonl has 10 different items, and 10 training +" in message(split, path, **changes)
    write(tmp_path / "b" / "train.jsonl", lines(qa(10)))
    write(tmp_path / "b" / "test.jsonl", lines(qa(1, 30)))
    text = message(split, tmp_path / "b", **(changes | {"test_items": 2}))
    assert text == "test.jsonl has 1 test items (files), and 2 were asked for; ask for fewer"


def test_counts_below_one_are_refused(tmp_path):
    path = write(tmp_path / "mine.jsonl", lines(qa(10)))
    with pytest.raises(ArgumentError, match="train_items=0 must be at least 1"):
        split(path, train_items=0)
    with pytest.raises(ArgumentError, match="test_items=-2 must be at least 1"):
        split(path, test_items=-2)


LAYOUTS = {
    "words": ["gsm8k_train.jsonl", "gsm8k_test.jsonl", "categories.json", "README.md"],
    "main": ["main/train-00000-of-00001.jsonl", "main/test-00000-of-00001.jsonl", "infos.json"],
    "hashes": ["data/train-00000-of-00001-7b3f.csv", "data/test-00000-of-00001-b3e9.csv"],
    "folders": ["train/0000.jsonl", "test/0000.jsonl", "validation/0000.jsonl"],
    "inner": ["default/train/0000.jsonl", "default/test/0000.jsonl"],
    "plain first": ["train.jsonl", "train_socratic.jsonl", "test.jsonl", "test_socratic.jsonl"],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_folders_as_they_are_published(tmp_path, layout):
    for number, name in enumerate(layout):
        rows = qa(6, 10 * number)
        write(tmp_path / name, lines(rows) if name.endswith("jsonl") else as_csv(rows, ","))
    found = split(tmp_path)
    tested = next(name for name in layout if "test" in name)
    assert (found.train, found.test) == (qa(3), qa(2, 10 * layout.index(tested)))
    assert [file["name"] for file in found.provenance["files"]] == [
        pathlib.Path(layout[0]).name,
        pathlib.Path(tested).name,
    ]


def test_shards_are_read_in_order_and_all(tmp_path):
    for shard in range(11):
        write(tmp_path / f"train-{shard}-of-11.jsonl", lines(qa(2, 2 * shard)))
    write(tmp_path / "test-0.jsonl", lines(qa(2, 90)))
    found = split(tmp_path, train_items=22)
    assert found.train == qa(22)
    assert [file["rows"] for file in found.provenance["files"]] == [2] * 12
    (tmp_path / "train-4-of-11.jsonl").unlink()
    assert "has 10 of the 11 shards of its train file" in message(split, tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "has no data file with train or test in its name (data files: none)"),
        (["a.jsonl", "b.jsonl"], "(data files: a.jsonl, b.jsonl); name the file itself (--data"),
        (["train.csv", "train.jsonl"], "several train files (train.csv, train.jsonl); name one"),
        (["a_train.csv", "b_train.csv"], "has several train files (a_train.csv, b_train.csv)"),
        (["main/train.csv", "socratic/train.csv"], "several data sets in it (main, socratic)"),
        (["notes.txt"], "(data files: none)"),
    ],
)
def test_a_folder_that_leaves_it_open(tmp_path, names, expected):
    for name in names:
        write(tmp_path / name, lines(qa(5)))
    assert expected in message(split, tmp_path)


def test_the_test_file_named_by_hand(tmp_path):
    train = write(tmp_path / "train.jsonl", lines(qa(5)))
    other = write(tmp_path / "other" / "train.jsonl", lines(qa(5, 10)))
    assert "is both the training and the test file; leave out --test-data" in message(
        split, train, train
    )
    assert "has no test file in it; name the file itself" in message(
        split, train, tmp_path / "other"
    )
    assert split(train, other).test == qa(2, 10)


def test_selection_on_a_test_set_is_refused_unless_allowed(tmp_path):
    write(tmp_path / "test.jsonl", lines(qa(9)))
    text = message(split, tmp_path)
    assert "test.jsonl is a published test set by its name, and experts would be selected" in text
    assert "--allow-test-selection" in text
    found = split(tmp_path, allow_test_selection=True)
    assert found.notes[0] == (
        "experts were selected on items of test.jsonl, a published test set by its name"
    )
    assert len({row["question"] for row in found.train + found.test}) == 5
    other = write(tmp_path / "mine.jsonl", lines(qa(9, 10)))
    assert "is a published test set" in message(split, tmp_path / "test.jsonl", other)
    assert split(other, tmp_path / "test.jsonl").test == qa(2)  # testing on it is what it is for


@pytest.mark.parametrize("published", [("math500",), "MATH 500", lambda path: "500" in path.name])
def test_a_task_names_what_is_only_published_as_a_test_set(tmp_path, published):
    path = write(tmp_path / "MATH-500.jsonl", lines(qa(9)))
    text = message(split, path, published_test=published)
    assert "is a published test set and has no training part" in text
    found = split(path, published_test=published, allow_test_selection=True)
    assert "MATH-500.jsonl, a published test set" in found.notes[0]
    mine = write(tmp_path / "mine.jsonl", lines(qa(9, 20)))
    assert split(mine, path, published_test=published).notes == ()


def by_number(row):
    number = int(row["question"][1:])
    return "train" if 20 <= number < 30 else "test" if number < 15 else None


def test_published_ranges_of_one_file(tmp_path):
    path = write(tmp_path / "all.jsonl", lines(qa(40)))
    found = split(path, ranges=by_number)
    assert (found.train, found.test, found.notes) == (qa(3, 20), qa(2), ())
    assert found.provenance["split"] == "ranges"
    assert len(split(path, ranges=by_number, test_items=None).test) == 15
    assert message(split, path, ranges=by_number, train_items=11) == (
        "all.jsonl has 10 training items (ranges), and 11 were asked for; ask for fewer"
    )


def test_published_ranges_of_other_files(tmp_path):
    only_test = write(tmp_path / "sanitized.jsonl", lines(qa(15)))
    assert "set by its items' numbers" in message(split, only_test, ranges=by_number)
    found = split(only_test, ranges=by_number, allow_test_selection=True)
    assert "experts were selected on items of sanitized.jsonl" in found.notes[0]
    # A file of everything is given for training, beside a test file.
    everything = write(tmp_path / "all.jsonl", lines(qa(40)))
    other = write(tmp_path / "other.jsonl", lines(qa(2, 50)))
    found = split(everything, other, ranges=by_number)
    assert found.train == qa(3, 15)
    assert found.notes == ("15 rows of all.jsonl are published test items and are not trained on",)
    found = split(everything, other, ranges=by_number, allow_test_selection=True)
    assert found.train == qa(3)
    assert "15 rows of all.jsonl, a training file, are published test items" in found.notes[0]


def test_gsm8k_as_the_authors_publish_it():
    found = split(real("gsm8k"), train_items=200, test_items=None)
    assert (len(found.train), len(found.test)) == (200, 1319)
    assert found.train[0]["question"].startswith("Natalia sold clips")
    assert found.test[-1]["answer"].split("####")[1].strip()
    assert found.notes == ()
    assert [file["rows"] for file in found.provenance["files"]] == [7473, 1319]


def test_math500_is_a_test_set():
    assert "is a published test set by its name" in message(split, real("math500"))
    found = split(real("math500"), train_items=200, test_items=300, allow_test_selection=True)
    assert len({json.dumps(row) for row in found.train + found.test}) == 500


def test_mbpp_keeps_its_line_ends_and_ranges():
    path = real("mbpp") / "mbpp.jsonl"
    needed = ("text", "code", "task_id", "test_list")

    def by_task_id(row):
        number = row["task_id"]
        return "train" if 601 <= number <= 974 else "test" if 11 <= number <= 510 else None

    found = split(
        path, needed=needed, ranges=by_task_id, train_items=200, test_items=None, identity=("text",)
    )
    # The text of task 602 is also that of a test task.
    assert [row["task_id"] for row in found.train[:2]] == [601, 603]
    assert "rows of mbpp.jsonl are also test items" in found.notes[0]
    assert [row["task_id"] for row in found.test] == list(range(11, 511))
    assert "\r\n" in found.train[0]["code"]
    texts = {row["text"] for row in found.test}
    assert not texts & {row["text"] for row in found.train}
    whole = split(path, needed=needed, train_items=374 + 100, test_items=500)
    assert len(whole.train) == 474  # without ranges it is any file: split at random


def test_banking77_is_read_as_csv():
    folder = real("banking77")
    found = split(folder, needed=("text", "category"), train_items=10, test_items=None)
    with open(folder / "test.csv", newline="") as file:
        assert found.test == list(csv.DictReader(file))
    assert len(found.test) == 3080
    assert "train.csv line 2 has no 'question', only text, category" in message(split, folder)
