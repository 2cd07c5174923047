"""What the tests share: the root as working directory, a cache of their own, small text and tokenizers."""

import gc
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent
SENTENCES = ROOT / "tests" / "data" / "sentences.txt"

# No test reads a hub or the user's cache, and none uses more than one core; set before any library looks.
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}


def end_at_once(*_):
    """End with all that was started, among it stopped processes, and such as would save first. Python's own
    resource_tracker clears up behind them and ends."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if not any("resource_tracker" in word for word in child.cmdline()):
                child.kill()
    os._exit(130)


# A background job of a shell ignores Ctrl-C, and so would every process that a test starts.
IS_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ
signal.signal(signal.SIGINT, end_at_once if IS_ONE_OF_SEVERAL else signal.default_int_handler)
# Tests that start two training processes each; they come first and one after the other.
TWO_PROCESSES = ("test_zero.py", "test_processes.py", "test_launch.py", "test_split.py")


def pytest_collection_modifyitems(items):
    """Folders backwards: the longest files are in the last ones, and no process shall be left with one at the end."""
    folders = {folder: -place for place, folder in enumerate(sorted({item.path.parent for item in items}))}
    items.sort(key=lambda item: (item.path.name not in TWO_PROCESSES, folders[item.path.parent]))


def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file, which share fixtures, in one process, and those of TWO_PROCESSES in the same one."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = Path(nodeid.partition("::")[0]).name
            return "two processes" if file in TWO_PROCESSES else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_finish():
    """Every run of Trainer ends with a garbage collection, which takes longer than a tiny training if it walks through
    all that the imports have left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """The same for what the tests of another file have imported: some load dozens of architectures."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Point the cache of every module, and of scripts that tests start, at a folder of this session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_OLM_CACHE", str(folder))
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


@pytest.fixture(scope="session", autouse=True)
def plain_pictures():
    """Every fine-tuning draws two, which take a fifth of a test, half of it for the layout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.figures.LAYOUT", None)
        yield


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


def read_splits(folder):
    """What the scripts of data_prep that make tasks have written."""
    from datasets import load_dataset

    return load_dataset(str(folder), data_files={part: f"{part}.parquet" for part in ("train", "validation")})
