"""Train a WordPiece or byte-level BPE tokenizer, the same to the byte whatever the number of threads.

    python data_prep/train_tokenizer.py --input corpus.parquet --vocab_size 16384 --output_dir data/tokenizer

Reads parquet, JSON lines or text files (blank lines separate documents), folders of them, or a dataset of the Hub, as
a stream. Memory grows with the number of different words (0.2 GB for 1,000 web pages, 0.6 GB for 100,000). Writes a
folder that `AutoTokenizer.from_pretrained` loads, with report.json: tokens per word, bytes per token and the shares of
unknown tokens and changed letters on held-out documents, next to a reference tokenizer if one is named.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from data_prep.tokens.characters import FEWEST, Characters, bert_normalizer, check_room
from data_prep.tokens.measure import describe_tokenizer, print_rows, read_apart
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.documents import HELP, Documents
from shared.errors import InputError
from shared.files import CACHE, atomic_folder, content_hash, write_json
from shared.tokenizer import load_tokenizer, with_unused

WORDPIECE_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BPE_SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's; its models count on <pad> being 1


@dataclass
class TokenizerArguments:
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    input: list[str] = field(default_factory=list, metadata={"help": HELP})
    dataset_name: str | None = field(default=None, metadata={"help": "A dataset id on the Hub, instead of files."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    tokenizer_type: Literal["auto", "wordpiece", "bpe"] = field(
        default="auto",
        metadata={
            "help": "wordpiece suits BERT, bpe (byte-level) suits RoBERTa and ModernBERT, and any script; auto: bpe "
            "where spaces do not divide words (Thai) or joiners matter (Persian), else wordpiece."
        },
    )
    vocab_size: int = field(default=30522, metadata={"help": "Entries of the vocabulary, special tokens included."})
    reserved_entries: int = field(
        default=256, metadata={"help": "Of these, entries left unused for the words of later months."}
    )
    do_lower_case: bool = field(default=True, metadata={"help": "Lower-case (WordPiece only)."})
    strip_accents: bool | None = field(
        default=None,
        metadata={
            "help": "Strip accents (WordPiece only). Default: where case goes, under 0.5%% of the letters have one "
            "(as in English), and no other mark would go."
        },
    )
    model_max_length: int = field(default=512, metadata={"help": "Longest input, in tokens, that models will take."})
    validation_fraction: float = field(
        default=0.01, metadata={"help": "Share of documents, chosen by hash, kept out of training for the report."}
    )
    reference_tokenizer: str | None = field(
        default=None, metadata={"help": "A tokenizer (folder or Hub id) to report next to the new one."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, validation_fraction=">= 0, < 1")
        if not 0 <= self.reserved_entries < self.vocab_size:
            raise InputError(f"--reserved_entries {self.reserved_entries}: must be from 0 to --vocab_size")
        if self.tokenizer_type == "bpe":
            refuse_flags(self, {"strip_accents": "byte-level BPE keeps every letter as it is"})

    @property
    def learned_entries(self) -> int:
        """Entries of the vocabulary that training fills."""
        return self.vocab_size - self.reserved_entries


def train_tokenizer(documents: Documents, args: TokenizerArguments, quiet: bool = False) -> tuple[Any, list[str]]:
    """Train on the documents that are not held out; return a transformers tokenizer, and some of the held-out texts.

    Raises InputError when there is no text, all of it is held out, or it is too small for the vocabulary.
    """
    held_out: list[str] = []

    def texts(description: str) -> Iterator[str]:
        empty = True
        for piece in read_apart(documents, held_out, args.validation_fraction, description, quiet):
            empty = empty and piece.isspace()
            yield piece
        if empty:
            why = f"--validation_fraction {args.validation_fraction}: all text is held out; lower it or add text"
            raise InputError(why if held_out else "there is no text to train a tokenizer on; name other files")

    tokenizer = _train_bpe(texts, args) if args.tokenizer_type == "bpe" else _train_by_characters(texts, args)
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


def _train_by_characters(texts: Any, args: TokenizerArguments) -> Any:
    characters = Characters(texts("Counting characters"))
    if args.tokenizer_type == "auto" and not characters.suit_wordpiece():
        return _train_bpe(texts, args)
    return _train_wordpiece(texts, args, characters, characters.decide_accents(args.do_lower_case, args.strip_accents))


def _train_wordpiece(texts: Any, args: TokenizerArguments, characters: Characters, strip_accents: bool) -> Any:
    """WordPiece as the tokenizers library trains it, without its chance.

    The library numbers the `##x` pieces in the order of a randomly seeded hash map and breaks ties between equally
    frequent pairs by these numbers (huggingface/tokenizers#1794), and it cuts the alphabet by that order, too. Here a
    first pass counts characters; the alphabet is cut by (count, code point), and the `##x` pieces enter the trainer
    numbered, as special tokens, from which a clean vocabulary is built.
    """
    from transformers import BertTokenizer

    normalizer = bert_normalizer(args.do_lower_case, strip_accents)
    words = pre_tokenizers.BertPreTokenizer()
    alphabet = characters.alphabet(normalizer, most=args.learned_entries // 4)
    # Large alphabets are those of Chinese characters, which stand alone after normalisation: none continues a word.
    shown = normalizer.normalize_str if len(alphabet) > FEWEST else str
    continuations = [f"##{c}" for c in alphabet if len(words.pre_tokenize_str(shown(f"a{c}"))) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=args.learned_entries,
        special_tokens=WORDPIECE_SPECIAL_TOKENS + continuations,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    check_room(
        args.vocab_size, args.reserved_entries, len(WORDPIECE_SPECIAL_TOKENS) + len(alphabet) + len(continuations)
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, words
    learner.train_from_iterator(texts("Training WordPiece"), trainer)
    return BertTokenizer(
        vocab=with_unused(learner.get_vocab(), args.reserved_entries),
        do_lower_case=args.do_lower_case,
        strip_accents=strip_accents,
        model_max_length=args.model_max_length,
    )


def _train_bpe(texts: Any, args: TokenizerArguments) -> Any:
    from transformers import RobertaTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    check_room(args.vocab_size, args.reserved_entries, len(BPE_SPECIAL_TOKENS) + len(alphabet))
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
        vocab=with_unused(model["vocab"], args.reserved_entries),
        merges=[tuple(pair) for pair in model["merges"]],
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=args.model_max_length,
    )


def main(args: TokenizerArguments) -> dict[str, Any]:
    documents = Documents(args.input, args.dataset_name, args.dataset_config_name)
    reference = load_tokenizer(args.reference_tokenizer) if args.reference_tokenizer else None
    documents.check_output(args.output_dir)

    tokenizer, texts = train_tokenizer(documents, args)
    report: dict[str, Any] = {"held_out_documents": len(texts), "skipped": dict(documents.skipped)}
    if any(text.split() for text in texts):
        report["trained"] = describe_tokenizer(tokenizer, texts)
        if reference is not None:
            report[args.reference_tokenizer] = describe_tokenizer(reference, texts)

    with atomic_folder(args.output_dir) as folder:
        tokenizer.save_pretrained(folder)
        write_json(folder / "report.json", report)
    print(f"Tokenizer of {len(tokenizer):,} entries in {args.output_dir}; skipped: {report['skipped'] or 'nothing'}")
    print_rows(report)
    return report


if __name__ == "__main__":
    run_script(main, TokenizerArguments)
