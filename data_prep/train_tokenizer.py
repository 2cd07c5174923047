"""Train a WordPiece or byte-level BPE tokenizer, the same to the byte whatever the number of threads.

    python data_prep/train_tokenizer.py --input corpus.parquet --vocab_size 16384 --output_dir data/tokenizer

Reads parquet, JSON lines or text files, folders of them, or a dataset of the Hub, as a stream. Writes a folder that
`AutoTokenizer.from_pretrained` loads, with report.json: tokens per word, bytes per token and the share of unknown
tokens on held-out documents, next to a reference tokenizer if one is named.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from data_prep.tokens.alphabet import most_frequent_characters
from shared.command_line import run_script
from shared.documents import Documents, is_held_out
from shared.errors import InputError
from shared.files import CACHE, atomic_folder, check_new_folder, content_hash, write_json
from shared.tokenizer import load_tokenizer, raw_text_encoder

WORDPIECE_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BPE_SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's; its models count on <pad> being 1
ALPHABET_SIZE = 1000  # characters that WordPiece knows; rarer ones become [UNK], as in BERT's own vocabulary
HELD_OUT_DOCUMENTS = 2000  # the report reads at most this many


@dataclass
class TokenizerArguments:
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    input: list[str] = field(default_factory=list, metadata={"help": "Files or folders of text."})
    dataset_name: str | None = field(default=None, metadata={"help": "A dataset id on the Hub, instead of files."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    tokenizer_type: Literal["wordpiece", "bpe"] = field(
        default="wordpiece", metadata={"help": "wordpiece suits BERT, bpe (byte-level) suits RoBERTa and ModernBERT."}
    )
    vocab_size: int = field(default=30522, metadata={"help": "Entries of the vocabulary, special tokens included."})
    reserved_entries: int = field(
        default=256, metadata={"help": "Of these, entries left unused for the words of later months."}
    )
    do_lower_case: bool = field(default=True, metadata={"help": "Lower-case and strip accents (WordPiece only)."})
    model_max_length: int = field(default=512, metadata={"help": "Longest input, in tokens, that models will take."})
    validation_fraction: float = field(
        default=0.01, metadata={"help": "Share of documents, chosen by hash, kept out of training for the report."}
    )
    reference_tokenizer: str | None = field(
        default=None, metadata={"help": "A tokenizer (folder or Hub id) to report next to the new one."}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.reserved_entries < self.vocab_size:
            raise InputError(f"--reserved_entries {self.reserved_entries}: must be from 0 to --vocab_size")

    @property
    def learned_entries(self) -> int:
        """Entries of the vocabulary that training fills."""
        return self.vocab_size - self.reserved_entries


def train_tokenizer(documents: Documents, args: TokenizerArguments, quiet: bool = False) -> tuple[Any, list[str]]:
    """Train on the documents that are not held out; return a transformers tokenizer, and some of the held-out texts.

    Raises InputError when the corpus is empty or too small for the vocabulary.
    """

    held_out: list[str] = []

    def texts(description: str) -> Iterator[str]:
        held_out.clear()
        for text in documents.progress(description, disable=quiet):
            if not is_held_out(text, args.validation_fraction):
                yield text
            elif len(held_out) < HELD_OUT_DOCUMENTS:
                held_out.append(text)

    train = _train_wordpiece if args.tokenizer_type == "wordpiece" else _train_bpe
    tokenizer = train(texts, args)
    if len(tokenizer) < args.vocab_size:
        raise InputError(
            f"--vocab_size {args.vocab_size}: the text has words enough for {len(tokenizer)} entries only; "
            "lower it or add text"
        )
    return tokenizer, held_out


def cached_tokenizer(documents: Documents, args: TokenizerArguments, quiet: bool = False) -> Path:
    """Train once and keep the result in the cache, by the hash of text and settings. Returns its folder."""
    settings = {**vars(args), "output_dir": None, "input": None, "reference_tokenizer": None}
    path = CACHE / f"tokenizer-{content_hash(documents.describe(), settings)}"
    if not path.is_dir():
        tokenizer, _ = train_tokenizer(documents, args, quiet)
        with suppress(FileExistsError), atomic_folder(path) as folder:  # or another run made the same meanwhile
            tokenizer.save_pretrained(folder)
    return path


def _train_wordpiece(texts: Any, args: TokenizerArguments) -> Any:
    """WordPiece as the tokenizers library trains it, without its chance.

    The library numbers the `##x` pieces in the order of a randomly seeded hash map and breaks ties between equally
    frequent pairs by these numbers (huggingface/tokenizers#1794), and it cuts the alphabet by that order, too. Here a
    first pass counts characters; the alphabet is cut by (count, code point), and the `##x` pieces enter the trainer
    numbered, as special tokens, from which a clean vocabulary is built.
    """
    from transformers import BertTokenizer

    normalizer = normalizers.BertNormalizer(lowercase=args.do_lower_case)
    words = pre_tokenizers.BertPreTokenizer()
    alphabet = most_frequent_characters(texts("Counting characters"), normalizer, ALPHABET_SIZE)
    continuations = [f"##{c}" for c in alphabet if len(words.pre_tokenize_str(f"a{c}")) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=args.learned_entries,
        special_tokens=WORDPIECE_SPECIAL_TOKENS + continuations,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    if args.learned_entries < len(WORDPIECE_SPECIAL_TOKENS) + len(alphabet) + len(continuations):
        raise InputError(f"--vocab_size {args.vocab_size}: the alphabet of {len(alphabet)} characters needs more")
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, words
    learner.train_from_iterator(texts("Training WordPiece"), trainer)
    return BertTokenizer(
        vocab=_reserve(learner.get_vocab(), args),
        do_lower_case=args.do_lower_case,
        model_max_length=args.model_max_length,
    )


def _train_bpe(texts: Any, args: TokenizerArguments) -> Any:
    from transformers import RobertaTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if args.learned_entries < len(BPE_SPECIAL_TOKENS) + len(alphabet):
        raise InputError(f"--vocab_size {args.vocab_size}: byte-level BPE needs at least {len(alphabet) + 5}")
    trainer = trainers.BpeTrainer(
        vocab_size=args.learned_entries,
        special_tokens=BPE_SPECIAL_TOKENS,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(texts("Training byte-level BPE"), trainer)
    model = json.loads(learner.to_str())["model"]
    return RobertaTokenizer(
        vocab=_reserve(model["vocab"], args),
        merges=[tuple(pair) for pair in model["merges"]],
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=args.model_max_length,
    )


def _reserve(vocabulary: dict[str, int], args: TokenizerArguments) -> dict[str, int]:
    """The vocabulary with unused entries behind the learned ones, named as BERT names its own. No text becomes one."""
    return vocabulary | {f"[unused{i}]": len(vocabulary) + i for i in range(args.reserved_entries)}


def describe_tokenizer(tokenizer: Any, texts: list[str]) -> dict[str, float]:
    """Tokens per whitespace-separated word, UTF-8 bytes per token and the share of unknown tokens on `texts`."""
    encodings = raw_text_encoder(tokenizer).encode_batch_fast(texts, add_special_tokens=False)
    tokens = sum(len(encoding.ids) for encoding in encodings)
    unknown = sum(encoding.ids.count(tokenizer.unk_token_id) for encoding in encodings)
    return {
        "vocab_size": len(tokenizer),
        "tokens_per_word": tokens / sum(len(text.split()) for text in texts),
        "bytes_per_token": sum(len(text.encode()) for text in texts) / tokens,
        "unknown_share": unknown / tokens,
    }


def main(args: TokenizerArguments) -> dict[str, Any]:
    documents = Documents(args.input, args.dataset_name, args.dataset_config_name)
    reference = load_tokenizer(args.reference_tokenizer) if args.reference_tokenizer else None
    check_new_folder(args.output_dir)

    tokenizer, texts = train_tokenizer(documents, args)
    report: dict[str, Any] = {"held_out_documents": len(texts), "skipped": dict(documents.skipped)}
    if texts:
        report["trained"] = describe_tokenizer(tokenizer, texts)
        if reference is not None:
            report[args.reference_tokenizer] = describe_tokenizer(reference, texts)

    with atomic_folder(args.output_dir) as folder:
        tokenizer.save_pretrained(folder)
        write_json(folder / "report.json", report)
    print(f"Tokenizer of {len(tokenizer):,} entries in {args.output_dir}; skipped: {report['skipped'] or 'nothing'}")
    print(f"On {len(texts):,} held-out documents: tokens per word, bytes per token, unknown tokens")
    for name, row in report.items():
        if isinstance(row, dict) and "bytes_per_token" in row:
            print(f"  {name}: {row['tokens_per_word']:.3f}  {row['bytes_per_token']:.3f}  {row['unknown_share']:.3%}")
    return report


if __name__ == "__main__":
    run_script(main, TokenizerArguments)
