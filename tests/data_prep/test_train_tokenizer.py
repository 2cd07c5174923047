import hashlib
import json
import os
import subprocess
import sys
from functools import partial

import pytest
from conftest import ROOT, SENTENCES
from transformers import AutoTokenizer

from data_prep.extend_tokenizer import ExtensionArguments
from data_prep.tokens.characters import Characters, bert_normalizer
from data_prep.train_tokenizer import TokenizerArguments, describe_tokenizer, main, train_tokenizer
from shared.command_line import parse_arguments
from shared.documents import Documents, is_held_out
from shared.errors import InputError
from shared.tokenizer import load_tokenizer, special_tokens, tokenizer_hash


@pytest.mark.parametrize("kind", ["wordpiece", pytest.param("bpe", marks=pytest.mark.faults)])
def test_same_bytes_whatever_the_number_of_threads(tmp_path, kind):
    # The licence is hard on chance: most of its pairs are equally frequent.
    digests = set()
    for threads in ("1", "5"):
        command = [sys.executable, "data_prep/train_tokenizer.py", "--input", str(tmp_path / "words.txt")]
        (tmp_path / "words.txt").write_text((ROOT / "LICENSE").read_text() * 3)
        command += ["--tokenizer_type", kind, "--vocab_size", "956", "--output_dir", str(tmp_path / threads)]
        subprocess.run(command, check=True, env=os.environ | {"RAYON_NUM_THREADS": threads}, capture_output=True)
        files = sorted((tmp_path / threads).iterdir())
        digests.add(hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest())
    assert len(digests) == 1


def test_saved_folder_loads_as_a_plain_tokenizer(tmp_path, bpe):
    bpe.save_pretrained(tmp_path / "bpe")
    args = TokenizerArguments(
        str(tmp_path / "t"), [str(SENTENCES)], vocab_size=200, reserved_entries=0, model_max_length=64
    )
    args.reference_tokenizer = str(tmp_path / "bpe")
    report = main(args)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert len(tokenizer) == 200
    assert tokenizer.model_max_length == 64
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4] and tokenizer.pad_token_id == 0
    assert tokenizer.tokenize("The Baker") == tokenizer.tokenize("the baker")
    ids = tokenizer("the baker fed a horse")["input_ids"]
    assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the baker fed a horse"
    assert json.loads((tmp_path / "t" / "report.json").read_text()) == report
    assert report["trained"]["unknown_share"] == 0
    assert report[args.reference_tokenizer]["vocab_size"] == 400


def test_bpe_has_the_ids_that_roberta_counts_on(bpe):
    assert [bpe.convert_tokens_to_ids(t) for t in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [0, 1, 2, 3, 4]
    text = "Ünïcode, tabs\tand\nlines"
    assert bpe.decode(bpe(text)["input_ids"], skip_special_tokens=True) == text
    assert bpe("a <mask>")["input_ids"][-2:] == [4, 2]


def test_cased_wordpiece_keeps_case():
    args = TokenizerArguments("", vocab_size=200, reserved_entries=0, do_lower_case=False)
    tokenizer, _ = train_tokenizer(Documents([str(SENTENCES)]), args, quiet=True)
    assert tokenizer.decode(tokenizer("The baker")["input_ids"], skip_special_tokens=True) == "The baker"


def test_report_counts(wordpiece):
    row = describe_tokenizer(wordpiece, ["the the", "€"])
    assert row["tokens_per_word"] == 1 and row["unknown_share"] == pytest.approx(1 / 3)
    assert row["bytes_per_token"] == pytest.approx(10 / 3)


def test_held_out_documents_do_not_shape_the_vocabulary(tmp_path):
    main(
        TokenizerArguments(
            str(tmp_path / "t"), [str(SENTENCES)], vocab_size=200, reserved_entries=0, validation_fraction=0.5
        )
    )
    everything, _ = train_tokenizer(
        Documents([str(SENTENCES)]), TokenizerArguments("", vocab_size=200, reserved_entries=0), quiet=True
    )
    assert tokenizer_hash(AutoTokenizer.from_pretrained(tmp_path / "t")) != tokenizer_hash(everything)


def test_held_out_text_of_blanks_is_not_described(tmp_path):
    texts = [text for text in SENTENCES.read_text().split("\n\n") if not is_held_out(text, 0.2)]
    texts += [" " * spaces for spaces in range(1, 30)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    wishes = {"vocab_size": 200, "reserved_entries": 0, "validation_fraction": 0.2}
    report = main(TokenizerArguments(str(tmp_path / "t"), [str(tmp_path / "in.jsonl")], **wishes))
    assert report["held_out_documents"] > 0 and "trained" not in report


def test_impossible_wishes_are_refused(tmp_path):
    for size, message in [(100_000, "words enough for"), (20, "characters need")]:
        with pytest.raises(InputError, match=message):
            main(TokenizerArguments(str(tmp_path / "t"), [str(SENTENCES)], vocab_size=size, reserved_entries=0))
    with pytest.raises(InputError, match="--reserved_entries 300"):
        TokenizerArguments("", vocab_size=200, reserved_entries=300)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match="no text"):
        main(TokenizerArguments(str(tmp_path / "t"), [str(tmp_path / "empty.txt")]))
    for kind in ("auto", "bpe"):
        wishes = {"tokenizer_type": kind, "validation_fraction": 0.999999}
        with pytest.raises(InputError, match=r"--validation_fraction 0\.999999: all text is held out"):
            main(TokenizerArguments(str(tmp_path / "t"), [str(SENTENCES)], **wishes))
    with pytest.raises(InputError, match="tokenizer nowhere: could not be loaded"):
        main(TokenizerArguments(str(tmp_path / "t"), [str(SENTENCES)], reference_tokenizer="nowhere"))
    assert not (tmp_path / "t").exists()
    with pytest.raises(InputError, match="not an empty folder"):
        main(TokenizerArguments(str(tmp_path), [str(SENTENCES)]))


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 200), ("bpe", 400)])
def test_reserved_entries_change_nothing_but_the_size(kind, size):
    args = TokenizerArguments("", tokenizer_type=kind, vocab_size=size, reserved_entries=0)
    plain, _ = train_tokenizer(Documents([str(SENTENCES)]), args, quiet=True)
    args.vocab_size, args.reserved_entries = size + 48, 48
    more, _ = train_tokenizer(Documents([str(SENTENCES)]), args, quiet=True)
    assert len(more) == size + 48
    assert more.convert_ids_to_tokens([size, size + 47]) == ["[unused0]", "[unused47]"]
    text = SENTENCES.read_text() + " [unused0] "
    assert more(text)["input_ids"] == plain(text)["input_ids"]
    assert more.all_special_ids == plain.all_special_ids


def test_special_tokens_follow_the_template(wordpiece, bpe):
    assert special_tokens(wordpiece).separator == [wordpiece.sep_token_id]
    assert special_tokens(bpe).separator == [bpe.sep_token_id] * 2


def test_tokenizers_that_cannot_mask_are_refused(tmp_path, bpe):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=bpe.backend_tokenizer, pad_token="<pad>").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no mask_token"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="could not be loaded"):
        load_tokenizer(tmp_path / "nowhere")


SAMPLES = {
    "hi": "हिन्दी भाषा की कुछ पुस्तकें पढ़ी जाती हैं और ज़मीन बड़ी है",
    "ja": "パンダとハンダは違います。がぎぐげご、ばびぶべぼ、ぱぴぷぺぽ。東京都に住む",
    "ko": "한국어 문장은 띄어쓰기가 있습니다 그리고 책을 읽는다",
    "th": "ภาษาไทยเขียนติดกันไม่เว้นวรรคระหว่างคำ",
    "ar": "كَتَبَ الوَلَدُ الدَّرْسَ فِي المَدْرَسَةِ",
    "he": "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם",
    "fa": "می\u200cخواهم کتاب\u200cها را بخوانم",
    "vi": "ma má mà mả mã mạ là sáu từ khác nhau trong tiếng việt",
    "ru": "мой чёрный йод и ещё её моё",
    "el": "η ελληνική γλώσσα έχει πολλούς τόνους",
    "zh": "中文句子没有空格，但是每个汉字都是一个词。",
}


@pytest.mark.parametrize("length", ["0", "-3"])
def test_a_length_below_one_is_refused(length):
    with pytest.raises(InputError, match=f"--model_max_length {length}: must be at least 1"):
        parse_arguments([TokenizerArguments], ["--output_dir", "out", "--model_max_length", length])


@pytest.mark.parametrize("arguments", [TokenizerArguments, partial(ExtensionArguments, "tokenizer")])
def test_a_share_that_is_none_is_refused(arguments):
    with pytest.raises(InputError, match=r"--validation_fraction 1\.5: must be"):
        arguments("out", validation_fraction=1.5)


@pytest.mark.parametrize("language", SAMPLES)
def test_no_script_loses_a_letter(tmp_path, language):
    text = SAMPLES[language]
    (tmp_path / "a.txt").write_text(f"{text}\n\n" * 50)
    args = TokenizerArguments("", vocab_size=320, reserved_entries=0, validation_fraction=0.0)
    try:
        tokenizer, _ = train_tokenizer(Documents([str(tmp_path / "a.txt")]), args, quiet=True)
    except InputError as error:  # so short a text fills no more
        args.vocab_size = int(str(error).split("enough for ")[1].split()[0])
        tokenizer, _ = train_tokenizer(Documents([str(tmp_path / "a.txt")]), args, quiet=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    row = describe_tokenizer(tokenizer, [text])
    assert row["unknown_share"] == row["changed_letters"] == 0


def test_accents_go_where_they_are_few_and_nothing_else_would(tmp_path):
    def accents(text):
        return Characters([text]).decide_accents(True, None)

    english = SENTENCES.read_text()
    assert accents(english + "café")
    assert not accents("les élèves ont été reçus à l'école " * 9)
    assert not accents(english + "हिन्दी" * 100)
    assert not Characters([english]).decide_accents(False, None)
    with pytest.raises(InputError, match="--strip_accents false"):
        Characters(["हिन्दी पुस्तक"]).decide_accents(True, True)
    assert not Characters(["हिन्दी पुस्तक"]).decide_accents(True, False)
    # Of its six characters one, the virama, is a nonspacing mark (Mn), which BERT strips.
    assert Characters(["हिन्दी"]).changed(bert_normalizer(True, True)) == pytest.approx(1 / 6)
    assert Characters(["ÉÈ"]).changed(bert_normalizer(True, True)) == 0


def test_large_alphabets_are_kept(tmp_path):
    characters = [chr(0x4E00 + i) for i in range(3000)]
    texts = Characters(["".join(characters)] * 2)
    assert texts.alphabet(bert_normalizer(True, False), 10_000) == characters[: len(characters) - 1]
    assert len(texts.alphabet(bert_normalizer(True, False), 500)) == 1000
