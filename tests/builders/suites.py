"""The folder of a suite as a launch leaves it, made without training."""

from orca_sweep.space.suites import SuiteManifest, write_suite
from tests.builders.sweeps import sweep_folder


def suite_folder(folder, **statuses):
    """Writes a suite whose members have the trials of ``sweep_folder``, with these statuses: they share all of them."""
    for name, of_member in statuses.items():
        sweep_folder(folder / name, statuses=of_member, name=name)
    write_suite(folder, SuiteManifest(name=folder.name, members=tuple(statuses)))
    return folder
