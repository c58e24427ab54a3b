"""The canonical text of a value, and short hashes of it."""

import hashlib
import json


def canonical_json(value: object) -> str:
    """Returns the canonical JSON of a value, which hashes are computed from: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(kind: str, value: object) -> str:
    """Returns a short hash of a value of one kind: equal kinds and values have equal hashes."""
    return hashlib.sha256(f"{kind}:{canonical_json(value)}".encode()).hexdigest()[:16]
