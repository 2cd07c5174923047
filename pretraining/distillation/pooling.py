"""Make a folder with an encoder load as a sentence encoder as well."""

from pathlib import Path

from shared.files import write_json


def write_pooling(folder: Path, width: int) -> None:
    """Write what `SentenceTransformer(folder)` reads: take the mean of the last layer over all tokens."""
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    )
