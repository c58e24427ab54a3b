"""Members of a launch; as a program: a driver that launches spaces as one, and writes down what it is told."""

import json
import sys
from pathlib import Path

from orca_sweep.space import plan_space
from orca_sweep.trial import load_imports, make_config


def plan_members(spaces, folder, address="local"):
    """Returns a member for each space, whose sweep folders lie in one folder, and the events that each will be told."""
    from orca_sweep.sweep import Member, Setup

    members, events = [], {}
    for space in spaces:
        plan = plan_space(Path(space), load_imports, make_config)
        name = plan.space.name
        setup = Setup(out=folder / name, store=str(folder / "store"), data_root=folder / "data", address=address)
        watched = events.setdefault(name, [])

        def watch(event, facts, watched=watched):
            watched.append((event, facts))

        members.append(Member(plan=plan, setup=setup, watch=watch))
    return members, events


def main():
    """Launches the spaces of the command line, and writes the outcomes and events of each beside the sweep folders."""
    from orca_sweep.sweep import launch_members

    address, folder, *spaces = sys.argv[1:]
    members, events = plan_members(spaces, Path(folder), address)
    outcomes = launch_members(members)
    told = {
        member.name: {
            **vars(outcome),
            "n_run": outcome.n_run,
            "exit_code": outcome.exit_code,
            "events": [(event, facts.get("trial_id"), facts.get("taken_from")) for event, facts in events[member.name]],
        }
        for member, outcome in zip(members, outcomes, strict=True)
    }
    (Path(folder) / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
