"""Shared fixtures: small real parts, never mocks."""

import os
import tempfile
import textwrap
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The tests must not use or change the person's cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="orca-sweep-tests-")
# Ray's dashboard takes seconds to start; its tests switch it on.
os.environ.setdefault("ORCA_SWEEP_DASHBOARD_HOST", "none")
# Ray would start workers ahead of time; those of the tests are forked and need no head start.
os.environ.setdefault("RAY_enable_worker_prestart", "0")
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="orca-sweep-tests-"))

import pytest
from hypothesis import settings

from tests.builders.bodies import SIZES
from tests.builders.tasks import USER_TASKS
from tests.commands import ray_head

# No deadlines: tests must pass on a busy machine.
settings.register_profile("without-deadline", deadline=None)
settings.load_profile("without-deadline")

REPO = Path(__file__).resolve().parent.parent


LONGEST = (
    "test_failures.py",
    "test_sweep.py",
    "test_jobs.py",
    "test_offline_study.py",
    "test_tuning.py",
    "test_sweeps.py",
    "test_lost_ray.py",
)


def pytest_collection_modifyitems(items):
    """Puts the longest files first, so that two workers that share the files end at about the same time."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def user_tasks(tmp_path_factory):
    """A file with a user's tasks, for the ``imports`` of a space."""
    from orca_sweep.trial import load_imports

    path = tmp_path_factory.mktemp("user") / "user_tasks.py"
    path.write_text(USER_TASKS)
    load_imports([str(path)])
    return path


@pytest.fixture(scope="session")
def head():
    """A head node of Ray with one CPU, for all tests that can share one; trials run one by one."""
    with ray_head(1) as head:
        yield head


@pytest.fixture
def write_space(tmp_path, user_tasks):
    """Writes a space YAML that imports the user's tasks and returns its path."""

    def write(text, name="space.yaml"):
        path = tmp_path / name
        path.write_text(f"imports: [{user_tasks}]\n" + textwrap.dedent(text))
        return path

    return write


@pytest.fixture
def plan_of(write_space):
    """Plans the text of a space."""
    from orca_sweep.space import plan_space
    from orca_sweep.trial import load_imports, make_config

    return lambda text, name="space.yaml": plan_space(write_space(text, name), load_imports, make_config)


@pytest.fixture
def worker(tmp_path):
    """A worker with one CPU thread and a fresh store."""
    import torch

    from orca_sweep.store import Store
    from orca_sweep.training.worker import Worker

    torch.set_num_threads(1)
    return Worker(Store(str(tmp_path / "store")))


@pytest.fixture
def run(tmp_path, worker, user_tasks):
    """Runs one trial of dotted settings in this process and returns (row, epochs)."""
    from orca_sweep.results import read_record, unseal_metrics
    from orca_sweep.training.run import RunContext, run_config
    from orca_sweep.trial import make_config

    def go(folder="sweep", use=None, snapshots=(), report=lambda row: None, **settings):
        config = make_config({key.replace("__", "."): value for key, value in settings.items()})
        row = run_config(
            config,
            RunContext(
                folder=tmp_path / folder,
                worker=use or worker,
                data_root=tmp_path / "data",
                report=report,
                snapshot_epochs=snapshots,
                imports=[str(user_tasks)],
            ),
        )
        record = read_record(tmp_path / folder, config.trial_id)
        return {**row, **unseal_metrics(record)}, record["epochs"]

    return go


@pytest.fixture
def saved_body(tmp_path):
    """Saves a small body of a family, with its tokenizer, in the format of the hub, and returns the folder."""

    def save(family):
        import torch
        from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

        folder = tmp_path / f"saved-{family}"
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.for_model(family, **SIZES[family])).save_pretrained(folder)
        if family not in ("swin", "vit"):
            from tokenizers import Tokenizer

            from orca_sweep.training.pretrain_corpus import learn_tokenizer

            raw = Tokenizer.from_str(learn_tokenizer(300, ("the type of a type", "attributes are inherited")))
            pad = {} if family.startswith("gpt") else {"pad_token": "<pad>"}  # decoders have none
            PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", **pad).save_pretrained(folder)
        return folder

    return save
