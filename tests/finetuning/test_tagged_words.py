import json
import random

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import AutoConfig

from finetuning.common.data import LabelledDataArguments, Split, load_splits
from finetuning.common.held_out import hold_out
from finetuning.common.tables import TextFormat, read_rows
from finetuning.ner.conll import read_columns, write_predictions
from finetuning.ner.sentences import Sentences, check_types, find_columns, find_types, read_file, read_sentences
from finetuning.ner.tags import (
    as_label,
    check_labels,
    find_entities,
    find_scheme,
    is_legal,
    labels_of,
    model_scheme,
    types_of,
    write_tags,
)
from shared.errors import InputError

# Three words, another entity of that type at once, one of another type, and one alone.
ENTITIES = [("PER", 0, 3), ("PER", 3, 4), ("LOC", 4, 6), ("creative-work", 7, 8)]
WRITTEN = {
    "IOB1": "I-PER I-PER I-PER B-PER I-LOC I-LOC O I-creative-work",
    "IOB2": "B-PER I-PER I-PER B-PER B-LOC I-LOC O B-creative-work",
    "BIOES": "B-PER I-PER E-PER S-PER B-LOC E-LOC O S-creative-work",
}
BILOU = "B-PER I-PER L-PER U-PER B-LOC L-LOC O U-creative-work"


def read(rows, repair=False, **features):
    split = Split(Dataset.from_dict(rows, Features(features) if features else None), "data.json")
    return read_sentences(split, *find_columns(split, None, None, needs_tags=False), repair)


@pytest.mark.parametrize("scheme", WRITTEN)
def test_schemes_by_hand(scheme):
    tags = WRITTEN[scheme].split()
    assert find_entities(tags) == ENTITIES
    assert write_tags(ENTITIES, 8, scheme) == tags
    assert [is_legal(tags, other) for other in WRITTEN] == [other == scheme for other in WRITTEN]
    assert find_scheme([["O"], tags]) == (scheme, [])
    assert read({"tokens": [list("abcdefgh")], "tags": [tags]}).tags == [WRITTEN["IOB2"].split()]


def test_bilou_is_bioes_by_other_letters():
    assert find_entities(BILOU.split()) == ENTITIES
    assert find_scheme([BILOU.split()]) == ("BIOES", [])


def test_any_sentence_goes_there_and_back():
    chance = random.Random(0)
    for _ in range(2000):
        entities, at = [], 0
        while at < 20:
            end = at + chance.randint(1, 4)
            if chance.random() < 0.6:
                entities.append((chance.choice("AB"), at, end))
            at = end
        for scheme in WRITTEN:
            tags = write_tags(entities, 24, scheme)
            assert find_entities(tags) == entities
            assert find_scheme([tags]) == (scheme if entities else "IOB2", [])


def test_the_classes_of_a_model():
    assert labels_of(["PER", "LOC"], "IOB2") == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    assert labels_of(["X"], "BIOES") == ["O", "B-X", "I-X", "E-X", "S-X"]
    assert types_of(["O", "I-b", "B-a", "B-b"]) == ["b", "a"]
    assert labels_of(["X", "Y"], "IO") == ["O", "X", "Y"] and labels_of(["DT", "O"], "POS") == ["DT", "O"]

    def scheme_of(labels, flag="IOB2", known=None):
        ids = {label: i for i, label in enumerate(labels)}
        config = AutoConfig.for_model("bert", label2id=ids, id2label=dict(enumerate(labels)), tag_scheme=known)
        scheme = model_scheme(config, flag)
        check_labels(labels, scheme)
        return scheme

    assert scheme_of(["I-X", "O", "B-X"]) == "IOB2" and scheme_of(["I-X", "O", "B-X"], known="IOB1") == "IOB1"
    assert scheme_of(labels_of(["X"], "BIOES")) == "BIOES"
    assert scheme_of(["NOUN", "O"], "POS") == "POS" and scheme_of(["PER", "O"], "IO") == "IO"
    for labels in (["LABEL_0", "LABEL_1"], ["O", "I-X"], ["O", "B-X", "I-X", "E-X"], ["NOUN", "O"]):
        with pytest.raises(InputError, match=r"the labels of this model are not those of .*say by --tag_scheme"):
            scheme_of(labels)


def test_class_labels_have_the_names_and_their_order():
    names = ["I-LOC", "B-LOC", "O", "I-PER", "B-PER"]
    features = {"words": List(Value("string")), "ner_tags": List(ClassLabel(names=names))}
    rows = {"words": [["a", "b", "c"]], "ner_tags": [[4, 3, 2]]}
    assert read(rows, **features).tags == [["B-PER", "I-PER", "O"]]
    split = Split(Dataset.from_dict(rows, Features(features)), "data")
    assert find_types(split, "ner_tags") == ["LOC", "PER"]  # LOC was declared, and not used
    rows["ner_tags"] = [["B-b", "O", "B-a"]]
    assert find_types(Split(Dataset.from_dict(rows), "data"), "ner_tags") == ["a", "b"]


def test_a_set_without_tags():
    words = [["a", "b"], ["c"]]
    for tags in (None, [None, None], [[None, None], [None]], [[-1, -1], [-1]]):
        features = {"tokens": List(Value("string"))}
        if tags and tags[0] == [-1, -1]:
            features["ner_tags"] = List(ClassLabel(names=["O", "B-X"]))
        elif tags:
            features["ner_tags"] = List(Value("string"))
        assert read({"tokens": words} | ({"ner_tags": tags} if tags else {}), **features) == Sentences(words, None)


def test_repair_reads_what_is_meant_and_counts():
    rows = {"tokens": [["a", "b"], ["c", "d"]], "tags": [["B-X", "I-X"], ["O", "I-X"]]}
    with pytest.raises(
        InputError, match=r"data.json: row 2: I-X of word 2 \('d'\) is not IOB2, as those of row 1 are"
    ) as error:
        read(rows)
    assert "--repair_tags" in str(error.value)
    assert read(rows, repair=True) == Sentences(rows["tokens"], [["B-X", "I-X"], ["O", "B-X"]], repaired=1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"tokens": [["a"], ["b", "c"]], "tags": [["O"], ["O"]]}, "row 2: 2 words and 1 tags"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], ["PER"]]}, "row 2: column tags: 'PER' is no tag"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], ["B--X"]]}, "row 2: column tags: 'B--X' is no tag"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], [None]]}, "row 2: column tags: None is no tag"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], None]}, "row 2: column tags is empty"),
        ({"tokens": [["a"], ["b", None]]}, "row 2: column tokens: a word is missing"),
        ({"tokens": [["a"], None]}, "row 2: column tokens: a word is missing"),
        ({"tokens": ["a b", "c"]}, r"column tokens holds Value\('string'\), not a list"),
        ({"tokens": [[1, 2]]}, "column tokens holds .*int64.*, not words"),
        ({"tokens": [["a"]], "tags": [[3]]}, "column tags holds int64 without names"),
        ({"text": [["a"]]}, "has no column tokens or words .there are text.; name it with --text_column"),
        ({"tokens": [[], []]}, "holds no words"),
        (
            {"tokens": [["a", "b"]] * 2, "tags": [["I-X", "O"], ["S-X", "O"]]},
            "row 2: S-X .* not IOB1, .*are mixed in 1 of 2 rows",
        ),
        ({"tokens": [["a", "b"]] * 2, "tags": [["B-X", "E-Y"], ["S-X", "O"]]}, "row 1: B-X of word 1 .*not BIOES"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(InputError, match="data.json: " + message):
        read(rows)


def test_class_labels_that_are_no_tags():
    features = {"tokens": List(Value("string")), "tags": List(ClassLabel(names=["NOUN", "O"]))}
    with pytest.raises(InputError, match="'NOUN' is no tag"):
        read({"tokens": [["a"]], "tags": [[0]]}, **features)
    features["tags"] = List(ClassLabel(names=["O", "B-X"]))
    with pytest.raises(InputError, match="row 2: column tags: -1 is no tag"):
        read({"tokens": [["a"], ["b"]], "tags": [[0], [-1]]}, **features)


def test_types_and_classes_that_training_does_not_have():
    split = Split(Dataset.from_dict({"tokens": [["a"]]}), "data.json")
    check_types({"test": Sentences([["a"]], None)}, {"test": split}, ["X"])
    with pytest.raises(InputError, match=r"data.json: row 1: an entity of type Y, which training has not seen .*X"):
        check_types({"validation": Sentences([["a"]], [["B-Y"]])}, {"validation": split}, ["X"])
    with pytest.raises(InputError, match="every tag is O; there is nothing to learn"):
        check_types({"train": Sentences([["a"]], [["O"]])}, {"train": split}, [])


@pytest.mark.parametrize(
    "text",
    [
        "a O\nb B-X\n\nc I-X\n",
        "\ufeffa O\r\nb B-X\r\n\r\n\r\nc I-X",
        "-DOCSTART- -X- -X- O\n\na NN x O\nb NN x B-X\n\nc NN x I-X\n\n",
        "a\tO\nb\tB-X\n\t\nc\tI-X\n",
        "# id 1\na  O\nb  B-X\n\n# text = c\nc  I-X\n",
        "-DOCSTART- -X- O O\n\na O\nb B-X\n\n-DOCSTART-\n\nc I-X\n",
    ],
)
def test_files_of_columns(text, tmp_path):
    path = tmp_path / "file.conll"
    path.write_bytes(text.encode())
    rows = read_columns(str(path))
    assert (rows["tokens"][:], rows["tags"][:]) == ([["a", "b"], ["c"]], [["O", "B-X"], ["I-X"]])


def test_words_that_look_like_something_else(tmp_path):
    """Hashes of tweets, other white space, line ends that only Python knows."""
    path = tmp_path / "file.txt"
    path.write_text("#\tO\n#news\tB-X\n\n# \tO\n\u00a0\tO\na\u2028b\tO\n \tO\n", encoding="utf-8")
    rows = read_columns(str(path))
    assert rows["tokens"][:] == [["#", "#news"], ["# ", "\u00a0", "a\u2028b", " "]]


def test_columns_by_number_and_files_of_words_alone(tmp_path):
    path = tmp_path / "file.tsv"
    path.write_text("1\tThe\tO\tO\n2\tSpree\tB-LOC\tO\n")
    rows = read_columns(str(path), "2", "3")
    assert (rows["tokens"][:], rows["tags"][:]) == ([["The", "Spree"]], [["O", "B-LOC"]])
    path.write_text("The\nSpree\n\nflows\n")
    rows = read_columns(str(path))
    assert rows["tokens"][:] == [["The", "Spree"], ["flows"]] and "tags" not in rows.column_names
    split = Split(rows, "file.tsv")
    assert find_columns(split, "1", "2", needs_tags=False) == ("tokens", None)
    with pytest.raises(InputError, match=r"has no column ner_tags or tags"):
        find_columns(split, None, None, needs_tags=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a O\nb\n", "line 2: 1 columns, where the lines before have 2"),
        (b"a O\nb NN\n", "line 2: 'NN' is no tag"),
        (b"a O\n\xff O\n", r"line 2: byte 5 \(0xff\) is not utf-8; say by --file_encoding"),
    ],
)
def test_damaged_files_of_columns(content, message, tmp_path):
    path = tmp_path / "file.conll"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"file.conll: {message}"):
        read_columns(str(path))
    with pytest.raises(InputError, match="No such file"):
        read_columns(str(tmp_path / "other.conll"))


def test_columns_are_numbers():
    with pytest.raises(InputError, match="columns of such a file are numbers"):
        read_columns("tests/data/tagged_validation.conll", "tokens")


def test_lines_are_named_in_files_of_columns(tmp_path):
    path = tmp_path / "file.conll"
    path.write_text("a B-X\n\nb O\nc I-X\n")
    split = Split(read_columns(str(path)), "file.conll")
    with pytest.raises(InputError, match=r"file.conll: sentence 2, from line 3: I-X of word 2 \('c'\)"):
        read_sentences(split, "tokens", "tags", False)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_tables_have_the_rows_of_the_columns(suffix, tmp_path):
    rows = read_columns("tests/data/tagged_validation.conll").remove_columns("line")
    path = str(tmp_path / f"file{suffix}")
    if suffix == ".parquet":
        rows.to_parquet(path)
    elif suffix == ".jsonl":
        rows.to_json(path)
    else:
        (tmp_path / "file.json").write_text(json.dumps(rows.to_list()))
    assert read_rows(path).to_dict() == rows.to_dict()


def test_predictions_are_read_back(tmp_path):
    words = [["a", "b c", "", "\n\u2028"], [], ["d"]]
    tags = [["O", "I-X", "I-X", "B-Y"], [], ["B-X"]]
    write_predictions(tmp_path / "p.conll", words, tags, [[0.5] * 4, [], [1.0]], "IOB2")
    lines = (tmp_path / "p.conll").read_text(encoding="utf-8").split("\n")
    assert lines[:3] == ["a\tO\t0.5000\tO", "b c\tI-X\t0.5000\tB-X", "\tI-X\t0.5000\tI-X"]
    rows = read_columns(str(tmp_path / "p.conll"))
    assert rows["tokens"][:] == [["a", "b c", "", ""], ["d"]]
    assert rows["tags"][:] == [["O", "B-X", "I-X", "B-Y"], ["B-X"]]


TABLE = "Sentence #,Word,POS,Tag\n1,Zoë,NNP,B-per\n,saw,VBD,O\n2,Oslo,NNP,B-geo\n2,.,.,O\n"


def read_table(folder, text, *columns, scheme="IOB2", name="ner.csv", **form):
    path = folder / name
    path.write_bytes(text.encode(form.get("encoding") or "utf-8"))
    return read_file(str(path), TextFormat(**form), columns[:2] or (None, None), *(columns[2:] or (None,)), scheme)


def test_tables_of_words(tmp_path):
    """The input itself says what comes out: ids in each row, or in the first of a sentence."""
    words, tags = [["Zoë", "saw"], ["Oslo", "."]], [["B-per", "O"], ["B-geo", "O"]]
    for rows in (
        read_table(tmp_path, TABLE),
        read_table(tmp_path, TABLE.replace(",", ";"), encoding="cp1252"),
        read_table(tmp_path, TABLE.replace(",", "\t"), name="ner.tsv"),
        read_table(tmp_path, TABLE.replace(",", "\t").replace("Word", "w"), "w", "Tag", None, name="ner.tsv"),
        read_table(tmp_path, TABLE.partition("\n")[2], "b", "d", "a", columns=("a", "b", "c", "d")),
    ):
        assert (rows["tokens"][:], rows["tags"][:], rows["row"][:]) == (words, tags, [1, 3])
    rows = read_table(tmp_path, TABLE, "Word", "POS", None, scheme="POS")
    assert rows["tags"][:] == [["NNP", "VBD"], ["NNP", "."]]
    some = read_sentences(Split(rows, "ner.csv"), "tokens", "tags", False, "POS").in_scheme("POS")
    assert [[as_label(tag, "POS") for tag in row] for row in some.tags] == rows["tags"][:]
    assert find_types(Split(rows, "ner.csv"), "tags", "POS") == [".", "NNP", "VBD"]
    assert "tags" not in read_table(tmp_path, "sentence_id,word,tag\n1,a,\n1,b,\n").column_names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence_id,w\n1,a\n", r"has no column word or token; there are sentence_id, w; name it by --text_column"),
        ("word,tag\na,O\n", "has no column sentence # or sentence_id; .*name it by --sentence_column"),
        ("sentence_id,word,tag\n1,a,O\n1,,O\n", "row 2: column word is empty"),
        ("sentence_id,word,tag\n1,a,O\n1,b,\n", "row 2: column tag is empty"),
        ("sentence_id,word,tag\n,a,O\n", "row 1: column sentence_id is empty"),
        ("sentence_id,word,tag\n1,a,O\n2,b,O\n1,c,O\n", "row 3: column sentence_id: sentence 1 began in row 1"),
    ],
)
def test_damaged_tables_of_words(text, message, tmp_path):
    with pytest.raises(InputError, match=f"ner.csv: {message}"):
        read_table(tmp_path, text)


def test_a_column_has_one_role(tmp_path):
    (tmp_path / "file.conll").write_text("1 a X\n")
    for read_it, flags in (
        (
            lambda: find_columns(Split(Dataset.from_dict({"tokens": [["a"]]}), "d"), None, "tokens", True),
            "label_column",
        ),
        (lambda: read_columns(str(tmp_path / "file.conll"), "3", None, "POS"), "label_column"),
        (lambda: read_table(tmp_path, TABLE, "Word", "Word", scheme="POS"), "label_column"),
        (lambda: read_table(tmp_path, TABLE, "Word", "Tag", "Word"), "sentence_column"),
    ):
        with pytest.raises(InputError, match=f"^--text_column, --{flags}: column .* is taken twice"):
            read_it()
    words = read_columns(str(tmp_path / "file.conll"), "3", "4", "POS")  # a number behind the last: there are no tags
    assert words["tokens"][:] == [["X"]] and "tags" not in words.column_names


def test_labels_without_prefixes():
    """In IO a run of equal labels is an entity, by hand; prefixes in the data are read as such."""
    labels = ["BOOK", "BOOK", "O", "PER", "EVENT", "EVENT"]
    split = Split(Dataset.from_dict({"tokens": [list("abcdef")], "tags": [labels]}), "data.json")
    some = read_sentences(split, "tokens", "tags", False, "IO")
    assert some.tags == [["B-BOOK", "I-BOOK", "O", "B-PER", "B-EVENT", "I-EVENT"]]
    tags = some.in_scheme("IO").tags[0]
    assert find_entities(tags) == [("BOOK", 0, 2), ("PER", 3, 4), ("EVENT", 4, 6)]
    assert [as_label(tag, "IO") for tag in tags] == labels
    prefixed = {"tokens": [["a", "b", "c"]], "tags": [["B-X", "B-X", "O"]]}
    some = read_sentences(Split(Dataset.from_dict(prefixed), "data.json"), "tokens", "tags", False, "IO")
    assert some.tags == prefixed["tags"]


@pytest.mark.parametrize(("scheme", "tags"), [("IOB2", ["B-X", "I-X"]), ("IO", ["X", "X"]), ("POS", ["X", "Y"])])
def test_white_space_around_a_tag_is_none_of_it(scheme, tags, tmp_path):
    spaced = [f" {tags[0]}", f"{tags[1]} "]
    split = Split(Dataset.from_dict({"tokens": [["a", "b"]] * 2, "tags": [tags, spaced]}), "data.json")
    (tmp_path / "file.conll").write_text("".join(f"{w}\t{tag}\n" for w, tag in zip("ab", spaced, strict=True)))
    lines = Split(read_columns(str(tmp_path / "file.conll"), scheme=scheme), "file.conll")
    plain, other = read_sentences(split, "tokens", "tags", False, scheme).tags
    assert [other] == [plain] == read_sentences(lines, "tokens", "tags", False, scheme).tags
    assert find_types(split, "tags", scheme) == sorted({tag.removeprefix("B-").removeprefix("I-") for tag in tags})


def test_parts_of_speech_of_universal_dependencies(tmp_path):
    """The example of https://universaldependencies.org/format.html: contracted and empty words are no words."""
    rows = [
        "# text = vámonos al mar",
        "1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_",
        "1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_",
        "2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_",
        "3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_",
        "3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_",
        "4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_",
        "4.1\tx\tx\tX\t_\t_\t_\t_\t_\t_",
        "5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_",
        "",
    ]
    path = tmp_path / "es.conllu"
    path.write_text("\n".join(rows), encoding="utf-8")
    found = read_columns(str(path), "2", "4", "POS")
    assert found["tokens"][:] == [["vamos", "nos", "a", "el", "mar"]]
    assert found["tags"][:] == [["VERB", "PRON", "ADP", "DET", "NOUN"]]
    assert read_columns(str(path), scheme="POS").to_dict() == found.to_dict()  # FORM and UPOS, unless flags say others
    assert read_columns(str(path), "2", "8", "POS")["tags"][0][:3] == ["root", "obj", "case"]


@pytest.mark.parametrize(("scheme", "tag"), [("POS", "_"), ("IO", "O"), ("IOB2", "O")])
def test_one_tag_for_every_word_is_refused(tmp_path, scheme, tag):
    path = tmp_path / "words.conll"
    path.write_text(f"a {tag}\nb {tag}\n\n" * 3)
    split = Split(read_columns(str(path), scheme=scheme), str(path))
    some = {"train": read_sentences(split, "tokens", "tags", False, scheme)}
    with pytest.raises(InputError, match=f"every tag is {tag}; there is nothing to learn.*--label_column"):
        check_types(some, {"train": split}, find_types(split, "tags", scheme), scheme)


def test_a_held_out_part_has_no_tag_that_training_lacks(tmp_path):
    rows = [{"tokens": [f"w{i}"], "tags": [f"B-T{i}"]} for i in range(20)] + [{"tokens": ["x"], "tags": ["O"]}] * 5
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *({**r, "tokens": ["y"]} for r in rows[:10])]))
    args = LabelledDataArguments(train_file=str(path), validation_fraction=0.5)
    splits = hold_out(load_splits(args)[0], args, ["tokens"], lambda split: split.rows["tags"][:])
    train, held = ({tag for row in splits[name].rows["tags"] for tag in row} for name in ("train", "validation"))
    assert len(train) == 21 and held and held <= train


def test_dividing_for_a_search():
    some = Sentences([[str(i)] for i in range(10)], [["O"] for _ in range(10)])
    train, held_out = some.divide(0.3, seed=1)
    assert (len(train.words), len(held_out.words)) == (7, 3)
    assert sorted(train.words + held_out.words) == some.words and some.divide(0.3, seed=1)[1] == held_out
    assert some.divide(0.3, seed=2)[1] != held_out
    with pytest.raises(InputError, match="one sentence cannot be divided"):
        Sentences([["a"]], [["O"]]).divide(0.5, 0)
