import gzip
import json
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared import rows
from shared.documents import Documents
from shared.errors import InputError
from shared.rows import NAMES, SCHEMA, find_sources, read_rows, write_rows


def read(path, start=0):
    return list(read_rows(find_sources([str(path)])[0], start))


def test_known_columns_stay_and_others_go_into_metadata(tmp_path):
    row = {"text": "a", "url": "u", "date": datetime(2026, 11, 1), "score": 3, "language_score": 1, "tags": ["x"]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(json.dumps(row | {"date": "2026-11-01T00:00:00"}) + "\n")
    for name in ("a.parquet", "a.jsonl"):
        [(position, share, document, problem)] = read(tmp_path / name)
        assert (position, share, problem) == (1, 1.0, "")
        assert tuple(document) == NAMES
        assert document["date"] == "2026-11-01T00:00:00"
        assert document["language_score"] == 1.0
        assert document["id"] == f"{name}:0"
        assert json.loads(document["metadata"]) == {"score": 3, "tags": ["x"]}


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ('"metadata": ["b"]', ""),
        ('"metadata": 3', ""),
        ('"metadata": "[1]"', ""),
        ('"offset": 1e400', "offset is not a number"),
        ('"offset": 1180591620717411303424', "offset is not a number"),
        ('"language_score": 1' + "0" * 400, "language_score is not a number"),
    ],
)
def test_any_value_of_a_known_column_is_read_or_costs_its_row(tmp_path, column, problem):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "extra": 1, {column}}}\n{{"text": "b"}}\n')
    first, second = read(tmp_path / "a.jsonl")
    assert (first[3], second[3]) == (problem, "")
    if not problem:
        assert json.loads(first[2]["metadata"]).keys() == {"metadata", "extra"}


def test_reading_goes_on_from_every_position(tmp_path):
    content = [{"text": f"document {i}"} for i in range(700)]
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "a.parquet", row_group_size=150)
    lines = "".join(json.dumps(row) + "\n" for row in content)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.txt").write_text("\n \n\n".join(row["text"] for row in content))
    for name in ("a.parquet", "a.jsonl", "b.jsonl.gz", "c.txt"):
        whole = read(tmp_path / name)
        assert [document["text"] for *_, document, _ in whole] == [row["text"] for row in content]
        for index in (0, 1, 149, 150, 255, 256, 699, 700):
            start = whole[index - 1][0] if index else 0
            assert read(tmp_path / name, start) == whole[index:]


def test_damaged_records_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 50)
    lines = [b'{"text": "good"}', b"{", b"[1]", b'{"text": 5}', b'{"body": "x"}', b'{"text": "' + b"x" * 500 + b'"}']
    lines += [b'{"text": "\\ud800nul\\u0000"}', b"[" * 40, b'{"text": "a", "offset": "x"}', b'{"text": "end"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    found = read(tmp_path / "a.jsonl")
    assert [problem for *_, problem in found] == [
        "",
        "line is not JSON",
        "line is not an object",
        "text is not a string",
        "text is missing",
        "line longer than 50 bytes",
        "",
        "line is not JSON",
        "offset is not a number",
        "",
    ]
    assert [row["text"] for *_, row, _ in found if row] == ["good", "nul", "end"]


def test_a_cut_gzip_file_keeps_what_can_be_read(tmp_path):
    lines = "".join(json.dumps({"text": f"{i} {hash(str(i))}"}) + "\n" for i in range(5000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:20_000])
    found = read(tmp_path / "a.jsonl.gz")
    assert len(found) > 500
    assert found[-1][3] == "damaged gzip file: the rest is lost"
    assert all(problem == "" for *_, problem in found[:-2])  # the line before may be cut
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(lines.replace("\n", "\n\n").encode())[:20_000])
    *whole, last = read(tmp_path / "a.txt.gz")
    assert len(whole) > 500 and last[3] == "damaged gzip file: the rest is lost"
    assert [row["text"] for *_, row, _ in whole] == lines.splitlines()[: len(whole)]
    for name, places in (("a.jsonl.gz", [found[-2][0], found[-1][0]]), ("a.txt.gz", [whole[-1][0], last[0]])):
        rest = [[problem for *_, problem in read(tmp_path / name, start)] for start in places]
        assert rest == [["damaged gzip file: the rest is lost"], []]  # what was said is not said again


def test_parquet_that_is_not_utf_8_costs_the_row_only(tmp_path):
    bad = pa.array([b"fine", b"\xff", b"also fine"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    assert [problem for *_, problem in read(tmp_path / "a.parquet")] == ["", "not valid UTF-8", ""]


def test_a_time_beyond_those_of_python_stays_a_number(tmp_path):
    seconds = pa.array([1714521600000, 1714521600]).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", "b"], "date": seconds, "seen": seconds}), tmp_path / "a.parquet")
    first, second = (document for *_, document, _ in read(tmp_path / "a.parquet"))
    assert (first["date"], second["date"]) == ("1714521600000000", "2024-05-01T00:00:00")
    assert json.loads(first["metadata"]) == {"seen": 1714521600000000}
    lists = pa.table({"text": ["a", "b"], "seen": pa.ListArray.from_arrays([0, 1, 2], seconds)})
    pq.write_table(lists, tmp_path / "b.parquet")
    assert [problem for *_, problem in read(tmp_path / "b.parquet")] == ["seen cannot be read", ""]


def test_unusable_input_is_named(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "a.parquet").write_text("x")
    (tmp_path / "b.jsonl").write_text('{"body": "x"}\n')
    (tmp_path / "empty").mkdir()
    for inputs, message in [
        ([], "name files or folders"),
        ([str(tmp_path / "a.docx")], "unknown kind"),
        ([str(tmp_path / "none")], "no such file"),
        ([str(tmp_path / "empty")], "no file in this folder"),
        ([str(tmp_path / "b.jsonl"), str(tmp_path / "b.jsonl")], "named twice"),
    ]:
        with pytest.raises(InputError, match=message):
            find_sources(inputs)
    (tmp_path / "list.json").write_text('[{"text": "x"}]\n')
    (tmp_path / "wide.json").write_text('{"text": "x"}\n', encoding="utf-16")
    for name, message in [
        ("a.parquet", "not a readable parquet"),
        ("b.jsonl", "no field 'text' among body"),
        ("list.json", r"line 1: not JSON lines .*list; it is a list: jq -c '\.\[\]'"),
        ("wide.json", r"line 1: not JSON lines .*it is in UTF-16: iconv -f utf-16"),
    ]:
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_the_folder_of_a_stage_gives_its_documents_alone(tmp_path):
    (tmp_path / ".state").mkdir()
    (tmp_path / "dropped").mkdir()
    document = dict.fromkeys(NAMES) | {"text": "kept"}
    write_rows(tmp_path / "00000-00000.parquet", [document], SCHEMA)
    write_rows(tmp_path / "dropped" / "00000-00000.parquet", [document | {"text": "dropped"}], SCHEMA)
    for reader in (lambda: find_sources([str(tmp_path)]), lambda: Documents([str(tmp_path)])):
        with pytest.raises(InputError, match="has not finished"):
            reader()
    names = ["00000-00000.parquet", "dropped/00000-00000.parquet"]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": dict.fromkeys(names)}))
    assert [source.index for source in find_sources([str(tmp_path)])] == [0]
    assert list(Documents([str(tmp_path)])) == ["kept"]


def test_a_stage_that_kept_nothing_adds_nothing(tmp_path):
    (tmp_path / "empty" / ".state").mkdir(parents=True)
    (tmp_path / "empty" / "manifest.json").write_text('{"files": {}}')
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    assert list(Documents([str(tmp_path / "empty"), str(tmp_path / "a.jsonl")])) == ["a"]
    with pytest.raises(InputError, match="empty: its stage kept no document"):
        find_sources([str(tmp_path / "empty")])


def test_nan_is_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "title": NaN, "score": NaN, "more": [NaN, 1]}\n{"text": NaN}\n')
    pq.write_table(pa.table({"text": ["a"], "title": [float("nan")], "more": [float("nan")]}), tmp_path / "b.parquet")
    (*_, row, _), (*_, problem) = read(tmp_path / "a.jsonl")
    assert row["title"] is None and json.loads(row["metadata"]) == {"more": [None, 1]}
    assert problem == "text is missing"
    ((*_, row, _),) = read(tmp_path / "b.parquet")
    assert row["title"] is None and row["metadata"] is None


def test_a_folder_above_those_of_stages_is_refused(tmp_path):
    for name in ("web", "wikipedia"):
        (tmp_path / "data" / name / ".state").mkdir(parents=True)
    (tmp_path / "data" / "a.jsonl").write_text('{"text": "a"}\n')
    for reader in (find_sources, Documents):
        with pytest.raises(InputError, match=r"name the folders to read instead: .*/data/web, .*/data/wikipedia"):
            reader([str(tmp_path / "data")])


def test_written_bytes_depend_on_the_rows_alone(tmp_path):
    documents = [dict.fromkeys(NAMES) | {"text": f"text {i}"} for i in range(3000)]
    for name in ("a", "b"):
        write_rows(tmp_path / name, documents, SCHEMA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_binary_text_column_is_text_where_it_is_utf8(tmp_path):
    pq.write_table(pa.table({"text": ["é".encode(), b"\xe9"]}), tmp_path / "a.parquet")
    (source,) = find_sources([str(tmp_path)])
    found = [(row and row["text"], problem) for _, _, row, problem in read_rows(source)]
    assert found == [("é", ""), (None, "not valid UTF-8")]


def test_a_text_beyond_the_limit_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.rows.MAX_TEXT_CHARACTERS", 5)
    (tmp_path / "a.jsonl").write_text('{"text": "12345"}\n{"text": "123456"}\n')
    (source,) = find_sources([str(tmp_path)])
    assert [problem for *_, problem in read_rows(source)] == ["", "text longer than 5 characters"]


def test_linked_folders_are_read_and_lead_nobody_in_circles(tmp_path):
    for name in ("here", "there/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.jsonl").write_text(json.dumps({"text": name}) + "\n")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "linked" / "deep" / "back").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "up").symlink_to(tmp_path)
    assert sorted(Documents([str(tmp_path / "here")])) == ["here", "there/deep"]
    (tmp_path / "there" / "deep" / ".state").mkdir()
    with pytest.raises(InputError, match="holds the output of stages"):
        find_sources([str(tmp_path / "here")])


def test_links_that_lead_nowhere_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match=r"1 symbolic links lead nowhere, the first .*b\.jsonl"):
        find_sources([str(tmp_path)])
    (tmp_path / "b.jsonl").unlink()  # the way out that it names
    assert len(find_sources([str(tmp_path)])) == 1
