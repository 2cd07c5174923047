import hashlib
import json
import os
import subprocess
import sys

import pytest
from conftest import SENTENCES
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from data_prep.extend_tokenizer import ExtensionArguments, main
from data_prep.tokens.new_words import find_new_words, is_word, word_splitter
from data_prep.train_tokenizer import TokenizerArguments, train_tokenizer
from shared.documents import Documents
from shared.errors import InputError

KINDS = ("wordpiece", "bpe", "unigram")
RESERVED = 6
# None of these is in sentences.txt; the number is how often each occurs in `month`.
WORDS = {"podcasters": 40, "vlogging": 30, "qubits": 20}


def unigram_tokenizer():
    """As SentencePiece trains one, with unused entries behind its pieces."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learner = Tokenizer(models.Unigram())
    learner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = sorted("abcdefghijklmnopqrstuvwxyz")
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(SENTENCES.read_text().splitlines(), trainer)
    learner.decoder = decoders.Metaspace()
    ids = {token: learner.token_to_id(token) for token in special}
    edges = [("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
    learner.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", edges)
    content = json.loads(learner.to_str())
    content["model"]["vocab"] += [[f"[unused{i}]", -200.0] for i in range(RESERVED)]
    roles = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    roles |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **roles)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Folders of a tokenizer of each kind, with RESERVED unused entries."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind, size in (("wordpiece", 200), ("bpe", 400)):
        args = TokenizerArguments("", tokenizer_type=kind, vocab_size=size + RESERVED, reserved_entries=RESERVED)
        train_tokenizer(Documents([str(SENTENCES)]), args, quiet=True)[0].save_pretrained(folder / kind)
    unigram_tokenizer().save_pretrained(folder / "unigram")
    return folder


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    """New words, with punctuation and what is none, and a few old sentences."""
    file = tmp_path_factory.mktemp("month") / "month.txt"
    old = SENTENCES.read_text().strip().split("\n\n")[:6]
    new = [f"2023 {word}, {i}-4" for word, count in WORDS.items() for i in range(count)]
    file.write_text("\n\n".join([*old, *new]))
    return file


def extend(folder, kind, month, output, **flags):
    settings = {"min_count": 20, "validation_fraction": 0.05} | flags
    report = main(ExtensionArguments(str(folder / kind), str(output), [str(month)], **settings))
    return report, AutoTokenizer.from_pretrained(output)


@pytest.mark.parametrize("kind", KINDS)
def test_new_words_are_one_token_and_old_text_is_read_as_before(tokenizers, month, tmp_path, kind):
    report, new = extend(tokenizers, kind, month, tmp_path / "new", min_count=15)
    old = AutoTokenizer.from_pretrained(tokenizers / kind)
    mark = {"wordpiece": "", "bpe": "Ġ", "unigram": "▁"}[kind]
    assert [word["entry"] for word in report["words"]] == [mark + word for word in WORDS]
    for word, entry in zip(WORDS, report["words"], strict=True):
        assert 0.8 * WORDS[word] < entry["count"] <= WORDS[word]  # but for held-out ones
        assert new.tokenize(f"the {word}") == [*old.tokenize("the"), mark + word]
        assert old.tokenize(f"the {word}")[-len(entry["pieces"]) :] == entry["pieces"]
    # Each old entry has its number, and is read as before, alone and in text.
    first = len(old) - RESERVED
    assert len(new) == len(old) and [word["id"] for word in report["words"]] == [first, first + 1, first + 2]
    assert {t: n for t, n in new.get_vocab().items() if n < first} == {
        t: n for t, n in old.get_vocab().items() if n < first
    }
    assert new.convert_ids_to_tokens(len(new) - 1) == f"[unused{RESERVED - 1}]" and report["unused_entries_left"] == 3
    texts = [*SENTENCES.read_text().split("\n\n"), "Ünïcode ☃ x-ray, pod casters 3.14"]
    texts += [token for token in old.get_vocab() if kind != "unigram" or "unused" not in token]
    assert [new(text)["input_ids"] for text in texts] == [old(text)["input_ids"] for text in texts]
    assert new.all_special_ids == old.all_special_ids
    text = "the baker and the podcasters"
    assert new.decode(new(text)["input_ids"], skip_special_tokens=True).strip() == text
    assert report["new"]["tokens_per_word"] < report["old"]["tokens_per_word"]
    assert report["new"]["bytes_per_token"] > report["old"]["bytes_per_token"]
    new.save_pretrained(tmp_path / "again")  # as a run saves it with the model
    assert AutoTokenizer.from_pretrained(tmp_path / "again").tokenize(f"the {word}")[-1] == mark + word


@pytest.mark.parametrize("kind", KINDS)
def test_slots_run_out_and_the_vocabulary_grows_to_a_multiple_of_64(tokenizers, month, tmp_path, capsys, kind):
    month_of_many = tmp_path / "many.txt"
    more = [f"7 {a}{b}cklo{a}{a}" for a in "bcdfgh" for b in "aeiou"]
    month_of_many.write_text(month.read_text() + "\n\n" + "\n\n".join(more * 25))
    report, new = extend(tokenizers, kind, month_of_many, tmp_path / "slots", min_count=15, validation_fraction=0)
    assert len(report["words"]) == RESERVED and report["unused_entries_left"] == 0
    assert f"{report['found'] - RESERVED} more words found no reserved entry: --grow" in capsys.readouterr().out
    report, new = extend(
        tokenizers, kind, month_of_many, tmp_path / "grown", min_count=15, grow=True, validation_fraction=0
    )
    old = AutoTokenizer.from_pretrained(tokenizers / kind)
    assert report["found"] == len(report["words"]) == len(more) + len(WORDS)
    assert len(new) % 64 == 0 and 0 <= len(new) - (len(old) + len(report["words"]) - RESERVED) < 64
    assert sorted(new.get_vocab().values()) == [*range(len(new))]
    assert all(len(new.tokenize(text)) == len(new.tokenize("7")) + 1 for text in more)
    text = SENTENCES.read_text()
    assert new(text)["input_ids"] == old(text)["input_ids"]
    # The padding is what the next month takes.
    (tmp_path / "next.txt").write_text("7 tamagotchi\n\n" * 30)
    report, third = extend(tmp_path, "grown", tmp_path / "next.txt", tmp_path / "third", min_count=15)
    assert [word["id"] for word in report["words"]] == [len(old) + 27] and len(third) == len(new)
    with pytest.raises(InputError, match=r"no unused entries left; give --grow"):
        extend(tmp_path, "slots", tmp_path / "next.txt", tmp_path / "fourth")


def test_the_same_bytes_in_another_process_and_after_an_interruption(tokenizers, month, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("data_prep.extend_tokenizer.describe_tokenizer", interrupt)  # the tokenizer is written by then
        extend(tokenizers, "bpe", month, tmp_path / "here", min_count=15)
    assert list(tmp_path.iterdir()) == []
    extend(tokenizers, "bpe", month, tmp_path / "here", min_count=15, validation_fraction=0.01)
    command = [sys.executable, "data_prep/extend_tokenizer.py", "--tokenizer_name", str(tokenizers / "bpe")]
    command += ["--input", str(month), "--output_dir", str(tmp_path / "there"), "--min_count", "15"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "5"}, capture_output=True)
    digests = set()
    for folder in ("here", "there"):
        files = sorted((tmp_path / folder).iterdir())
        assert [file.name for file in files] == ["report.json", "tokenizer.json", "tokenizer_config.json"]
        digests.add(hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest())
    assert len(digests) == 1


def test_words_are_counted_exactly_in_little_memory(tokenizers):
    tokenizer = AutoTokenizer.from_pretrained(tokenizers / "wordpiece")
    texts = [f"wordling{chr(97 + i % 20)} wordling{chr(97 + i % 7)} 12345678" for i in range(200)]
    found = [find_new_words(tokenizer, texts, 15, 3, most) for most in (1_000_000, 3)]
    assert found[0] == found[1] and found[0][1] == 600
    # By hand: 28 or 29 of each of the 7, and 10 of each of the 20 of which these are the first.
    counts = {word.entry[-1]: word.count for word in found[0][0]}
    assert counts == {c: (29 if c in "abcd" else 28) + 10 for c in "abcdefg"}
    assert [word.entry[-1] for word in found[0][0]] == list("abcdefg")


def test_what_a_word_is(tokenizers):
    for text in ("blog", "x-ray", "don't", "gpt4", "हिन्दी", "naïve"):
        assert is_word(text)
    for text in ("", "2023", "3d", "blog-", "-blog", "...", "a b", "a" * 31, "\ufffd", "a_b"):
        assert not is_word(text)
    split = word_splitter(AutoTokenizer.from_pretrained(tokenizers / "unigram"))
    assert split("The (blogs), 3D don't—X-ray हिन्दी") == ["▁the", "blogs", "▁don't", "x-ray", "▁हिन्दी"]


def test_words_with_other_pieces_than_asked_for_are_left_out(tokenizers, month, tmp_path):
    report, same = extend(tokenizers, "wordpiece", month, tmp_path / "same", min_count=15, min_pieces=12)
    assert (
        report["words"] == []
        and same.get_vocab() == AutoTokenizer.from_pretrained(tokenizers / "wordpiece").get_vocab()
    )
    report, _ = extend(tokenizers, "wordpiece", month, tmp_path / "new", min_count=15, max_new_words=1)
    assert [word["entry"] for word in report["words"]] == ["podcasters"] and report["found"] == 3


def test_entries_that_are_added_tokens_are_taken_too(tmp_path, month, wordpiece):
    """ModernBERT's unused entries are: the library looks for them in text before it reads words."""
    tokenizer = BertTokenizer(vocab=wordpiece.get_vocab())
    tokenizer.add_tokens(["[unused0]", "[unused1]", "[unused2]", "[other]"])
    tokenizer.save_pretrained(tmp_path / "added")
    report, new = extend(tmp_path, "added", month, tmp_path / "new", min_count=15, grow=True)
    assert [word["id"] for word in report["words"]] == [200, 201, 202] and len(new) == 204
    assert new.tokenize("a vlogging [other]") == ["a", "vlogging", "[other]"]
    assert new.convert_tokens_to_ids("[other]") == 203


def test_impossible_wishes_are_refused(tokenizers, month, tmp_path):
    def wish(message, kind="wordpiece", text=month, **flags):
        with pytest.raises(InputError, match=message) as error:
            extend(tokenizers, kind, text, tmp_path / "new", **flags)
        assert "\n" not in str(error.value) and not (tmp_path / "new").exists()

    (tmp_path / "empty.txt").write_text("\n\n")
    wish(r"empty\.txt: there is no text; .*go on with", text=tmp_path / "empty.txt")
    wish("no such file or folder", text=tmp_path / "nowhere.txt")
    wish("--min_count 0: must be at least 1", min_count=0)
    wish("tokenizer .*nowhere: could not be loaded", kind="nowhere")
    model = tokenizers / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    wish("model: the folder has no tokenizer .*save into it", kind="model")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2}, unk_token="[UNK]"))
    roles = {f"{role}_token": "[PAD]" for role in ("pad", "mask", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **roles).save_pretrained(tokenizers / "level")
    wish("a WordLevel tokenizer; words can be added to", kind="level")
    letters = Tokenizer(models.BPE({"a": 0, "b": 1, "[PAD]": 2}, []))
    PreTrainedTokenizerFast(tokenizer_object=letters, **roles).save_pretrained(tokenizers / "letters")
    wish("a BPE of characters tokenizer", kind="letters")


def test_a_bpe_entry_that_merges_never_give_is_not_let_loose(tokenizers, month, tmp_path):
    """Its row was never trained, and old text would be read otherwise."""
    (tmp_path / "odd").mkdir()
    for file in (tokenizers / "bpe").iterdir():
        (tmp_path / "odd" / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "odd" / "tokenizer.json").read_text())
    content["model"]["vocab"] = {("Ġzq" if t == "[unused0]" else t): n for t, n in content["model"]["vocab"].items()}
    (tmp_path / "odd" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"its merges never give 'Ġzq' \(1 such entries\)"):
        extend(tmp_path, "odd", month, tmp_path / "new")
