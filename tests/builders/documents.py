"""Checks the documents of ``--json`` against the page that describes them."""

import re
from pathlib import Path

from orca_sweep import cli

PAGE = Path(cli.__file__).with_name("README.md").read_text()
TYPES = {
    "text": str, "path": str, "time": str, "count": int, "number": int | float, "flag": bool, "list": list, "record": dict,
    "any": object,
}  # fmt: skip


def read_page(*titles):
    """The keys that sections of the page describe, each with its type."""
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    text = "\n".join(sections[title] for title in titles)
    rows = re.findall(r"^\| (`.+?) \| (\w+\??) \|", text, re.MULTILINE)
    return {key: kind for keys, kind in rows for key in re.findall(r"`(.+?)`", keys)}


def list_added_keys(command):
    """The keys that a command adds to those of the section 'launch, resume, reveal'."""
    text = re.split(rf"`{command}` add.*:", PAGE)[1].strip()
    return {
        key
        for keys in re.findall(r"^\| (`.+?) \|", text.split("\n\n")[0], re.M)
        for key in re.findall(r"`(.+?)`", keys)
    }


def check_against_page(document, *titles, without=()):
    """Checks that a document has the keys of sections of the page, no others, and with their types."""
    page = {key: kind for key, kind in read_page(*titles).items() if key not in without}
    seen = {}
    collect_keys({key: value for key, value in document.items() if key not in ("command", "schema")}, "", page, seen)
    assert (document["schema"], type(document["command"])) == (1, str)
    for key, values in seen.items():
        kind = page[key].removesuffix("?")
        for value in values:
            if value is None:
                assert page[key].endswith("?"), key
            else:
                assert (
                    isinstance(value, TYPES[kind]) and (kind == "flag") == isinstance(value, bool)
                ) or kind == "any", key
            if kind == "time" and value is not None:
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value)
    parents = {key: re.sub(r"(\[\])?\.[^.]+$", "", key) for key in page}
    expected = {key for key in page if parents[key] == key or any(map(bool, seen.get(parents[key], [])))}
    assert set(seen) == expected


def collect_keys(values, prefix, page, seen):
    for key, value in values.items():
        path = f"{prefix}{key}"
        assert path in page, f"the page does not describe {path}"
        seen.setdefault(path, []).append(value)
        below = [name for name in page if name.startswith((f"{path}.", f"{path}[]."))]
        if below and isinstance(value, dict):
            collect_keys(value, f"{path}.", page, seen)
        elif below and isinstance(value, list):
            for item in value:
                collect_keys(item, f"{path}[].", page, seen)
