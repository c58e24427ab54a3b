"""The notebook: a page without stored outputs that runs as it is in a real kernel, in an empty folder."""

import json
import os
from pathlib import Path

import nbformat
import pytest

REPO = Path(__file__).resolve().parents[2]
NOTEBOOK = REPO / "analysis" / "notebook.ipynb"


def test_it_is_a_page_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert sum(len(cell.source.splitlines()) for cell in notebook.cells) < 60
    assert NOTEBOOK.read_text(encoding="utf-8").endswith("\n") and "/home" not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outputs(head, tmp_path_factory):
    """The folder in which the notebook ran, in a real kernel, and the outputs of each of its code cells."""
    from nbclient import NotebookClient

    from tests.commands import warm_workers

    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = dict(os.environ)
    os.environ.update({**warm_workers(), "RAY_ADDRESS": head.address, "PYTHONPATH": str(REPO)})
    try:
        NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return folder, [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def shown(outputs, kind):
    return "".join("".join(o["data"][kind]) for o in outputs if kind in o.get("data", {}))


def test_it_goes_from_a_mapping_to_a_verdict_table_and_a_figure(outputs):
    folder, (_, plan, launch, verdicts, figure, status) = outputs
    assert "2 cells x 3 seeds = 6 trials" in shown(plan, "text/html")
    assert "<td>body</td>" in shown(plan, "text/html")
    lines = "".join(o["text"] for o in launch if o["output_type"] == "stream" and o["name"] == "stdout")
    assert "6 trials to run, 0 done before" in lines and "ran 6 of 6 trials" in lines
    assert lines.count(": ok in ") == 6
    assert "val_metric_best" in shown(launch, "text/html")
    assert any(
        word in shown(verdicts, "text/html") for word in ("helps", "hurts", "no meaningful difference", "undecided")
    )
    assert shown(figure, "image/png").startswith("iVBOR")
    assert "6 trials: 6 ok; no launch is running" in shown(status, "text/plain")
    assert (folder / "results" / "notebook" / "tables" / "trials.parquet").is_file()
    assert (folder / "results" / "notebook" / "report.html").stat().st_size > 10_000


def test_its_source_is_plain_json_that_git_can_compare():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
