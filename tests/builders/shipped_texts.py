"""Makes the text files that lie in the package from the docstrings of installed packages, with the authors' markup.

Run ``python -m tests.builders.shipped_texts`` where the versions of ``constraints.txt`` are installed. It takes 20 seconds.
"""

import ast
import gzip
import hashlib
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from random import Random

import orca_sweep

FOLDER = Path(orca_sweep.__file__).parent / "proxies"
PACKAGES = ("numpy", "pandas", "scipy", "sklearn")  # all under the 3-clause BSD licence
PARTS = (
    "numpy.lib", "numpy.ma", "pandas.core", "pandas.io", "scipy.interpolate", "scipy.optimize", "scipy.signal",
    "scipy.sparse", "scipy.stats", "sklearn.datasets", "sklearn.linear_model", "sklearn.metrics",
)  # fmt: skip
PASSAGE_WORDS, PASSAGES = 32, 200
MOST_WORDS, LEAST_WORDS, MOST_PHRASES = 60, 8, 500
KINDS = {
    "class": "CLASS", "func": "FUNCTION", "meth": "MEMBER", "attr": "MEMBER", "term": "TERM", "math": "MATH",
    "literal": "CODE", "default": "NAME", "emphasis": "EMPHASIS",
}  # fmt: skip
MARKUP = re.compile(
    r":(?P<role>\w+):`(?P<target>[^`]+)`|``(?P<literal>[^`]+)``|(?<![\w`:])`(?P<default>[^`]+)`(?![\w`_])"
    r"|(?<![\w*\\])\*(?P<emphasis>[^\s*][^*]*)\*(?![\w*])"
)
TOKEN = re.compile(r"\w+(?:[.'-]\w+)*|\S")


def read_docstrings(package):
    """Yields (dotted part of the package, docstring) in the order of files and lines."""
    root = Path(find_spec(package).submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if any("test" in part for part in parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                yield f"{package}.{parts[0].removesuffix('.py')}", ast.get_docstring(node)


def cut_paragraphs(docstring):
    """Returns the paragraphs that are prose: no code, heading, table, list of references, or formula on its own."""
    paragraphs = (" ".join(text.split()) for text in re.split(r"\n\s*\n", docstring))
    return [text for text in paragraphs if text and not re.search(r">>>|\.\. |----|====|::|\|", text)]


def name_target(match):
    """Returns the marked words as a reader of the rendered page sees them."""
    return re.sub(r"\s*<[^<>]*>$", "", match["target"] or match[match.lastgroup]).lstrip("~.!")


def tag_words(text):
    """Returns (word, tag) of a paragraph whose markup is taken out of the words and put into the tags."""
    words, end = [], 0
    for match in MARKUP.finditer(text):
        words += [(word, "O") for word in TOKEN.findall(text[end : match.start()])]
        end = match.end()
        kind = KINDS.get(match["role"] or match.lastgroup)
        inner = name_target(match).split() if kind else TOKEN.findall(name_target(match))
        inner = ["".join(inner)] if kind in ("CLASS", "FUNCTION", "MEMBER") else inner
        words += [(word, f"{'I' if i else 'B'}-{kind}" if kind else "O") for i, word in enumerate(inner)]
    return words + [(word, "O") for word in TOKEN.findall(text[end:])]


def choose_sentences(paragraphs, rng):
    """Returns tagged paragraphs that give up to MOST_PHRASES phrases of each kind, the rarest kinds first."""
    tagged = [words[:MOST_WORDS] for words in map(tag_words, paragraphs) if len(words) >= LEAST_WORDS]
    tagged = [words for words in tagged if not any("`" in word for word, _ in words)]  # markup that was not understood
    rng.shuffle(tagged)
    totals = Counter(tag for words in tagged for _, tag in words if tag.startswith("B-"))
    kept, have = set(), Counter()
    for kind, _ in sorted(totals.items(), key=lambda item: (item[1], item[0])):
        for i, words in enumerate(tagged):
            phrases = Counter(tag for _, tag in words if tag.startswith("B-"))
            if have[kind] < MOST_PHRASES and phrases[kind] and i not in kept:
                kept.add(i)
                have += phrases
    return [tagged[i] for i in sorted(kept)], have


def choose_passages(paragraphs_of, rng):
    """Returns (part, passage) lines: PASSAGES passages of PASSAGE_WORDS words of each part."""
    lines = []
    for part in PARTS:
        words = MARKUP.sub(name_target, " ".join(paragraphs_of[part])).split()
        n = len(words) // PASSAGE_WORDS
        passages = [" ".join(words[i * PASSAGE_WORDS : (i + 1) * PASSAGE_WORDS]) for i in range(n)]
        chosen = sorted(rng.sample(range(n), PASSAGES))
        lines += [f"{part}\t{passages[i]}" for i in chosen]
    return lines


def write_text(path, text):
    """Writes the same bytes for the same text."""
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def make_texts():
    paragraphs_of = {}
    for package in PACKAGES:
        for part, docstring in read_docstrings(package):
            paragraphs_of.setdefault(part, {}).update(dict.fromkeys(cut_paragraphs(docstring)))
    write_text(FOLDER / "docstrings.tsv.gz", "\n".join(choose_passages(paragraphs_of, Random(0))) + "\n")
    sentences, counts = choose_sentences(sorted({text for some in paragraphs_of.values() for text in some}), Random(0))
    blocks = ("".join(f"{word}\t{tag}\n" for word, tag in words) for words in sentences)
    write_text(FOLDER / "docstring_tags.conll.gz", "\n".join(blocks))
    print(len(sentences), dict(counts))


if __name__ == "__main__":
    make_texts()
