import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.documents import Documents, is_held_out
from shared.errors import InputError


def test_every_format_gives_the_same_documents(tmp_path, texts):
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=7)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "a.txt").write_text("\n\n\n".join(texts))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write((tmp_path / "a.jsonl").read_text())
    (tmp_path / "bom").mkdir()
    for name in ("a.jsonl", "a.txt"):
        (tmp_path / "bom" / name).write_text((tmp_path / name).read_text(), encoding="utf-8-sig")
    for name in ("a.parquet", "a.jsonl", "a.txt", "b.jsonl.gz", "bom/a.jsonl", "bom/a.txt"):
        documents = Documents([str(tmp_path / name)])
        assert list(documents) == list(documents.progress("reading")) == texts
    (tmp_path / "manifest.json").write_text("{}")  # what our own scripts leave beside their text is not text
    assert list(Documents([str(tmp_path)])) == texts * 6


def test_bad_records_are_skipped_and_counted(tmp_path):
    lines = ['{"text": "good"}', "not json", '{"txt": 1}', '{"text": null}', '{"text": 5}', '{"text": "\\ud800"}', ""]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.txt").write_bytes(b"fine\n\nlatin \xe9\n\nalso fine\n")
    documents = Documents([str(tmp_path)])
    assert list(documents) == ["good", "fine", "also fine"]
    assert documents.skipped == {
        "line is not JSON": 1,
        "no field 'text'": 1,
        "empty text": 1,
        "text is not a string": 1,
        "lone surrogate in text": 1,
        "not valid UTF-8": 1,
    }


def test_damage_to_parquet_is_named_or_costs_the_row(tmp_path):
    bad = pa.array([b"fine", b"\xff", b"also fine"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    documents = Documents([str(tmp_path)])
    assert list(documents) == ["fine", "also fine"] and documents.skipped == {"not valid UTF-8": 1}

    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": [f"document {i}" for i in range(5000)]}), path, compression="none")
    whole = bytearray(path.read_bytes())
    whole[4:40] = bytes(36)  # the header of the first page
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"b\.parquet: damaged parquet file"):
        list(Documents([str(path)]))


def test_unusable_inputs_are_named(tmp_path):
    pq.write_table(pa.table({"body": ["x"], "title": ["y"]}), tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text('[{"text": "x"}]\n')
    (tmp_path / "c.json").write_text('{"text": "x"}\n', encoding="utf-16")
    (tmp_path / "c.docx").write_text("x")
    (tmp_path / "d.parquet").write_text("not parquet")
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"x" * 100_000)[:50])
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("a.parquet", "no column 'text' among body, title"),
        ("b.json", r"line 1: not JSON lines .*list; it is a list: jq -c '\.\[\]'"),
        ("c.json", r"line 1: not JSON lines .*it is in UTF-16: iconv -f utf-16"),
        ("c.docx", "unknown kind of file"),
        ("d.parquet", "not a readable parquet file"),
        ("e.txt.gz", "damaged gzip file"),
        ("empty", "no file in this folder"),
        ("missing.txt", "no such file or folder"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            list(Documents([str(tmp_path / name)]))
        assert name in str(error.value)
    with pytest.raises(InputError, match=r"b\.json: is named twice"):
        Documents([str(tmp_path / "b.json"), str(tmp_path / "empty" / ".." / "b.json")])
    with pytest.raises(InputError, match="no text, or two kinds"):
        Documents([])
    with pytest.raises(InputError, match="give files and folders as such"):
        Documents(dataset_name=str(tmp_path))
    with pytest.raises(InputError, match="nobody/nothing"):
        list(Documents(dataset_name="nobody/nothing"))
    with pytest.raises(InputError, match="nobody/nothing: not found on the Hub"):
        Documents(dataset_name="nobody/nothing").describe()


def test_description_changes_with_the_content(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = Documents([str(tmp_path)]).describe()
    (tmp_path / "a.txt").write_text("two")
    assert Documents([str(tmp_path)]).describe() != before


def test_held_out_share_is_right_and_does_not_depend_on_other_documents():
    texts = [f"document {i}" for i in range(20_000)]
    assert sum(is_held_out(text, 0.1) for text in texts) == pytest.approx(2000, rel=0.1)
    assert not any(is_held_out(text, 0.0) for text in texts)
    assert all(is_held_out(text, 0.2) for text in texts if is_held_out(text, 0.1))
