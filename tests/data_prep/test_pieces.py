import subprocess
import sys
import unicodedata

import pytest
from conftest import ROOT, SENTENCES
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_prep.pack_dataset import encode_documents
from data_prep.tokens.pieces import cut, cut_for
from shared.documents import Documents
from shared.errors import InputError
from shared.tokenizer import raw_text_encoder


def metaspace(scheme):
    """A SentencePiece-like tokenizer of single characters; Llama's form writes the first space itself."""
    vocabulary = {c: i for i, c in enumerate(sorted(set((SENTENCES.read_text() + "▁").replace(" ", "▁"))))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "t")] if "▁t" in vocabulary else [], fuse_unk=False))
    if scheme == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "always", "first", "llama"])
@pytest.mark.parametrize("most", [40, 200])
def test_pieces_give_the_tokens_of_the_whole(request, kind, most):
    tokenizer = request.getfixturevalue(kind) if kind in ("wordpiece", "bpe") else metaspace(kind)
    encoder = raw_text_encoder(tokenizer)
    text = SENTENCES.read_text().replace("\n\n", "\n" if kind in ("wordpiece", "bpe") else " ")[:3000]
    text += '  two  spaces, "quotes" (and) 3.5 numbers: don\'t stop'
    pieces = list(cut_for(encoder, text, most))
    assert sum(size for _, size in pieces) == len(text) and len(pieces) > 3000 // most
    ids = [i for piece, _ in pieces for i in encoder.encode(piece, add_special_tokens=False).ids]
    assert ids == encoder.encode(text, add_special_tokens=False).ids


def test_long_documents_keep_their_tokens_in_packing(monkeypatch, tokenizer, texts):
    import numpy as np

    long = " ".join(texts * 20)
    monkeypatch.setattr("data_prep.tokens.pieces.cut_for.__defaults__", (500,))
    found = list(encode_documents(tokenizer, iter([long, texts[0], long, ""]), np.dtype("<u2")))
    assert [text for text, _ in found] == [long, texts[0], long, ""]
    for text, ids in found:
        assert ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "text",
    [
        "हिन्दीभाषा" * 30,
        "ภาษาไทยเขียนไม่เว้นวรรค" * 20,
        unicodedata.normalize("NFD", "한국어") * 40,
        unicodedata.normalize("NFD", "パンダが") * 40,
        "ﾊﾟﾝﾀﾞ" * 40,
        "中文没有空格" * 40,
        "👩\u200d👩\u200d👧" * 40,
    ],
)
def test_text_without_spaces_is_cut_between_letters_and_their_marks(text):
    pieces = list(cut(text, 20))
    assert "".join(pieces) == text and all(len(piece) <= 20 for piece in pieces)
    for piece in pieces[1:]:
        assert not unicodedata.category(piece[0]).startswith(("M", "Cf")) and piece[0] not in "ﾟﾞ"
    assert not any(piece.endswith(("\u094d", "\u200d", "เ", "ไ")) for piece in pieces[:-1])
    assert "".join(unicodedata.normalize("NFC", piece) for piece in pieces) == unicodedata.normalize("NFC", text)


MEASURE = """
from data_prep.pack_dataset import PackingArguments, main
main(PackingArguments({tokenizer!r}, {out!r}, [{file!r}], validation_fraction=0.0))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.faults
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_memory_does_not_grow_with_the_tokens_of_a_document(tmp_path, wordpiece):
    wordpiece.save_pretrained(tmp_path / "t")
    (tmp_path / "one.txt").write_text("the baker fed a horse " * 700_000)  # 15 MB in one line: 3 GB when given at once
    code = MEASURE.format(tokenizer=str(tmp_path / "t"), out=str(tmp_path / "out"), file=str(tmp_path / "one.txt"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.split("VmHWM:")[1].split()[0]) < 900_000


def test_a_document_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.rows.MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.txt").write_text("word\n" * 199 + "\n" + "word\n" * 250)
    with pytest.raises(InputError, match="blank lines separate documents"):
        list(Documents([str(tmp_path / "a.txt")]))
    (tmp_path / "a.txt").write_text("word\n" * 199 + "\n" + "word\n" * 150)  # the way out that it names
    assert list(map(len, Documents([str(tmp_path / "a.txt")]))) == [994, 749]
