"""House rules of the code, measured: ``python tests/house.py [ROOM ...]`` prints each target and who misses it, per room.

Everything is read from the syntax trees of ``orca_sweep``; nothing is imported or run.
"""

import ast
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "orca_sweep"
MOST_ONE_WORD = 0.25
MOST_PARAMETERS = 6
MOST_POSITIONAL = 4
MOST_LINES_P95 = 30
MOST_LINES_OF_MODULE = 500
WINDOW = 5
"""So many statements and headers in a row, which take about six lines of text, are a duplicate where they stand twice."""
EMPTY_WORDS = {"found", "one", "told", "said", "place"}
"""Words that name nothing; design.md asks for the next three too."""
MORE_EMPTY_WORDS = {"there", "ours", "others"}
LOOK_UPS = {"find_task", "find_body", "find_proxy", "find_rung"}
MAY_LOOK_UP = ("trial/records.py", "tasks/", "bodies/", "proxies/", "cli/")
"""Resolving, the rooms where the look-ups are defined, and the commands that list or check one name."""
READS_LIBRARY_MESSAGES = ("errors.py", "sweep/jobs.py", "cli/failures.py", "bodies/loading.py")
"""Modules that distinguish errors of torch, Ray and Python by their texts, since these have no type or code of their own."""
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Offence:
    """One spot that misses a target."""

    module: str
    """Path below the package, such as ``store/locks.py``."""
    line: int
    text: str

    @property
    def room(self) -> str:
        """The folder below the package, or the module itself at the top."""
        return self.module.split("/", maxsplit=1)[0]

    def __str__(self) -> str:
        return f"orca_sweep/{self.module}:{self.line}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Module:
    """One source file and its syntax tree."""

    name: str
    n_lines: int
    tree: ast.Module

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree, the lambdas' and comprehensions' included."""
        return list(ast.walk(self.tree))

    @cached_property
    def functions(self) -> list[FUNCTION]:
        """Functions, methods and inner functions, in the order of their lines."""
        return sorted((node for node in self.nodes if isinstance(node, FUNCTION)), key=lambda node: node.lineno)

    def offence(self, node: ast.AST, text: str) -> Offence:
        """Returns an offence at a node."""
        return Offence(module=self.name, line=getattr(node, "lineno", 1), text=text)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A rule of the house, what it measured, and who misses it."""

    name: str
    measured: str
    holds: bool
    offences: tuple[Offence, ...]


@cache
def read_modules() -> tuple[Module, ...]:
    """Returns every module of the package, sorted by name."""
    modules = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        name = path.relative_to(PACKAGE).as_posix()
        modules.append(Module(name=name, n_lines=len(text.splitlines()), tree=ast.parse(text)))
    return tuple(modules)


# Names -----------------------------------------------------------------------------------------------


def is_one_word(name: str) -> bool:
    """Whether a name has one word; names between double underscores are Python's and count nowhere."""
    return "_" not in name.strip("_")


def is_dunder(name: str) -> bool:
    """Whether Python chose the name."""
    return name.startswith("__") and name.endswith("__")


def measure_one_word_functions(modules: Iterable[Module]) -> tuple[float, list[Offence]]:
    """Returns the share of functions with one-word names, and those functions."""
    named = [(m, f) for m in modules for f in m.functions if not is_dunder(f.name)]
    short = [m.offence(f, f"def {f.name}") for m, f in named if is_one_word(f.name)]
    return len(short) / max(1, len(named)), short


def identifiers_of(node: ast.AST) -> Iterator[str]:
    """Yields the identifiers that a node itself spells."""
    for attribute in ("name", "id", "arg", "attr", "asname"):
        identifier = getattr(node, attribute, None)
        if isinstance(identifier, str) and not (isinstance(node, ast.alias) and attribute == "name"):
            yield identifier


def find_empty_words(module: Module, words: set[str]) -> list[Offence]:
    """Returns each line that has one of the words as an identifier, once per word."""
    lines = {
        (getattr(node, "lineno", 1), identifier)
        for node in module.nodes
        for identifier in identifiers_of(node)
        if identifier.strip("_").lower() in words
    }
    return [Offence(module=module.name, line=line, text=word) for line, word in sorted(lines)]


# Functions and calls ---------------------------------------------------------------------------------


def parameters_of(function: FUNCTION) -> list[str]:
    """Returns the names of the parameters that a caller gives."""
    arguments = function.args
    plain = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    return [name for name in plain if name not in ("self", "cls")] + [argument.arg for argument in arguments.kwonlyargs]


def is_command(module: Module, function: FUNCTION) -> bool:
    """Whether a function is a command of the command line.

    Its parameters are the command's options, and typer reads each from the signature: it cannot take a record.
    """
    if not module.name.startswith("cli/"):
        return False
    return any("typer.Option" in ast.unparse(arg) for arg in (*function.args.args, *function.args.kwonlyargs))


def find_long_signatures(module: Module) -> list[Offence]:
    """Returns the functions with too many parameters, commands aside."""
    functions = (function for function in module.functions if not is_command(module, function))
    counted = ((function, len(parameters_of(function))) for function in functions)
    return [module.offence(f, f"def {f.name}: {n} parameters") for f, n in counted if n > MOST_PARAMETERS]


@cache
def own_callables() -> tuple[frozenset[str], frozenset[str]]:
    """Returns the names of functions and classes, and those of methods, that the package defines."""
    free, methods = set(), set()
    for module in read_modules():
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                free.add(node.name)
                methods |= {item.name for item in node.body if isinstance(item, FUNCTION)}
            elif isinstance(node, FUNCTION):
                free.add(node.name)
    return frozenset(free), frozenset(methods)


def imported_from_outside(module: Module) -> set[str]:
    """Returns the names that a module imports from elsewhere than the package."""
    names = set()
    for node in module.nodes:
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("orca_sweep"):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def callee_of(call: ast.Call, foreign: set[str]) -> str | None:
    """Returns the name of what is called if the package may define it; else None."""
    free, methods = own_callables()
    if isinstance(call.func, ast.Name):
        return call.func.id if call.func.id in free and call.func.id not in foreign else None
    if isinstance(call.func, ast.Attribute):
        owner: ast.expr = call.func
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        is_foreign = isinstance(owner, ast.Name) and owner.id in foreign
        return call.func.attr if call.func.attr in free | methods and not is_foreign else None
    return None


def find_positional_calls(module: Module) -> list[Offence]:
    """Returns the calls of our own functions with too many arguments by position; ``*rest`` is not counted."""
    foreign, offences = imported_from_outside(module), []
    for node in module.nodes:
        if isinstance(node, ast.Call):
            n = sum(not isinstance(argument, ast.Starred) for argument in node.args)
            callee = callee_of(node, foreign) if n > MOST_POSITIONAL else None
            if callee:
                offences.append(module.offence(node, f"{callee}(...): {n} arguments by position"))
    return offences


def length_of(function: FUNCTION) -> int:
    """Returns the lines of a function from ``def`` to its end, its docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def measure_lengths(modules: Iterable[Module]) -> tuple[int, list[Offence]]:
    """Returns the 95th percentile of the functions' lines, and the functions above the target, longest first."""
    lengths = sorted(((length_of(f), m, f) for m in modules for f in m.functions), key=lambda item: -item[0])
    p95 = lengths[int(0.05 * len(lengths))][0] if lengths else 0
    return p95, [m.offence(f, f"def {f.name}: {n} lines") for n, m, f in lengths if n > MOST_LINES_P95]


# What is looked up or parsed again -------------------------------------------------------------------


def find_look_ups(module: Module) -> list[Offence]:
    """Returns the calls that look a task, body, proxy or rung up again below resolving."""
    if module.name.startswith(MAY_LOOK_UP):
        return []
    calls = (node for node in module.nodes if isinstance(node, ast.Call))
    named = ((call, getattr(call.func, "id", getattr(call.func, "attr", ""))) for call in calls)
    return [module.offence(call, f"{name}(...)") for call, name in named if name in LOOK_UPS]


PARTING = set("startswith endswith split rsplit partition rpartition find index removeprefix removesuffix".split())
MATCHING = {"match", "search", "fullmatch", "findall", "finditer", "sub"}


def error_names(function: ast.AST) -> set[str]:
    """Returns the names in a function that hold an error or a problem."""
    names = {n.name for n in ast.walk(function) if isinstance(n, ast.ExceptHandler) and n.name}
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.annotation is not None:
            kind = ast.unparse(node.annotation)
            names |= {node.arg} if re.fullmatch(r"'?(\w*Error|\w*Exception|Problem)'?", kind) else set()
        if isinstance(node, ast.comprehension | ast.For) and isinstance(node.target, ast.Name):
            names |= {node.target.id} if node.target.id == "problem" else set()
    return names


def is_message(node: ast.AST, errors: set[str], texts: set[str]) -> bool:
    """Whether an expression is the text of an error or problem, or a name that holds such a text."""
    if isinstance(node, ast.Name):
        return node.id in texts
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "repr", "first_line"):
        return any(isinstance(argument, ast.Name) and argument.id in errors for argument in node.args)
    if isinstance(node, ast.Attribute):
        owned = isinstance(node.value, ast.Name) and node.value.id in errors
        return owned and node.attr in ("args", "rule", "remedy", "message", "text", "msg")
    if isinstance(node, ast.Subscript):
        return is_message(node.value, errors, texts)
    return False


def parses_message(node: ast.AST, errors: set[str], texts: set[str]) -> bool:
    """Whether a node compares a message, takes it apart, or matches a pattern against it."""
    if isinstance(node, ast.Compare):
        return any(is_message(side, errors, texts) for side in (node.left, *node.comparators))
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    has_separator = bool(node.args) or node.func.attr != "split"  # split() only joins the lines of a text
    is_parted = has_separator and node.func.attr in PARTING and is_message(node.func.value, errors, texts)
    return is_parted or (node.func.attr in MATCHING and any(is_message(a, errors, texts) for a in node.args))


def find_parsed_messages(module: Module) -> list[Offence]:
    """Returns the spots where code reads something out of the text of an error or a problem."""
    if module.name in READS_LIBRARY_MESSAGES:
        return []
    offences = set()
    for function in module.functions:
        errors = error_names(function)
        held = (n for n in ast.walk(function) if isinstance(n, ast.Assign) and is_message(n.value, errors, set()))
        texts = {target.id for n in held for target in n.targets if isinstance(target, ast.Name)}
        parsing = (node for node in ast.walk(function) if parses_message(node, errors, texts))
        offences |= {module.offence(node, ast.unparse(node)[:100]) for node in parsing}
    return sorted(offences, key=lambda offence: offence.line)


# What stands twice -----------------------------------------------------------------------------------


BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")


def statement_lines(function: FUNCTION) -> list[tuple[int, str]]:
    """Returns a function's statements and headers, each on one line with its line number; no docstrings, no comments.

    The names that the function binds are marked, so that two spots that differ only in these are equal.
    """
    nodes = list(ast.walk(function))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)} - {"self", "cls"}
    marked = [(name, name.id) for name in names if name.id in bound]
    for name, text in marked:
        name.id = f"\N{SECTION SIGN}{text}"
    try:
        return [(n, text) for n, text in _lines_of(function.body) if text]
    finally:  # in place and back, since copies of the trees take ten times as long
        for name, text in marked:
            name.id = text


def _lines_of(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, FUNCTION | ast.ClassDef):
            continue  # inner functions are read on their own
        blocks = [block for block in BLOCKS if block in statement._fields]
        header = copy(statement)
        for block in blocks:
            setattr(header, block, [])
        yield statement.lineno, ast.unparse(header)
        for block in blocks:
            for inner in getattr(statement, block):
                is_clause = not isinstance(inner, ast.stmt)
                if is_clause:
                    yield getattr(inner, "lineno", statement.lineno), type(inner).__name__
                yield from _lines_of(inner.body if is_clause else [inner])


def rename_in_order(lines: list[str]) -> str:
    """Returns lines with each marked name replaced by its number in the order of appearance."""
    numbers: dict[str, str] = {}
    return re.sub(r"\N{SECTION SIGN}\w+", lambda m: numbers.setdefault(m[0], f"v{len(numbers)}"), "\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where a window of lines begins."""

    module: str
    function: str
    function_line: int
    line: int
    start: int
    """How many lines of the function come before."""

    def __str__(self) -> str:
        return f"{self.function} in orca_sweep/{self.module}:{self.line}"

    def stands_in(self, other: "Spot") -> bool:
        """Whether both lie in one function."""
        return (self.module, self.function_line) == (other.module, other.function_line)


def windows_of(module: Module) -> Iterator[tuple[str, Spot]]:
    """Yields each window of a module's functions as normalised text, with its spot."""
    for function in module.functions:
        lines = statement_lines(function)
        for start in range(len(lines) - WINDOW + 1):
            text = rename_in_order([text for _, text in lines[start : start + WINDOW]])
            spot = {"function_line": function.lineno, "line": lines[start][0], "start": start}
            yield text, Spot(module=module.name, function=function.name, **spot)


def find_duplicates(modules: Iterable[Module]) -> list[Offence]:
    """Returns the spots where a window of lines equals that of another function, but for the names of local variables."""
    first: dict[str, Spot] = {}
    pairs: list[tuple[Spot, Spot]] = []
    for module in modules:
        for text, spot in windows_of(module):
            earlier = first.setdefault(text, spot)
            if not earlier.stands_in(spot):
                pairs.append((spot, earlier))
    begun = {(spot.module, spot.function_line, spot.start) for spot, _ in pairs}
    return [
        Offence(module=spot.module, line=spot.line, text=f"{spot.function}: as {earlier}")
        for spot, earlier in pairs
        if (spot.module, spot.function_line, spot.start - 1) not in begun  # of windows that overlap the first is enough
    ]


# The targets -----------------------------------------------------------------------------------------


def measure_targets(modules: tuple[Module, ...] | None = None) -> list[Target]:
    """Returns every target with what it measured."""
    modules = read_modules() if modules is None else modules
    analysis = tuple(module for module in modules if module.name.startswith("analysis/"))
    rest = tuple(module for module in modules if module not in analysis)
    targets = []
    for name, part in (("orca_sweep without analysis", rest), ("orca_sweep/analysis", analysis)):
        share, offences = measure_one_word_functions(part)
        text = f"{share:.1%} (at most {MOST_ONE_WORD:.0%})"
        holds = share <= MOST_ONE_WORD
        targets.append(Target(name=f"one-word functions, {name}", measured=text, holds=holds, offences=tuple(offences)))
    p95, long = measure_lengths(modules)
    text = f"{p95} lines (at most {MOST_LINES_P95}); longer ones:"
    targets.append(Target(name="p95 of functions", measured=text, holds=p95 <= MOST_LINES_P95, offences=tuple(long)))
    spotters: dict[str, Callable[[Module], list[Offence]]] = {
        f"identifiers {' '.join(sorted(EMPTY_WORDS))}": lambda module: find_empty_words(module, EMPTY_WORDS),
        f"identifiers {' '.join(sorted(MORE_EMPTY_WORDS))}": lambda module: find_empty_words(module, MORE_EMPTY_WORDS),
        f"functions above {MOST_PARAMETERS} parameters": find_long_signatures,
        f"calls above {MOST_POSITIONAL} arguments by position": find_positional_calls,
        f"modules above {MOST_LINES_OF_MODULE} lines": lambda module: (
            [module.offence(module.tree, f"{module.n_lines} lines")] if module.n_lines > MOST_LINES_OF_MODULE else []
        ),
        "names looked up below resolve": find_look_ups,
        "messages parsed": find_parsed_messages,
    }
    for name, spot in spotters.items():
        targets.append(count_target(name, [offence for module in modules for offence in spot(module)]))
    return [*targets, count_target("six lines that stand twice", find_duplicates(modules))]


def count_target(name: str, offences: list[Offence]) -> Target:
    """Returns a target that holds if nobody misses it."""
    return Target(name=name, measured=f"{len(offences)} (none)", holds=not offences, offences=tuple(offences))


def in_rooms(target: Target, rooms: list[str]) -> Target:
    """Returns a target with the offences of some rooms alone."""
    return replace(target, offences=tuple(offence for offence in target.offences if offence.room in rooms))


def main(rooms: list[str]) -> int:
    """Prints the offenders per room, then the targets; returns 1 if one does not hold."""
    targets = [in_rooms(target, rooms) if rooms else target for target in measure_targets()]
    by_room: dict[str, list[str]] = defaultdict(list)
    for target in targets:
        for offence in target.offences:
            by_room[offence.room].append(f"  [{target.name}] {offence}")
    for room, lines in sorted(by_room.items()):
        print(f"{room}: {len(lines)}", *lines, "", sep="\n")
    for target in targets:
        share = f", {len(target.offences)} in {' '.join(rooms)}" if rooms else ""
        print(f"{'holds ' if target.holds else 'MISSED'} {target.name}: {target.measured}{share}")
    return 0 if all(target.holds for target in targets) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that | head ends it quietly
    sys.exit(main(sys.argv[1:]))
