"""Builds the manifest of a sweep folder, for tests that need tables with chosen numbers but no launch."""

from orca_sweep.config import canonical_json
from orca_sweep.space.manifest import MANIFEST_FILE
from orca_sweep.space.records import Budget, Checkpoints, Limits, Logger, Resources
from orca_sweep.space.tuning import Search

DEFAULTS = {
    "name": "s", "question": "?", "metric": "test_metric_best", "factors": [], "labels": {}, "seeds": [], "aa": [],
    "resources": Resources().model_dump(), "limits": Limits().model_dump(), "checkpoints": Checkpoints().model_dump(),
    "loggers": [Logger(name="json").model_dump()], "imports": [], "tune": {}, "search": Search().model_dump(), "prune": None,
    "budget": Budget().model_dump(), "outcomes": {}, "margins": {}, "data": "data", "store": "store", "n_later": 0,
    "tuned": [], "trials": [],
}  # fmt: skip


def sweep_manifest(**fields):
    """A manifest with these fields, checked like one from a file; all other fields are those of a small plain sweep."""
    return MANIFEST_FILE.validate_json(canonical_json({**DEFAULTS, **fields}))
