"""The script: what is kept and dropped and why, flags, masking, models, resume, hostile input."""

import json
import shutil
from multiprocessing.reduction import ForkingPickler

import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from test_quality_rules import GOOD

from data_prep.engine.stage import StageArguments
from data_prep.filter_documents import FilterArguments, chosen_rules, main, make_step
from data_prep.quality.models import load_fasttext, load_kenlm
from data_prep.quality.personal_data import mask_personal_data
from data_prep.quality.rules import RULES
from data_prep.quality.step import Filter
from shared.command_line import parse_arguments
from shared.errors import InputError
from shared.files import sha256_of
from shared.rows import find_sources

FASTTEXT = ROOT / "tests" / "data" / "good_or_bad.fasttext.bin"
MENU = "\n".join(["Home", "About us", "Contact"] * 20)
ROWS = [
    {"id": "1", "url": "http://a.org/1", "text": GOOD, "language": "en", "language_score": 0.99},
    {"id": "2", "url": "http://a.org/2", "text": "Too short.", "language": "en", "language_score": 0.5},
    {"id": "3", "url": "http://a.org/3", "text": f"Cookie policy of this site.\n{GOOD}\nsee also", "language": "en"},
    {"id": "4", "url": "http://a.org/4", "text": "", "language": None},
    {"id": "5", "url": "http://a.org/5", "text": MENU, "language": "en", "language_score": 0.7},
    {"id": "6", "url": "http://a.org/6", "text": GOOD.replace("the", "der"), "language": "de", "language_score": 0.9},
]


@pytest.fixture
def run(tmp_path):
    """Filter rows with flags; return (manifest, kept rows, dropped rows)."""

    def filter_rows(rows, *flags, name="out", workers="1"):
        source = tmp_path / "in.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        stage, args = parse_arguments(
            [StageArguments, FilterArguments],
            ["--input", str(source), "--output_dir", str(tmp_path / name), "--workers", workers, *flags],
        )
        manifest = main(stage, args)
        return manifest, read(tmp_path / name), read(tmp_path / name / "dropped")

    return filter_rows


def read(folder):
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_what_is_kept_is_cleaned_and_what_is_dropped_says_why(run):
    manifest, kept, dropped = run(ROWS)
    assert [(row["id"], row["text"]) for row in kept] == [("1", GOOD), ("3", GOOD), ("6", ROWS[5]["text"])]
    assert kept[0]["url"] == "http://a.org/1" and kept[0]["language"] == "en"
    assert [(row["id"], row["reason"], row["detail"]) for row in dropped] == [
        ("2", "gopher: one 2-gram of words makes up too much", "gopher_top_2_gram 0.9, at most 0.2"),
        ("4", "no text", ""),
        ("5", "gopher: too many duplicate lines", "gopher_duplicate_lines 0.95, at most 0.3"),
    ]
    assert manifest["counts"]["in"] == 6 and manifest["counts"]["kept"] == 3
    assert manifest["counts"]["dropped"] == {
        "gopher: one 2-gram of words makes up too much": 1,
        "gopher: too many duplicate lines": 1,
        "no text": 1,
    }
    assert manifest["settings"]["rules"]["fineweb_short_lines"] == 0.67


def test_rules_are_switched_and_their_thresholds_changed(run):
    kept = {name: [row["id"] for row in run(ROWS, *flags, name=name)[1]] for name, flags in {
        "set": ["--rules", "gopher_quality"],
        "rule": ["--rules", "gopher_min_words"],
        "off": ["--rules", "gopher_quality", "--disable", "gopher_min_words", "gopher_stop_words",
                "gopher_words_with_letter"],
        "other": ["--rules", "gopher_min_words", "--thresholds", "gopher_min_words=2"],
    }.items()}  # fmt: skip
    assert kept == {"set": ["1", "3", "6"], "rule": ["1", "3", "5", "6"], "off": ["1", "2", "3", "5", "6"],
                    "other": ["1", "2", "3", "5", "6"]}  # fmt: skip


def test_sets_named_in_another_order_are_the_same():
    named = FilterArguments(rules=["fineweb", "c4", "gopher_min_words"])
    other = FilterArguments(rules=["gopher_min_words", "c4", "fineweb"])
    assert list(chosen_rules(named).items()) == list(chosen_rules(other).items())
    assert next(iter(chosen_rules(named))) == "gopher_min_words"


def test_the_manifest_says_which_rules_were_skipped_and_in_which_language_rows_were_judged(run):
    rows = [{"id": "1", "text": GOOD}, {"id": "2", "text": "Ясно."}, {"id": "3", "text": GOOD, "language": "de"}]
    manifest, _, _ = run([*rows, {"id": "4", "text": "東京。", "language": "ja"}], "--rules", "gopher_quality")
    assert manifest["counts"]["judged_as"] == {"de": 1, "en": 1, "ja": 1, "unknown": 1}
    skipped = manifest["counts"]["skipped_rules"]
    assert (
        skipped["gopher_stop_words"] == 3 and skipped["gopher_max_word_length"] == 2
    )  # not of German: it has its own
    assert skipped["gopher_min_words"] == 1


def test_language_is_a_rule(run):
    _, kept, dropped = run(ROWS, "--languages", "en", "--min_language_score", "0.65", "--rules", "language")
    assert [row["id"] for row in kept] == ["1", "3", "5"]  # row 3 has no score
    assert [(row["id"], row["reason"], row["detail"]) for row in dropped] == [
        ("2", "language: language not certain enough", "language_score 0.5, at least 0.65"),
        ("4", "language: not one of those wanted", "language None"),
        ("6", "language: not one of those wanted", "language de"),
    ]


def test_word_lists_by_language(run, tmp_path):
    words = tmp_path / "german.txt"
    words.write_text("und\nDarn\n\n two words \n")
    flags = [
        "--rules",
        "c4_bad_words",
        "gopher_stop_words",
        "--bad_words",
        f"en={words}",
        "--stop_words",
        f"deu={words}",
    ]
    rows = [
        {"id": "1", "text": "The best of darning, and that with two   words", "language": "en"},
        {"id": "2", "text": "The best of it. DARN! to be and that", "language": "en"},
        {"id": "3", "text": "der Fluss und darn das Boot", "language": "de"},
        {"id": "4", "text": "der Fluss und das Boot", "language": "de"},
        {"id": "5", "text": "le fleuve et le bateau", "language": "fr"},
    ]
    _, kept, dropped = run(rows, *flags)
    assert [row["id"] for row in kept] == ["1", "3", "5"]
    assert [row["reason"] for row in dropped] == ["c4: holds bad words", "gopher: too few stop words"]
    words.write_text("other\n")
    with pytest.raises(InputError, match="other settings"):
        run(rows, *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--languages", "de", "english"], "--languages english: not a code"),
        (["--rules", "gopher_qualty"], "did you mean gopher_quality"),
        (["--disable", "c4_java"], "did you mean c4_javascript"),
        (["--thresholds", "gopher_min_word=3"], "did you mean gopher_min_words"),
        (["--thresholds", "gopher_min_words"], "NAME=NUMBER"),
        (["--thresholds", "gopher_min_words=nan"], "NAME=NUMBER"),
        (["--thresholds", "c4_javascript=1"], "--disable c4_javascript"),
        (["--rules", "c4", "--thresholds", "gopher_min_words=9"], "--thresholds gopher_min_words=9: .* not applied"),
        (["--rules", "c4", "--stop_words", "de=x"], "--stop_words: is for gopher_stop_words or bigscience_stop_words"),
        (["--rules", "c4_bad_words"], "--bad_words LANGUAGE=FILE"),
        (["--bad_words", "words.txt"], "write LANGUAGE=FILE"),
        (["--bad_words", "en=missing.txt"], "No such file"),
        (["--stop_words", "en=/dev/null"], "no words"),
        (["--stop_words", f"german={__file__}"], "--stop_words german: not a code"),
        (["--stop_words", f"en={__file__}", f"en={__file__}"], "en is named twice; put its words into one file"),
        (["--fasttext_model", "missing.bin"], "--fasttext_label"),
        (["--fasttext_model", "missing.bin", "--fasttext_label", "a", "--min_fasttext_score", "0.5"], "no such file"),
        (["--min_fasttext_score", "0.5"], "name the --fasttext_model"),
        (["--kenlm_model", "missing.arpa"], "name --max_perplexity"),
        (["--kenlm_model", "missing.arpa", "--max_perplexity", "9"], "no such file"),
        (["--max_perplexity", "9"], "name the --kenlm_model"),
        (["--why", "http://nowhere.org"], "no document of the input"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(run, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(ROWS, *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+x@mail.example.co.uk.", "Write to email@example.com."),
        ("(a@b.org, c@d.org; e@f.org)", "(email@example.com, firstname.lastname@example.org; email@example.com)"),
        ("Server 8.8.8.8, and 1.1.1.1.", "Server 22.214.171.124, and 126.96.36.199."),
        ("at 192.168.1.1, 10.0.0.1, 127.0.0.1", "at 192.168.1.1, 10.0.0.1, 127.0.0.1"),
        ("version 1.2.3.4.5, 999.1.1.1 and 8.8.8.8.8", "version 1.2.3.4.5, 999.1.1.1 and 8.8.8.8.8"),
        ("me@localhost @handle a@b x@1.2", "me@localhost @handle a@b x@1.2"),
        ("müller@straße.de -jo@a.org", "email@example.com -firstname.lastname@example.org"),
    ],
)
def test_personal_data_is_masked(text, masked):
    assert mask_personal_data(text) == masked


def test_masking_takes_no_time_and_is_off_by_default(run):
    for text in ("a" * 10**6 + "@", "a." * 500_000 + "@b", "a@" * 500_000, "1." * 500_000, "a@" + "b." * 500_000):
        assert mask_personal_data(text)
    row = ROWS[0] | {"text": f"{GOOD}\nThe inn is reached at inn@river.net by those who want to stay for longer."}
    assert "inn@river.net" in run([row])[1][0]["text"]
    assert "email@example.com by those" in run([row], "--mask_pii", name="masked")[1][0]["text"]


def test_explain_writes_every_rule_of_every_document(run, tmp_path):
    _, kept, dropped = run(ROWS, "--explain")
    rows = read(tmp_path / "out" / "explain")
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    decisions = {row["id"]: row["decision"] for row in rows}
    assert decisions == {row["id"]: "kept" for row in kept} | {row["id"]: row["reason"] for row in dropped}
    on = {name for name in chosen_rules(FilterArguments()) if RULES[name].measure}
    measured = {row["id"]: set(json.loads(row["values"])) for row in rows}
    assert all(measured[row["id"]] == on for row in ROWS if row["language"] == "en")
    assert all(names <= on for names in measured.values()), "rules that are English say nothing of other languages"
    short = json.loads(rows[1]["values"])
    assert (short["gopher_min_words"], short["c4_sentences"], short["fineweb_line_punctuation"]) == (2, 0, None)
    assert [row["text"] for row in run(ROWS, name="plain")[1]] == [row["text"] for row in kept]


def test_why_answers_for_one_document_and_writes_nothing(run, tmp_path, capsys):
    for key in ("http://a.org/5", "5"):
        assert run_why(run, key) == {}
        said = capsys.readouterr().out
        assert "gopher_duplicate_lines" in said and "0.95   at most 0.3" in said and "drops it" in said
        assert "dropped: gopher: too many duplicate lines" in said
    assert run_why(run, "http://a.org/1") == {}
    said = capsys.readouterr().out
    assert f"kept: {len(GOOD)} characters are left" in said and "drops it" not in said
    assert not (tmp_path / "out").exists()


def run_why(run, key):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.filter_documents.run_stage", None)
        return run(ROWS, "--why", key)[0]


def test_fasttext_scores(run, tmp_path):
    pytest.importorskip("fasttext", reason="fasttext-predict is not installed")
    rows = [
        {"id": "1", "text": "we have to be with the people of the town\nthe cat sat on the mat and it was happy"},
        {"id": "2", "text": "cheap pills casino click buy click casino win money"},
    ]
    model = tmp_path / "model.bin"
    shutil.copy(FASTTEXT, model)
    flags = ["--rules", "models", "--fasttext_model", str(model), "--fasttext_label", "good", "--min_fasttext_score"]
    manifest, kept, dropped = run(rows, *flags, "0.5")
    assert [row["id"] for row in kept] == ["1"]
    assert dropped[0]["reason"] == "models: fastText score too low"
    assert manifest["settings"]["fasttext_model"] not in (None, str(model))  # its hash
    with pytest.raises(InputError, match="did you mean __label__good"):
        make_step(FilterArguments(fasttext_model=str(model), fasttext_label="god", min_fasttext_score=0.5))
    load_fasttext.cache_clear()
    model.write_bytes(model.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="other settings"):
        run(rows, *flags, "0.5")
    model.write_bytes(b"no model")
    load_fasttext.cache_clear()
    with pytest.raises(InputError, match="not a fastText model"):
        run(rows, *flags, "0.5")


def arpa(*known):
    """A model in which each of these words, and the end of a line, has the chance .1, and any other .001."""
    unigrams = ["-3\t<unk>\t0", "-99\t<s>\t0", "-1\t</s>\t0", *(f"-1\t{word}\t0" for word in known)]
    parts = ["\\data\\", f"ngram 1={len(unigrams)}", "ngram 2=1", "", "\\1-grams:", *unigrams, ""]
    return "\n".join([*parts, "\\2-grams:", f"-1\t<s> {known[0]}", "", "\\end\\", ""])


def test_kenlm_perplexity(run, tmp_path):
    pytest.importorskip("kenlm", reason="kenlm is not installed")
    model = tmp_path / "unigrams.arpa"
    model.write_text(arpa("the", "river"))
    rows = [{"id": "1", "text": "the river\nthe river the"}, {"id": "2", "text": "casino the click"}]
    _, kept, dropped = run(rows, "--rules", "models", "--kenlm_model", str(model), "--max_perplexity", "50")
    assert [row["id"] for row in kept] == ["1"]
    # Log10 of -3, -1, -3 and -1 for the end: 8 over 4 words.
    assert (dropped[0]["reason"], dropped[0]["detail"]) == (
        "models: perplexity too high",
        "max_perplexity 100, at most 50",
    )
    score = load_kenlm(str(model), None)
    assert score("the river\n\nthe river the") == pytest.approx(10) and score("") == 1


def test_sentencepiece_splits_for_kenlm(run, tmp_path):
    """The language model knows the pieces of a text and none of its words."""
    pytest.importorskip("kenlm", reason="kenlm is not installed")
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(GOOD.split("\n")), model_prefix=str(tmp_path / "pieces"), vocab_size=60, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "pieces.model"))
    text = "the people of the town"
    found = pieces.encode(text, out_type=str)
    assert not {*found} & {*text.split()}
    model = tmp_path / "unigrams.arpa"
    model.write_text(arpa(*sorted({*found})))
    flags = ["--rules", "models", "--kenlm_model", str(model), "--max_perplexity"]
    _, kept, dropped = run([{"id": "1", "text": text}], *flags, "300", name="words")
    # Log10 of five times -3, and -1 for the end: 16 over 6 words.
    assert not kept and dropped[0]["detail"] == "max_perplexity 464.2, at most 300"
    load_kenlm.cache_clear()
    flags += ["10.1", "--sentencepiece_model", str(tmp_path / "pieces.model")]
    manifest, kept, _ = run([{"id": "1", "text": text}], *flags, name="pieces")
    assert [row["text"] for row in kept] == [text], "each piece, and the end, has the chance .1"
    assert manifest["settings"]["sentencepiece_model"] == sha256_of(tmp_path / "pieces.model")


def test_a_start_in_the_middle_gives_the_same(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    step, _, _ = make_step(FilterArguments(explain=True, mask_pii=True))
    (found,) = find_sources([str(source)])
    every = list(step(found, 0))
    for i, outcome in enumerate(every):
        assert list(step(found, outcome.position)) == every[i + 1 :]


def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[i:] + ROWS[:i]))
    files = {}
    for workers in (1, 2):
        stage = StageArguments(
            str(tmp_path / f"out{workers}"), [str(tmp_path / f"{i}.jsonl") for i in range(3)], workers, part_records=4
        )
        files[workers] = main(stage, FilterArguments(explain=True))["files"]
    assert files[1] == files[2] and len(files[1]) > 10


def test_hostile_documents_do_no_harm(run):
    texts = [
        "\ud800\x00" + GOOD,
        "(" * 300_000,
        "a-" * 200_000,
        "{" * 1000,
        "x" * 5_000_001,
        "word " * 200_000,
        "\n" * 500_000,
        "🙂 " * 1000,
        "=cmd|' /C calc'!A0",
        "a\u2028b\x85c " * 500,
    ]
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    manifest, kept, dropped = run([*rows, {"id": "no text"}, {"id": "number", "text": 5}], "--mask_pii",
                                  "--max_bad_records", "0.5")  # fmt: skip
    assert [(row["id"], row["text"]) for row in kept] == [("0", GOOD)]
    assert {row["id"]: row["reason"] for row in dropped}["4"] == "longer than 5,000,000 characters"
    assert manifest["counts"]["bad"] == {"text is missing": 1, "text is not a string": 1}


@pytest.mark.parametrize("recipe", ["web", "wikipedia", "olm"])
def test_recipes_keep_good_text(recipe, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:5]))
    path = ROOT / "data_prep" / "recipes" / f"filter_{recipe}.yaml"
    stage, args = parse_arguments(
        [StageArguments, FilterArguments],
        ["--config", str(path), "--input", str(source), "--output_dir", str(tmp_path / "out"), "--workers", "1"],
    )
    main(stage, args)
    assert [row["id"] for row in read(tmp_path / "out")] == ["1", "3"]


def test_the_step_can_be_sent_to_another_machine():
    step, _, _ = make_step(FilterArguments(languages=["en"]))
    assert ForkingPickler.loads(ForkingPickler.dumps(step)) == step and isinstance(step, Filter)
