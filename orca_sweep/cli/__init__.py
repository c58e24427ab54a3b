"""The command line: parse, print, exit codes. Heavy imports stay inside the commands that need them."""

import errno
import json
import os
import shlex
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from orca_sweep import __version__
from orca_sweep.cli import analyses, ending, plans, tables, trials
from orca_sweep.cli import data as data_commands
from orca_sweep.cli import jobs as job_commands
from orca_sweep.cli import store as store_commands
from orca_sweep.cli.listing import describe_names
from orca_sweep.cli.progress import Progress
from orca_sweep.cli.reporting import report
from orca_sweep.cli.terminal import open_console
from orca_sweep.cli.words import real_path, refuse_zero_bytes
from orca_sweep.errors import InputError, OrcaSweepError, RayLostError, StorageError
from orca_sweep.space import MAX_TRIALS, Plan
from orca_sweep.store import FULL
from orca_sweep.visible import escape_output

app = typer.Typer(
    help="Ablation sweeps of cross-modal fine-tuning with ORCA: from a YAML space to Parquet tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_commands.app, name="data")
app.add_typer(store_commands.app, name="store")
app.add_typer(job_commands.app, name="job")
app.add_typer(analyses.app, name="analyse")
LOOPBACK = "127.0.0.1"
DashboardHost = Annotated[
    str,
    typer.Option(
        envvar="ORCA_SWEEP_DASHBOARD_HOST",
        help="where the dashboard of our own Ray listens: this machine alone, another of its addresses, or none",
    ),
]
LOOP = "Symlink loop from "
IMPOSSIBLE_PATHS: Mapping[int | None, str] = {
    errno.ENAMETOOLONG: "longer than the file system takes (mostly 255 bytes for a name, 4096 in all).",
    errno.ELOOP: "a link that leads back to itself.",
}
"""What no path can be, whatever a command does with it, by the system's error numbers."""
INTERRUPTED = 130
"""Typer's exit code for Ctrl-C."""


class Kind(StrEnum):
    """What ``list`` can list."""

    tasks = "tasks"
    bodies = "bodies"
    proxies = "proxies"
    objectives = "objectives"
    metrics = "metrics"
    losses = "losses"
    factors = "factors"
    columns = "columns"
    spaces = "spaces"
    analyses = "analyses"


def main() -> None:
    """Runs the command line. Exit code 0 done, 1 some trials failed or are unfinished, 2 wrong input."""
    with escape_output():
        _check_words(sys.argv[1:])
        _main()


def _main() -> None:
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        refuse_zero_bytes(sys.argv[1:])
        app()
    except OrcaSweepError as error:
        if debug:
            raise
        print(str(error), file=sys.stderr)
        if isinstance(error, RayLostError):
            _end_now(1)
        sys.exit(1 if isinstance(error, StorageError) else 2)
    except (OSError, RuntimeError) as error:  # of a path that somebody gave
        problem = _explain_path(error)
        if debug or problem is None:
            raise
        print(problem, file=sys.stderr)
        sys.exit(1 if isinstance(error, OSError) and error.errno in FULL else 2)
    except SystemExit as end:
        if debug or end.code != INTERRUPTED:
            raise
        print("Interrupted. Nothing finished is lost: the same command goes on from here.", file=sys.stderr)
        sys.exit(1)


def _check_words(words: list[str]) -> None:
    """Ends the program if a word is no UTF-8: neither tables nor JSON can be written to or name such a path."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode("utf-8", "backslashreplace").decode()[:60]
            print(f"{shown}: holds bytes that are no UTF-8 text. Rename the file or folder.", file=sys.stderr)
            sys.exit(2)


def _explain_path(error: OSError | RuntimeError) -> str | None:
    """What is wrong with the path that an error is about; None if it is about none."""
    if isinstance(error, OSError):
        if error.filename is None:
            return None
        path, number, why = os.fsdecode(error.filename), error.errno or 0, error.strerror or str(error)
    else:
        before, is_loop, path = str(error).partition(LOOP)  # so Path.resolve before Python 3.13
        if before or not is_loop:
            return None
        number, why = errno.ELOOP, ""
    shown = path if len(path) <= 60 else f"{path[:60]}..."
    if number in IMPOSSIBLE_PATHS:
        return f"{shown}: {IMPOSSIBLE_PATHS[number]} Name another file or folder."
    return f"{shown}: {FULL.get(number, why)}. Correct the path, or make it usable."


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Ablation sweeps of cross-modal fine-tuning with ORCA (add --debug anywhere for tracebacks)."""


# list ---------------------------------------------------------------------------------------------


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(help="what to list", show_default=False)]) -> None:
    """Lists names that spaces, tables and commands know: one name first on each line, then what it is."""
    for name, text in describe_names(kind.value):
        print(f"{name:<32} {text}")


# launch -------------------------------------------------------------------------------------------


@app.command()
def launch(
    space: plans.SpaceFile,
    out: Annotated[Path | None, typer.Option(help="sweep folder; default results/<name>")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; default: one of our own here")] = None,
    data: Annotated[Path, typer.Option(help="folder with the files of tasks that need some")] = Path("data"),
    store: Annotated[str | None, typer.Option(help="stage artifacts, any fsspec path; default OUT/store")] = None,
    dashboard_host: DashboardHost = LOOPBACK,
    rehash: plans.Rehash = False,
    max_trials: plans.MaxTrials = MAX_TRIALS,
) -> None:
    """Runs what is missing of a space on Ray Tune, then writes tables and figures and prints the result."""
    made = plans.make_plan(space, max_trials, rehash)
    folder = real_path(out or Path("results") / made.space.name)
    _run(made, folder, address, real_path(data), plans.store_root(store or str(folder / "store")), dashboard_host)


@app.command()
def resume(
    sweep: Annotated[Path, typer.Argument(help="a sweep folder", show_default=False)],
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; default: one of our own here")] = None,
    dashboard_host: DashboardHost = LOOPBACK,
) -> None:
    """Runs what is missing of a sweep, from its folder alone: the plan, data and store of its last launch."""
    from orca_sweep.space.manifest import MANIFEST, rebuild_plan, require_manifest
    from orca_sweep.trial import check_contents, load_imports

    folder, manifest = real_path(sweep), require_manifest(sweep)
    made = rebuild_plan(manifest, folder / MANIFEST)
    load_imports(made.space.imports)
    check_contents(made)
    _run(made, folder, address, Path(manifest.data), manifest.store, dashboard_host)


def _run(made: Plan, folder: Path, address: str | None, data_root: Path, store: str, dashboard_host: str) -> None:
    console = open_console()
    if address is not None and not address.strip():
        raise InputError(f"--address {address!r}: empty. Give HOST:PORT of a cluster's head, or leave it out.")
    where = address or os.environ.get("RAY_ADDRESS", "").strip() or "local"
    if where != "local":
        if dashboard_host not in (LOOPBACK, "none"):
            raise InputError(f"--dashboard-host {dashboard_host}: {where} is a cluster that runs; it has its own.")
        job_commands.use_ray_token()

    from orca_sweep.results import describe_changes
    from orca_sweep.sweep import Setup
    from orca_sweep.sweep import launch as run
    from orca_sweep.trial import describe_inputs, describe_proxies, resolve_configs

    cells = resolve_configs(made.cells)
    lines = (*describe_changes(folder, made), *describe_proxies(cells, made.names), *describe_inputs(cells))
    for line in lines:
        console.print(line, soft_wrap=True)
    _convert_tasks(made, data_root)
    setup = Setup(folder, store, data_root, where, None if dashboard_host == "none" else dashboard_host)
    with Progress(console, made) as progress:

        def tell_and_end(outcome: Any) -> None:
            try:
                progress.live.stop()
                _tell_outcome(folder, console, outcome)
            finally:
                _end_now(1)

        outcome = run(made, setup, progress, tell_and_end)
    _tell_outcome(folder, console, outcome)


def _tell_outcome(folder: Path, console: Console, outcome: Any) -> None:
    """Makes the tables, says how the sweep ended, and ends the command."""
    ending.finish(folder, console)
    console.print(_outcome_text(outcome))
    for note in outcome.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if outcome.n_left:
        console.print(
            f"What is missing or failed runs with: orca-sweep resume {shlex.quote(ending.short(folder))}",
            soft_wrap=True,
        )
    if outcome.ray_is_lost:
        _end_now(outcome.exit_code)
    raise typer.Exit(outcome.exit_code)


def _end_now(code: int) -> None:
    """Ends this process without Ray's own way out, which would wait for a Ray that is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _convert_tasks(made: Plan, root: Path) -> None:
    """Converts here what can be, with a bar to look at; what is missing is told by the sweep itself."""
    from orca_sweep.tasks import explain_unavailable
    from orca_sweep.trial import resolve_configs

    tasks = {trial.config.task: trial.task for trial in resolve_configs(made.cells)}
    for task in tasks.values():
        if task.convert is not None and not explain_unavailable(task, root):
            data_commands.convert_task(task, root)


def _outcome_text(outcome: Any) -> str:
    states = ", ".join(f"{n} {status}" for status, n in sorted(outcome.statuses.items()))
    return f"{outcome.n_run} of {outcome.n_planned} trials run now in {outcome.wall_time_s:.0f} s; all: {states}"


# pretrain -----------------------------------------------------------------------------------------


@app.command()
def pretrain(
    body: Annotated[str, typer.Argument(help="one of our own small bodies, or yours", show_default=False)],
    fraction: Annotated[float, typer.Option(help="share of the corpus")] = 1.0,
    seed: Annotated[int, typer.Option(help="seed of initialisation and order")] = 0,
    steps: Annotated[int | None, typer.Option(help="optimizer steps; default: the body's recipe")] = None,
    store: Annotated[str, typer.Option(help="where the artifact goes; give launch the same")] = "store",
    threads: Annotated[int, typer.Option(min=1, help="torch threads, as the trials' resources.cpu")] = 1,
    gpu: Annotated[bool, typer.Option(help="train on a GPU, as trials with resources.gpu do")] = False,
    imports: Annotated[list[str] | None, typer.Option(help="your modules or files with bodies and corpora")] = None,
) -> None:
    """Pre-trains a small body once, ahead of sweeps that use it with the same store."""
    from pydantic import ValidationError

    from orca_sweep.bodies import find_body
    from orca_sweep.config import BodyConfig, explain_validation

    data_commands.load_named(imports)
    record = find_body(body)
    try:
        config = BodyConfig(name=body, pretrain_fraction=fraction, pretrain_steps=steps, pretrain_seed=seed)
    except ValidationError as error:
        problems = [f"pretrain: {field} = {value!r}: {rule}." for field, value, rule in explain_validation(error)]
        raise InputError(problems) from None
    if record.pretrain is None:
        raise InputError(f"pretrain: {record.name!r} comes with published weights: there is nothing to pre-train.")
    if fraction == 0:
        raise InputError("pretrain: fraction 0 is a random body: there is nothing to pre-train.")
    import torch

    from orca_sweep.store import Store
    from orca_sweep.training.pretrain import pretrain_body
    from orca_sweep.training.run import keep_pretraining
    from orca_sweep.training.worker import Worker

    torch.set_num_threads(threads)
    with store_commands.told(f"--store {store}"):
        opened = Store(plans.store_root(store))
        opened.check_root()
    worker = Worker(opened, "cuda" if gpu else "cpu", threads)
    total = steps or record.pretrain.steps
    loaded, seconds, reused = pretrain_body(
        record, config, worker, lambda row: print(f"step {row['epoch']} of {total}: loss {row['train_loss']:.4f}")
    )
    keep_pretraining(record, config, worker)
    measure = "error" if record.pretrain.task == "classification" else "loss"
    print(
        f"{record.name} on {fraction:g} of {record.pretrain.corpus.name}: held-out {measure} {loaded.pretrain_metric:.4f},"
        f" {'found in' if reused else f'{seconds:.0f} s, now in'} {store}"
    )


# bench --------------------------------------------------------------------------------------------


class Benchmark(StrEnum):
    """What ``bench`` can measure."""

    objectives = "objectives"
    loading = "loading"
    training = "training"
    sweep = "sweep"
    overhead = "overhead"
    collect = "collect"


@app.command()
def bench(
    benchmark: Annotated[Benchmark, typer.Argument(help="what to measure", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line per case")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="how often the slow side runs; its median counts")] = 3,
) -> None:
    """Measures ours beside the naive way of the same work; ratio = naive / ours in CPU seconds of one thread.

    Loading is measured beside a DataLoader with 4 workers, whose CPU seconds count too; samples/s are by the clock.
    Training is beside a plainly written loop; on a GPU seconds are by the clock, and what ours reaches of the card's
    bfloat16 peak is told. Sweep is a grid of 48 trials with and without what they share.
    Overhead is that of a sweep of trials that do nothing, beside a bare Tuner that uses its workers again. Collect is
    beside reading every record into a frame and writing that.
    """
    from orca_sweep.bench import run

    row = "{:34} {:>10} {:>10} {:>8} {:>9} {:>11}" + " {:>14} {:>15}" * (
        benchmark in (Benchmark.loading, Benchmark.training)
    )
    if not as_json:
        heads = ("case", "ours ms", "naive ms", "ratio", "peak MiB", "difference", "ours samples/s", "naive samples/s")
        print(row.format(*heads))
    for m in run(benchmark.value, repeats):
        numbers = f"{m.ours_s * 1e3:.1f}", f"{m.other_s * 1e3:.0f}", f"{m.ratio:.1f}", f"{m.peak_memory_mib:.0f}"
        speeds = f"{m.n_samples / m.ours_wall_s:.0f}", f"{m.n_samples / m.other_wall_s:.0f}"
        share = "" if m.peak_share is None else f"  {m.peak_share:.0%} of the card's bfloat16 peak"
        line = row.format(m.case, *numbers, f"{m.difference:.0e}", *speeds) + share
        text = json.dumps(m.as_dict()) if as_json else line
        print(text, flush=True)


app.command()(plans.plan)
app.command()(job_commands.submit)
app.command()(tables.collect)
app.command()(tables.status)
app.command()(report)
app.command()(trials.reveal)
app.command()(trials.replay)
