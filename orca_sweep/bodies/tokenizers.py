"""Loads the tokenizers of text bodies and checks that the body has an embedding of every word."""

import json
from pathlib import Path
from typing import Any

from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError, first_line

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
FILES = (TOKENIZER, SETTINGS, "vocab.json", "merges.txt", "vocab.txt", "special_tokens_map.json", "added_tokens.json")
"""Files that can belong to a tokenizer."""
VOCABULARIES = (
    TOKENIZER, "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model",
)  # fmt: skip
LARGEST = 2**27
"""Bytes of a tokenizer's file; the largest published ones reach a third of this."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PADDING = ("<pad>", "[PAD]", "</s>", "<|endoftext|>", "[SEP]")
"""Words that can serve as padding, best first; no mean includes padding."""


def check_tokenizer(folder: Path, n_rows: int) -> None:
    """Refuses a folder's tokenizer that cannot be read, or has words without a row in the embedding.

    A folder without a tokenizer passes: naive fine-tuning needs none.

    Args:
        folder: Holds the body.
        n_rows: Rows of the body's embedding.

    Raises:
        DataError: names the file and what is wrong with it.
    """
    for name in FILES:
        refuse_pointer(folder / name)
        if (folder / name).is_file() and (size := (folder / name).stat().st_size) > LARGEST:
            raise DataError(f"{folder / name}: {size:,} bytes are too many for a tokenizer. Is it the right file?")
    if (folder / SETTINGS).is_file() and not any((folder / name).is_file() for name in VOCABULARIES):
        raise DataError(
            f"{folder / SETTINGS}: the folder has no {TOKENIZER}. Save the tokenizer again with"
            " tokenizer.save_pretrained."
        )
    if (folder / TOKENIZER).is_file():
        _refuse_surplus(folder / TOKENIZER, _count_words(folder), n_rows)


def _refuse_surplus(where: object, n_words: int, n_rows: int) -> None:
    if n_words > n_rows:
        raise DataError(
            f"{where}: {n_words} words, but the body's embedding has {n_rows} rows, so words {n_rows} to {n_words - 1}"
            " have no embedding. Use the tokenizer that belongs to these weights."
        )


def _count_words(folder: Path) -> int:
    """Returns the largest word id in tokenizer.json plus one, plus the number of words that the settings add."""
    path = folder / TOKENIZER
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = whole["model"]["vocab"]
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {row[0]: i for i, row in enumerate(vocabulary)}
        ids |= {token["content"]: token["id"] for token in whole.get("added_tokens") or ()}
        n_words = max(ids.values(), default=-1) + 1
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise _make_read_error(path, error) from None
    return n_words + len(_read_added_words(folder / SETTINGS) - ids.keys())


def _read_added_words(path: Path) -> set[str]:
    """Returns the special words in the tokenizer's settings; transformers adds those that the vocabulary lacks."""
    if not path.is_file():
        return set()
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        named = [settings.get(name) for name in SPECIAL]
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise _make_read_error(path, error) from None
    words = [token.get("content") if isinstance(token, dict) else token for token in named]
    return {word for word in words if isinstance(word, str)}


def _make_read_error(where: object, error: Exception) -> DataError:
    return DataError(
        f"{where}: cannot be read as a tokenizer ({first_line(error)}). Save it again with tokenizer.save_pretrained, or"
        " get the file again."
    )


def load_tokenizer(location: str, revision: str | None, n_rows: int) -> Any:
    """Returns the tokenizer of a text body's folder or hub id, ready to pad; None for a folder without one.

    ``tokenizer.json`` alone is enough.

    Raises:
        DataError: if it cannot be read, or has more words than the embedding has rows.
        OSError: if it cannot be fetched (the message is from transformers).
    """
    folder = Path(location)
    if not folder.is_dir():
        tokenizer = _load_pretrained(location, revision)
    else:
        check_tokenizer(folder, n_rows)
        if (folder / SETTINGS).is_file():
            tokenizer = _load_pretrained(location, None)
        elif (folder / TOKENIZER).is_file():
            tokenizer = _load_json_file(folder / TOKENIZER)
        else:
            return None  # naive fine-tuning needs none; a text proxy reports the lack
    if not tokenizer.is_fast:
        raise DataError(
            f"{location}: a {type(tokenizer).__name__} has no {TOKENIZER}, which is needed. Convert the body's tokenizer, or"
            " remove it."
        )
    _choose_padding(tokenizer, location)
    # Positions count from the first word, whatever else is in the batch.
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    _refuse_surplus(location, max(tokenizer.get_vocab().values(), default=-1) + 1, n_rows)
    return tokenizer


def _load_pretrained(location: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(location, revision=revision)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        raise _make_read_error(location, error) from None


def _load_json_file(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except MemoryError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        raise _make_read_error(path, error) from None


def _choose_padding(tokenizer: Any, where: str) -> None:
    """Makes one of the tokenizer's own words its padding token, unless it has one; adds no word."""
    if tokenizer.pad_token is not None:
        return
    words = tokenizer.get_vocab()
    if not words:
        raise DataError(f"{where}: the tokenizer has no words. Save it again, or remove it.")
    known = [word for word in (*PADDING[:2], tokenizer.eos_token, *PADDING[2:]) if word in words]
    tokenizer.pad_token = known[0] if known else tokenizer.convert_ids_to_tokens(0)
