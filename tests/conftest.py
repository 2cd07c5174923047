"""What the tests share: the root as working directory, a cache of their own, small text and tokenizers."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SENTENCES = ROOT / "tests" / "data" / "sentences.txt"

# No test reads a hub or the user's cache; set before any library looks.
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "TQDM_DISABLE": "1"}
# A background job of a shell ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Point the cache of every module, and of scripts that tests start, at a folder of this session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_OLM_CACHE", str(folder))
        # DeepSpeed's compiled op too: a lock that some killed run has left would stop every test of ZeRO.
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder / "extensions"))
        for module in (
            "shared.files",
            "data_prep.collect_docstrings",
            "data_prep.pack_dataset",
            "data_prep.train_tokenizer",
            "pretraining.distillation.sentences",
            "pretraining.distillation.teacher",
        ):
            patch.setattr(f"{module}.CACHE", folder)
        yield folder


@pytest.fixture(scope="session")
def texts():
    return SENTENCES.read_text().strip().split("\n\n")


@pytest.fixture(scope="session", params=["wordpiece", "bpe"])
def tokenizer(request, wordpiece, bpe):
    return wordpiece if request.param == "wordpiece" else bpe


@pytest.fixture(scope="session")
def wordpiece(tmp_path_factory):
    return make_tokenizer("wordpiece", 200)


@pytest.fixture(scope="session")
def bpe():
    return make_tokenizer("bpe", 400)


def make_tokenizer(kind, vocab_size):
    from data_prep.train_tokenizer import TokenizerArguments, train_tokenizer
    from shared.documents import Documents

    args = TokenizerArguments("", tokenizer_type=kind, vocab_size=vocab_size, reserved_entries=0)
    return train_tokenizer(Documents([str(SENTENCES)]), args, quiet=True)[0]
