"""Loads the tokenizers of text bodies and checks that the body has an embedding for every word."""

import json
from pathlib import Path
from typing import Any

from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError, first_line

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
FILES = (TOKENIZER, SETTINGS, "vocab.json", "merges.txt", "vocab.txt", "special_tokens_map.json", "added_tokens.json")
"""Files that a tokenizer may consist of."""
VOCABULARIES = (
    TOKENIZER, "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model",
)  # fmt: skip
LARGEST = 2**27
"""Bytes of a tokenizer's file; the largest published ones have a third of that."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PADDING = ("<pad>", "[PAD]", "</s>", "<|endoftext|>", "[SEP]")
"""Words that can serve as padding, the preferred one first; padding is left out of every mean."""


def check_tokenizer(folder: Path, n_rows: int) -> None:
    """Refuses a folder's tokenizer that cannot be read, or that has words without a row in the embedding.

    A folder without a tokenizer passes: naive fine-tuning needs none.

    Args:
        folder: Holds the body.
        n_rows: Rows of the body's embedding.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    for name in FILES:
        refuse_pointer(folder / name)
        if (folder / name).is_file() and (size := (folder / name).stat().st_size) > LARGEST:
            raise DataError(f"{folder / name}: {size:,} bytes are no tokenizer's. Is it the right file?")
    if (folder / SETTINGS).is_file() and not any((folder / name).is_file() for name in VOCABULARIES):
        raise DataError(
            f"{folder / SETTINGS}: there is no {TOKENIZER} beside it. Save the tokenizer again with"
            " tokenizer.save_pretrained."
        )
    if (folder / TOKENIZER).is_file():
        _refuse_surplus(folder / TOKENIZER, _count_words(folder), n_rows)


def _refuse_surplus(where: object, n_words: int, n_rows: int) -> None:
    if n_words > n_rows:
        raise DataError(
            f"{where}: {n_words} words, but the body's embedding has {n_rows} rows, so words {n_rows} to {n_words - 1}"
            " have no embedding. Put the tokenizer beside the weights that it was made for."
        )


def _count_words(folder: Path) -> int:
    """One more than the largest word id in tokenizer.json, plus the words that the tokenizer's settings add."""
    path = folder / TOKENIZER
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = whole["model"]["vocab"]
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {row[0]: i for i, row in enumerate(vocabulary)}
        ids |= {token["content"]: token["id"] for token in whole.get("added_tokens") or ()}
        n_words = max(ids.values(), default=-1) + 1
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable_error(path, error) from None
    return n_words + len(_added_words(folder / SETTINGS) - ids.keys())


def _added_words(path: Path) -> set[str]:
    """Special words that the tokenizer's settings name; transformers adds those that the vocabulary lacks."""
    if not path.is_file():
        return set()
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        named = [settings.get(name) for name in SPECIAL]
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise _unreadable_error(path, error) from None
    words = [token.get("content") if isinstance(token, dict) else token for token in named]
    return {word for word in words if isinstance(word, str)}


def _unreadable_error(where: object, error: Exception) -> DataError:
    return DataError(
        f"{where}: cannot be read as a tokenizer ({first_line(error)}). Save it again with tokenizer.save_pretrained, or"
        " get the file again."
    )


def load_tokenizer(location: str, revision: str | None, n_rows: int) -> Any:
    """Returns the tokenizer of a text body's folder or hub id, able to pad; None for a folder without one.

    ``tokenizer.json`` alone is enough.

    Raises:
        DataError: if it cannot be read, or has more words than the embedding has rows.
        OSError: if it cannot be fetched (transformers' own words).
    """
    folder = Path(location)
    if not folder.is_dir():
        tokenizer = _load_whole(location, revision)
    else:
        check_tokenizer(folder, n_rows)
        if (folder / SETTINGS).is_file():
            tokenizer = _load_whole(location, None)
        elif (folder / TOKENIZER).is_file():
            tokenizer = _load_file(folder / TOKENIZER)
        else:
            return None  # enough for naive fine-tuning; a text proxy reports what is missing
    if not tokenizer.is_fast:
        raise DataError(
            f"{location}: a {type(tokenizer).__name__} has no {TOKENIZER}, which is needed. Remove the body's tokenizer, or"
            " convert it."
        )
    _let_pad(tokenizer, location)
    # Positions count from the first word, whatever stands beside a text in its batch.
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    _refuse_surplus(location, max(tokenizer.get_vocab().values(), default=-1) + 1, n_rows)
    return tokenizer


def _load_whole(location: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(location, revision=revision)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the reader of tokenizers raises Exception itself
        raise _unreadable_error(location, error) from None


def _load_file(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except MemoryError:
        raise
    except Exception as error:  # the reader of tokenizers raises Exception itself
        raise _unreadable_error(path, error) from None


def _let_pad(tokenizer: Any, where: str) -> None:
    """Makes one of its own words the padding token of a tokenizer without one; adds no word."""
    if tokenizer.pad_token is not None:
        return
    words = tokenizer.get_vocab()
    if not words:
        raise DataError(f"{where}: the tokenizer has no words. Save it again, or take it out.")
    known = [word for word in (*PADDING[:2], tokenizer.eos_token, *PADDING[2:]) if word in words]
    tokenizer.pad_token = known[0] if known else tokenizer.convert_ids_to_tokens(0)
