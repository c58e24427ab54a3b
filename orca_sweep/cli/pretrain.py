"""``orca-sweep pretrain``: pre-trains a small body before sweeps use it."""

from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.api.stores import open_store
from orca_sweep.cli.data import load_named_imports
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import print_wrapped
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.bodies import Body
    from orca_sweep.config import BodyConfig


def pretrain(
    body: Annotated[str, typer.Argument(help="one of the small bundled bodies, or your own", show_default=False)],
    fraction: Annotated[float, typer.Option(help="share of the corpus")] = 1.0,
    seed: Annotated[int, typer.Option(help="seed of initialisation and order")] = 0,
    steps: Annotated[int | None, typer.Option(help="optimizer steps; default: the body's recipe")] = None,
    store: Annotated[str, typer.Option(help="where the artifact goes; give launch the same store")] = "store",
    threads: Annotated[int, typer.Option(min=1, help="torch threads; use the space's resources.cpu")] = 1,
    gpu: Annotated[bool, typer.Option(help="train on a GPU, as trials with resources.gpu do")] = False,
    imports: Annotated[list[str] | None, typer.Option(help="your modules or files with bodies and corpora")] = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train a small body once, before sweeps.

    Sweeps with the same store then reuse it.
    """
    load_named_imports(imports)
    record, config = _read_body(body, fraction, steps, seed)
    import torch

    from orca_sweep.training.pretrain import pretrain_body
    from orca_sweep.training.run import keep_pretraining
    from orca_sweep.training.worker import Worker

    torch.set_num_threads(threads)
    worker = Worker(open_store(store), "cuda" if gpu else "cpu", threads)
    total = steps or (record.pretrain.steps if record.pretrain else 0)
    loaded, seconds, is_reused = pretrain_body(
        record, config, worker, lambda row: print(f"step {row['epoch']} of {total}: loss {row['train_loss']:.4f}")
    )
    keep_pretraining(record, config, worker)
    recipe = record.pretrain
    if as_json:
        print_document(
            "pretrain",
            {
                "body": record.name,
                "corpus": recipe.corpus.name if recipe else None,
                "fraction": fraction,
                "seed": seed,
                "n_steps": total,
                "measure": recipe and ("error" if recipe.task == "classification" else "loss"),
                "held_out": loaded.pretrain_metric,
                "is_reused": is_reused,
                "duration_s": seconds,
                "store": store,
            },
        )
    elif recipe is not None:
        measure = "error" if recipe.task == "classification" else "loss"
        how = f"found in {store}" if is_reused else f"took {seconds:.0f} s, stored in {store}"
        held_out = f"held-out {measure} {loaded.pretrain_metric:.4f}"
        print_wrapped(f"{record.name} on {fraction:g} of {recipe.corpus.name}: {held_out}, {how}")


def _read_body(name: str, fraction: float, steps: int | None, seed: int) -> "tuple[Body, BodyConfig]":
    """Returns the body's record and settings.

    Raises:
        InputError: if a setting is wrong, or there is nothing to pre-train.
    """
    from pydantic import ValidationError

    from orca_sweep.bodies import find_body
    from orca_sweep.config import BodyConfig, explain_validation

    record = find_body(name)
    try:
        config = BodyConfig(name=name, pretrain_fraction=fraction, pretrain_steps=steps, pretrain_seed=seed)
    except ValidationError as error:
        raise InputError(
            [f"pretrain: {field} = {value!r}: {rule}." for field, value, rule in explain_validation(error)]
        ) from None
    if record.pretrain is None:
        raise InputError(f"pretrain: {record.name!r} has published weights, so there is nothing to pre-train.")
    if fraction == 0:
        raise InputError("pretrain: fraction 0 is a random body, so there is nothing to pre-train.")
    return record, config
