"""The variant of datatrove in corpus.py: its blocks, with which FineWeb was made."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.extractors.base import BaseExtractor
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import WarcReader
from datatrove.utils.hashing import HashConfig
from resiliparse.parse.html import HTMLTree

from data_prep.crawl.page import extract_fast
from evaluation.bench.variants import WARM_UP, timed


class FastExtractor(BaseExtractor):
    """Our fast extractor, in the process of its own that datatrove gives to each."""

    name = "fast extractor"

    def __init__(self) -> None:
        super().__init__(timeout=10)

    def extract(self, text: str) -> str:
        return extract_fast(text, HTMLTree.parse(text))


def filters() -> list[Any]:
    return [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]


def minhash(folder: str) -> MinhashDedupSignature:
    # Not its default: datatrove 0.10 hands text to xxhash, which xxhash 4 refuses. The words take most of the time.
    return MinhashDedupSignature(folder, MinhashConfig(hash_config=HashConfig(hash_fc="sha1")))


def run_all(steps: list[Any], data: Any) -> None:
    for step in steps:
        data = step.run(data, 0, 1)
    for _ in data or ():
        pass


def web(warc: Path) -> tuple[int, float]:
    """Pages and seconds, from WARC bytes to signatures."""
    count, start = 0, 0.0

    def counted(pages: Iterable[Any]) -> Iterable[Any]:
        nonlocal count, start
        for page in pages:
            count += 1
            if count == WARM_UP:
                start = time.perf_counter()
            yield page

    with tempfile.TemporaryDirectory() as folder:
        pages = counted(WarcReader(str(warc.parent), glob_pattern=warc.name).run(None, 0, 1))
        run_all([FastExtractor(), *filters(), minhash(folder)], pages)
        return count - WARM_UP, time.perf_counter() - start


def filter_texts(texts: list[str]) -> tuple[int, float]:
    steps = filters()

    return timed(texts, lambda texts: run_all(steps, (Document(text, str(n)) for n, text in enumerate(texts))))


def sign_texts(texts: list[str]) -> tuple[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        step = minhash(folder)

        def work(texts: list[str]) -> None:
            for text in texts:
                shingles = step.get_shingles(text)
                if shingles.size:
                    step.get_signature(shingles)

        return timed(texts, work)
