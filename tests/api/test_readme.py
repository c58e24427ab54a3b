"""The README's section "From Python" runs as it stands there."""

import re
from pathlib import Path

import pandas as pd

from tests.commands import warm_workers

REPO = Path(__file__).resolve().parents[2]
SECTION = (REPO / "README.md").read_text(encoding="utf-8").split("## From Python")[1].split("\n## ")[0]


def test_the_section_runs_from_a_mapping_to_a_figure(head, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name, value in {**warm_workers(), "RAY_ADDRESS": head.address}.items():
        monkeypatch.setenv(name, value)
    # The value of each line that is an expression, as a notebook would show it.
    lines = [re.sub(r"^(sweep\.\w+\(.*?\))  #.*$", r"shown.append(\1)", line) for line in code.splitlines()]
    names = {"shown": []}
    exec(compile("\n".join(lines), "README.md", "exec"), names)
    results, verdicts, figure = names["shown"]
    assert isinstance(results, pd.DataFrame) and isinstance(verdicts, pd.DataFrame)
    assert list(results.columns) == ["finetune.freeze", "seed", "status", "val_metric_best", "val_metric_last"]
    assert results["status"].tolist() == ["ok"] * 6
    assert verdicts["finetune.freeze"].tolist() == ["body"]
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert str(names["sweep"].folder) == str(tmp_path / "results" / "frozen")
