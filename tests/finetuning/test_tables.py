"""Reading tables: what was written comes back, and what is wrong is one line with file and row."""

import datetime
import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.common.data import LabelledDataArguments, load_splits
from finetuning.common.held_out import hold_out
from finetuning.common.tables import TextFormat, read_rows
from finetuning.glue.columns import about_rows, settle_columns
from finetuning.glue.labels import MULTI, REGRESSION, SINGLE, encode_labels, find_names, find_problem_type, read_labels
from finetuning.run_glue import DataArguments
from shared.errors import InputError

TEXTS = ["Zoë's café, 5 €", 'He said "no";\nthen left', "a\tb|c", "NA", "007", "1.50", "日本語"]
COLUMNS = {"sentence": TEXTS, "label": list("abcabca"), "note": [None] * 6 + ["late"]}


def write(folder, data, name="file.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


@pytest.mark.parametrize(
    ("encoding", "separator", "suffix", "flags"),
    [
        ("utf-8", ",", ".csv", {}),
        ("utf-8-sig", ";", ".csv", {}),
        ("utf-16", "\t", ".csv", {}),
        ("utf-32", "|", ".CSV", {}),
        ("cp932", ",", ".csv.gz", {"encoding": "cp932"}),
        ("utf-16-le", ";", ".csv.gz", {"encoding": "utf-16-le"}),
        ("utf-8", "~", ".csv", {"separator": "~"}),
        ("utf-8", "\t", ".tsv", {"quotes": True}),
    ],
)
def test_what_pandas_writes_is_read_back(encoding, separator, suffix, flags, tmp_path, capsys):
    begin = int(encoding == "cp932")  # which has neither ë nor €
    columns = {name: values[begin:] for name, values in COLUMNS.items()}
    data = pd.DataFrame(columns).to_csv(index=False, sep=separator).encode(encoding)
    path = write(tmp_path, gzip.compress(data) if suffix.endswith(".gz") else data, f"file{suffix}")
    rows = read_rows(path, TextFormat(**flags))
    assert rows.to_dict() == columns
    said = capsys.readouterr().out
    assert ("separated by" in said) == (separator in ";\t|" and suffix.lower() != ".tsv")
    assert ("byte order mark" in said) == (encoding in ("utf-16", "utf-32"))


def test_western_european_files_name_the_flag_that_reads_them(tmp_path):
    path = write(tmp_path, "sentence,label\nfirst,x\ncafé – 5 €,y\n".encode("cp1252"))
    with pytest.raises(
        InputError, match=r"file.csv: line 3: byte 27 \(0xe9\) is not utf-8; say by --file_encoding .*cp1252"
    ):
        read_rows(path)
    assert read_rows(path, TextFormat("cp1252"))["sentence"][:] == ["first", "café – 5 €"]
    with pytest.raises(InputError, match="--file_encoding utf-99: unknown; for example"):
        read_rows(path, TextFormat("utf-99"))
    path = write(tmp_path, "sentence,label\na,x\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"line 1: holds a NUL .* --file_encoding utf-16-le"):
        read_rows(path)
    assert read_rows(path, TextFormat("UTF_16LE"))["sentence"][:] == ["a"]
    path = write(tmp_path, "sentence,label\na,x\n".encode("utf-16"))
    with pytest.raises(InputError, match="byte order mark of utf-16-le: remove --file_encoding latin-1"):
        read_rows(path, TextFormat("latin-1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence,label\na,x\nb\n", r"row 2 \(line 3\): 1 columns, where the header has 2"),
        ('sentence,label\n"a\nb",x\nb,c,y\n', r"row 2 \(line 4\): 3 columns, .*--csv_separator"),
        ('sentence,label\na,x\n"b,y\nc,y\n', r"row 2 \(line 3\): unexpected end of data; .*--csv_quotes false"),
        ('sentence,label\n"a" b,x\n', r"row 1 \(line 2\): ',' expected"),
        ("sentence,label\na\0b,x\n", "line 2: holds a NUL character"),
        ("text,label,label\na,x,y\n", "row 1, the header: two columns are called label"),
        ("text,a;label,b\n", "row 1, the header, holds , and ;: say by --csv_separator"),
        ("sentence,label\n", "holds no rows"),
        ("\n\n", "holds no rows"),
    ],
)
def test_damage_is_named(text, message, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=f"file.csv: {message}"):
        load_splits(LabelledDataArguments(train_file=path))


def test_ways_out_of_quotes_headers_and_separators(tmp_path):
    plain = TextFormat(quotes=False)
    assert read_rows(write(tmp_path, 'sentence,label\n"a" b,x\n'), plain)["sentence"][:] == ['"a" b']
    semicolons = TextFormat(separator=";")
    assert read_rows(write(tmp_path, "text,a;label\nq,r;x\n"), semicolons).to_dict() == {
        "text,a": ["q,r"],
        "label": ["x"],
    }
    spam = "v1,v2,,,\nham,hello,,,\nspam,win,a,,\n"  # as Kaggle has it
    assert read_rows(write(tmp_path, spam))["v2"][:] == ["hello", "win"]
    path = write(tmp_path, "a good film,1\na bad film,0\n")
    with pytest.raises(InputError, match=r"no column sentence; there are a good film, 1; .*--column_names"):
        settle(path)
    assert settle(path, column_names=["sentence", "label"])["train"].rows["label"][:] == [1, 0]
    with pytest.raises(InputError, match="line 1 is a header: remove --column_names"):
        read_rows(write(tmp_path, "a,b\n1,2\n"), TextFormat(columns=("a", "b")))
    for flag in ("tab", "\\t", "\t"):
        assert DataArguments(csv_separator=flag).text_format.separator == "\t"
    with pytest.raises(InputError, match="--csv_separator ::: must be one character"):
        DataArguments(csv_separator="::")


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(b"sentence,label\na,x\n")
    for data in (whole[:-9], b"sentence,label\n"):
        with pytest.raises(InputError, match=r"file.csv.gz: damaged gzip file"):
            read_rows(write(tmp_path, data, "file.csv.gz"))


def test_json_by_its_values(tmp_path):
    lines = '{"s": "a", "label": 0, "n": null, "day": "2020-01-01"}\n\n{"s": "b", "label": "other", "n": [1]}\n'
    wanted = {"s": ["a", "b"], "label": ["0", "other"], "n": [None, [1]], "day": ["2020-01-01", None]}
    for name, data in (
        ("a.jsonl", lines.encode("utf-16")),
        ("a.jsonl.gz", gzip.compress(lines.encode())),
        ("a.ndjson", b"\xef\xbb\xbf" + lines.encode()),
        ("a.json", f"[{lines.strip().replace(chr(10) * 2, ',')}]"),
    ):
        assert read_rows(write(tmp_path, data, name)).to_dict() == wanted
    for name in ("a.json", "a.jsonl"):  # one row, which holds a list
        assert read_rows(write(tmp_path, '{"a": [1, 2]}', name)).to_dict() == {"a": [[1, 2]]}
    for text, message in (
        ('{"a": 1}\n{"a": 2\n', "line 2: not JSON"),
        ('{"a": 1}\n[2]\n', "row 2: is list, not an object"),
        ('{"a": "\\ud800"}\n', "row 1: column a: holds half of a surrogate pair"),
    ):
        with pytest.raises(InputError, match=f"a.jsonl: {message}"):
            read_rows(write(tmp_path, text, "a.jsonl"))


def settle(path, **flags):
    args = DataArguments(train_file=path, **flags)
    splits, _ = load_splits(args)
    return settle_columns(hold_out(splits, args, args.text_flags, args.labels_of), args)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["0", "1", "-1"], "int64"),
        (["0.0", "1.0"], "float64"),
        (["1", "2.5", "1e-3"], "float64"),
        (["01", "02"], "string"),
        (["0", "1", "other"], "string"),
        (["1", "A10001"], "string"),
        (["True", "False"], "string"),
    ],
)
def test_a_column_is_numbers_if_every_row_is_one(values, kind, tmp_path):
    """With 10,002 rows: readers that look at the first ones alone call the last value an error."""
    rows = values[:-1] * 10_002 + values[-1:]
    path = write(tmp_path, pd.DataFrame({"sentence": "a", "label": rows}).to_csv(index=False))
    split = settle(path)["train"]
    assert split.rows.features["label"].dtype == kind
    as_pandas = pd.read_csv(io.StringIO("\n".join(["label", *rows])), dtype=str)["label"].tolist()
    assert split.rows["label"][:] == [v if kind == "string" else float(v) for v in as_pandas]


@pytest.mark.parametrize("value", ["NaN", "inf", " -Infinity"])
def test_what_is_no_number_among_scores_is_named(value, tmp_path):
    good, bad = "sentence,label\na,0.5\nb,2\n", f"sentence,label\na,1\nb,2.5\nc,{value}\n"
    for train, validation, name in ((bad, good, "file"), (good, bad, "v")):
        args = DataArguments(train_file=write(tmp_path, train), validation_file=write(tmp_path, validation, "v.csv"))
        with pytest.raises(InputError, match=rf"{name}.csv: row 3: column label holds {value.strip()}, not a number"):
            settle_columns(load_splits(args)[0], args)
    classes = {"problem_type": "single_label_classification"}
    for others, flags in (("x", {}), ("1", {}), ("0.5", classes)):  # names of classes
        split = settle(write(tmp_path, f"sentence,label\na,{others}\nb,{value}\n"), **flags)["train"]
        assert read_labels(split, "label", SINGLE) == [others, value.strip()]


def test_among_whole_numbers_the_row_that_is_no_score_is_named(tmp_path):
    path, bad = write(tmp_path, "sentence,label\na,1\nb,2\n"), write(tmp_path, "sentence,label\na,3\nb,nan\n", "v.csv")
    args = DataArguments(train_file=path, validation_file=bad, problem_type=REGRESSION)
    splits = settle_columns(load_splits(args)[0], args)
    assert read_labels(splits["train"], "label", REGRESSION) == [1.0, 2.0]
    with pytest.raises(InputError, match=r"v\.csv: row 2: column label holds 'nan', not a number"):
        read_labels(splits["validation"], "label", REGRESSION)


def test_numbers_in_one_split_and_names_in_another_are_names(tmp_path):
    path = write(tmp_path, "sentence,label\na,0\nb,1\n")
    args = DataArguments(train_file=path, validation_file=write(tmp_path, "sentence,label\na,0\nb,none\n", "v.csv"))
    splits = settle_columns(load_splits(args)[0], args)
    assert [split.rows.features["label"].dtype for split in splits.values()] == ["string", "string"]
    with pytest.raises(InputError, match=r"row 2: column label holds '3,5': write a decimal point"):
        settle(write(tmp_path, "sentence;label\na;2\nb;3,5\n"))


def test_folders_of_tables_are_read_like_files(tmp_path):
    """load_dataset would guess from 10,000 rows that ids and labels are numbers, and fail."""
    rows = "".join(f"a,{i % 2},{i}\n" for i in range(10_001)) + "b,other,A1\n"
    write(tmp_path, f"sentence,label,id\n{rows}", "train.csv")
    args = DataArguments(dataset_name=str(tmp_path))
    split = settle_columns(load_splits(args)[0], args)["train"]
    assert split.rows[-1] == {"sentence": "b", "id": "A1", "label": "other"} and split.rows["id"][10] == "10"
    with pytest.raises(InputError, match="--column_names: are for files"):
        load_splits(DataArguments(dataset_name="nobody/nothing", column_names=["a"]))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_white_space_around_a_label_is_none_of_it(suffix, tmp_path):
    labels, path = ["neg", " neg", "pos\t"], str(tmp_path / f"file{suffix}")
    frame = pd.DataFrame({"sentence": list("abc"), "label": labels})
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    found = read_labels(settle(path)["train"], "label", SINGLE)
    assert found == ["neg", "neg", "pos"]
    assert encode_labels(found, {"pos": 0, " neg": 1}, None, SINGLE) == [1, 1, 0]  # of a checkpoint that has it
    if suffix != ".csv":
        frame["label"] = [["neg", " pos"], [" neg"], [" "]]
        frame.to_json(path, orient="records", lines=True) if suffix == ".jsonl" else frame.to_parquet(path)
        split = settle(path)["train"]
        assert read_labels(split.take([0, 1]), "label", MULTI) == [["neg", "pos"], ["neg"]]
        with pytest.raises(InputError, match=r"row 3: column label holds \[' '\], with an empty label"):
            read_labels(split, "label", MULTI)


def test_minus_one_is_a_class_of_whole_numbers(tmp_path):
    split = settle(write(tmp_path, "sentence,label\na,-1\nb,+1\nc,0\n"))["train"]
    assert read_labels(split, "label", SINGLE) == ["-1", "1", "0"]


def test_rows_that_lack_something(tmp_path, capsys):
    path = write(tmp_path, "sentence,label\na,x\n,y\nb, \nc,y\n")
    with pytest.raises(InputError, match=r"row 2: column sentence is empty; .*--drop_incomplete_rows"):
        settle(path)
    split = settle(path, drop_incomplete_rows=True)["train"]
    assert (split.rows["sentence"][:], split.rows["label"][:]) == (["a", "c"], ["x", "y"])
    assert split.left_out == {"sentence is empty": 1, "label is empty": 1} and split.name(1).endswith("row 4")
    assert (
        "2 of 4 rows are left out: column sentence is empty in 1, column label is empty in 1"
        in capsys.readouterr().out
    )
    args = DataArguments(test_file=write(tmp_path, "sentence,label\na,\nb,\n"))
    assert settle_columns(load_splits(args)[0], args)["test"].rows.column_names == ["sentence"]


def test_pairs_are_trained_on_in_both_orders(tmp_path):
    path = write(tmp_path, "a,b,label\np,q,x\nr,,y\ns,t,y\n")
    pair = {"text_column": "a", "text_pair_column": "b", "drop_incomplete_rows": True}
    split = settle(path, both_orders=True, **pair)["train"]
    assert split.rows.to_dict() == {
        "a": ["p", "s", "q", "t"],
        "b": ["q", "t", "p", "s"],
        "label": ["x", "y", "x", "y"],
    }
    assert [split.number(i) for i in range(4)] == [1, 3, 1, 3]  # of the rows in the file
    args = DataArguments(validation_file=path, both_orders=True, **pair)
    assert len(settle_columns(load_splits(args)[0], args)["validation"].rows) == 2
    with pytest.raises(
        InputError, match="--both_orders: there is one text; name the second one by --text_pair_column"
    ):
        settle(path, both_orders=True, text_column="a")


@pytest.mark.parametrize(
    ("columns", "flags"),
    [
        ({"text_column": "a", "text_pair_column": "a"}, "--text_column, --text_pair_column"),
        ({"text_column": "a", "label_column": "a"}, "--text_column, --label_column"),
        (
            {"text_column": "x", "text_pair_column": "a", "label_columns": ["b", "a"]},
            "--text_pair_column, --label_columns",
        ),
        ({"label_columns": ["a", "b", "a"]}, "--label_columns"),
        ({"task_name": "mrpc", "text_column": "a", "text_pair_column": "a"}, "--text_column, --text_pair_column"),
    ],
)
def test_a_column_has_one_role(columns, flags):
    with pytest.raises(InputError, match=f"^{flags}: column a is taken twice; each needs one of its own"):
        DataArguments(**columns)


def test_several_labels_in_a_row(tmp_path):
    """The same labels as pandas' get_dummies has of the lists, by both flags."""
    lists = pd.Series(["b; a", "", "c", "a"])
    dummies = lists.str.replace(" ", "").str.get_dummies(";").drop(columns="", errors="ignore")
    frame = pd.concat([pd.DataFrame({"sentence": list("pqrs"), "label": lists}), dummies], axis=1)
    path = write(tmp_path, frame.to_csv(index=False))
    for flags in ({"label_columns": ["a", "b", "c"]}, {"label_separator": ";"}):
        split = settle(path, **flags)["train"]
        labels = read_labels(split, "label", MULTI)
        names = find_names(labels, split, "label", find_problem_type(split, "label"))
        assert names == list(dummies)
        assert [[int(name in row) for name in names] for row in labels] == dummies.to_numpy().tolist()
    with pytest.raises(InputError, match=r"row 1: column sentence holds 'p', which is neither 0 nor 1"):
        settle(path, text_column="a", label_columns=["b", "sentence"])
    with pytest.raises(InputError, match=r"has no column d; .*name it by --label_columns"):
        settle(path, label_columns=["a", "d"])
    with pytest.raises(InputError, match="give one of the two"):
        DataArguments(label_columns=["a"], label_separator=";")
    with pytest.raises(InputError, match="--label_separator: means several labels a row"):
        DataArguments(label_separator=";", task_name="sst2")


def test_a_number_that_is_none_is_a_missing_label(tmp_path):
    path = str(tmp_path / "scores.parquet")
    pq.write_table(pa.table({"sentence": ["a", "b"], "label": [1.5, float("nan")]}), path)
    with pytest.raises(InputError, match="row 2: column label is empty"):
        settle(path)


def test_a_folder_of_the_same_name_is_another_one(tmp_path):
    """The library's cache knows a folder whose page names its files by its name and that page alone."""
    page = "---\nconfigs:\n- config_name: default\n  data_files: [{split: validation, path: a.jsonl}]\n---\n"
    found = []
    for parent, value in (("one", "a"), ("two", "b"), ("two", "c"), ("one", "a")):
        folder = tmp_path / parent / "data"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(page)
        (folder / "a.jsonl").write_text(json.dumps({"sentence": value}))
        splits, hashes = load_splits(LabelledDataArguments(dataset_name=str(folder)))
        assert splits["validation"].rows["sentence"][:] == [value]
        found.append(hashes)
    assert found[0] == found[3] and len({str(hashes) for hashes in found}) == 3  # what is recorded is the content


def test_ids_may_be_dates(tmp_path):
    path = str(tmp_path / "dates.parquet")
    days = [datetime.date(2026, 12, day) for day in (1, 2)]
    pq.write_table(pa.table({"sentence": ["a", "b"], "label": ["x", "y"], "day": days}), path)
    rows = about_rows(settle(path)["train"], DataArguments(train_file=path, id_column="day"))
    assert [json.loads(json.dumps(row))["id"] for row in rows] == ["2026-12-01", "2026-12-02"]


def test_a_row_stays_on_its_side_of_the_held_out_part(tmp_path):
    rows = [(f"Text number {i}.", "xyz"[i % 3]) for i in range(600)] + [("Rare one", "r"), ("rare two", "r")]

    def sides(rows):
        path = write(tmp_path, pd.DataFrame(rows, columns=["sentence", "label"]).to_csv(index=False))
        splits = settle(path, validation_fraction=0.2)
        return [set(splits[name].rows["sentence"][:]) for name in ("train", "validation")], splits

    (train, held), splits = sides(rows)
    assert not train & held and len(train | held) == 602
    for label in "xyzr":  # about a fifth (four standard deviations of 200 draws), and both sides of a rare label
        share = splits["validation"].rows["label"][:].count(label) / sum(row[1] == label for row in rows)
        assert 0.087 < share < 0.313 if label != "r" else share == 0.5
    assert [splits["train"].number(i) for i in range(3)] == [
        rows.index(row) + 1
        for row in list(zip(*(splits["train"].rows[c][:3] for c in ("sentence", "label")), strict=True))
    ]
    again = [(f"TEXT  number {i}", "z") for i in range(0, 600, 7)]  # the same texts, written in another way
    (train2, held2), _ = sides(rows[::-1] + again + [(f"New {i}", "x") for i in range(100)])
    assert train <= train2 and held <= held2
    assert {text for text in train2 if text.startswith("TEXT")} == {
        f"TEXT  number {i}" for i in range(0, 600, 7) if f"Text number {i}." in train
    }
    path = write(tmp_path, "sentence,label\n" + "".join(f"text {i},{i // 2 if i < 40 else i}\n" for i in range(60)))
    splits = settle(path, validation_fraction=0.5)  # pairs of rows with a label, and labels of one row
    labels = [splits[name].rows["label"][:] for name in ("train", "validation")]
    assert len(labels[0]) == 40 and len(set(labels[0])) == 40 and len(set(labels[1])) == 20
    scores = [f"text {i},{i * 37 % 101 / 20}" for i in range(600)]  # a score in some six rows each, or in one
    for more in ([], [f"alone {i},0.{1000 + i}" for i in range(100)]):
        path = write(tmp_path, "\n".join(["sentence,label", *scores, *more]))
        share = len(settle(path, validation_fraction=0.1)["validation"].rows) / (600 + len(more))
        assert 0.05 < share < 0.15  # four standard deviations
    marks = ["sentence,a,b,c,d,e,f,g,h", *(f"text {i},{','.join(f'{i:08b}')}" for i in range(256))]
    path = write(tmp_path, "\n".join(marks))  # each combination once, and each mark in half of the rows
    held = settle(path, validation_fraction=0.1, label_columns=list("abcdefgh"))["validation"].rows
    assert 0.025 < len(held) / 256 < 0.175
    path = write(tmp_path, "sentence,label\n" + "".join(f"text {i},x;r{i % 128}\n" for i in range(256)))
    held = settle(path, validation_fraction=0.1, label_separator=";")["validation"].rows["label"][:]
    assert {label for row in held for label in row} == {"x", *(f"r{i}" for i in range(128))}
    numbers = write(tmp_path, '{"sentence": 1, "label": "x"}\n{"sentence": null, "label": "y"}\n', "n.jsonl")
    with pytest.raises(InputError, match=r"n\.jsonl: column sentence holds int64, not text"):
        settle(numbers, validation_fraction=0.5)
    path = write(tmp_path, "sentence,label\na,x\nA.,y\n")
    with pytest.raises(InputError, match="has too few texts"):
        settle(path, validation_fraction=0.5)
    with pytest.raises(InputError, match="--validation_fraction: there is a validation split"):
        settle(path, validation_fraction=0.5, validation_file=path)
    with pytest.raises(InputError, match=r"has no column text; .*name it by --text_column"):
        settle(path, validation_fraction=0.5, text_column="text")


def test_the_line_for_excel_that_names_the_separator(tmp_path, capsys):
    for sign in ";\t~,":
        found = read_rows(write(tmp_path, f"sep={sign}\r\ntext{sign}label\r\na{sign}x\r\n"))
        assert found.to_dict() == {"text": ["a"], "label": ["x"]}
    assert capsys.readouterr().out.count("as its first line says") == 3
    with pytest.raises(InputError, match=r"row 1 \(line 3\): 3 columns"):
        read_rows(write(tmp_path, "sep=;\ntext;label\na;b;c\n"))
    found = read_rows(write(tmp_path, "sep=,text\n1,2\n"))  # a header that only begins so
    assert found.to_dict() == {"sep=": ["1"], "text": ["2"]}


@pytest.mark.parametrize("name", ["file.csv", "file.tsv", "file.jsonl"])
def test_files_of_other_kinds_are_named(tmp_path, name):
    frame, buffers = pd.DataFrame({"text": ["a"]}), {kind: io.BytesIO() for kind in ("zip", "parquet", "gzip", "xz")}
    frame.to_parquet(buffers["parquet"])
    for kind in ("zip", "gzip", "xz"):
        frame.to_csv(buffers[kind], compression=kind)
    for kind, buffer in buffers.items():
        with pytest.raises(InputError, match=f"{name}: is no text but .*{kind}"):
            read_rows(write(tmp_path, buffer.getvalue(), name))


def test_rows_within_an_object(tmp_path):
    rows = '[{"text": "a"}, {"text": "b"}]'
    with pytest.raises(InputError, match="is one object, and its rows stand in data: write that list"):
        read_rows(write(tmp_path, f'{{"version": 1, "data": {rows}}}', "a.json"))
    assert read_rows(write(tmp_path, rows, "a.json"))["text"][:] == ["a", "b"]  # the way out


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("a.parquet", {"csv_separator": ";"}),
        ("a.parquet", {"file_encoding": "cp1252"}),
        ("a.jsonl", {"csv_quotes": True}),
        ("a.jsonl", {"column_names": ["text"]}),
        ("a.csv", {"dataset_config_name": "plain"}),
    ],
)
def test_flags_of_other_kinds_of_files_are_refused(tmp_path, name, flags):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": ["a"]}), path)
    else:
        path.write_text({"csv": "text\na\n", "jsonl": '{"text": "a"}\n'}[name[2:]])
    with pytest.raises(InputError, match=rf"^--{next(iter(flags))}: "):
        load_splits(DataArguments(train_file=str(path), **flags))
    assert len(load_splits(DataArguments(train_file=str(path)))[0]["train"].rows) == 1
