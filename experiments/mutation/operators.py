"""Small changes of a module's code, each of which a test should notice."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)]
ARITHMETIC = [(ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.FloorDiv, ast.Mod)]
LOGIC = [(ast.In, ast.NotIn), (ast.BitAnd, ast.BitOr), (ast.And, ast.Or), (ast.Break, ast.Continue)]
SWAPS = {a: b for pair in COMPARISONS + ARITHMETIC + LOGIC for a, b in (pair, pair[::-1])}
CALLS = {"min": "max", "any": "all", "floor": "ceil", "sum": "mean", "argmin": "argmax"}
CALLS |= {new: old for old, new in CALLS.items()}
DROPPED = {"abs", "sqrt", "square", "flip", "cumsum", "clamp", "clamp_", "round", "floor_", "add_"}
SKIPPED = ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr
"""Messages, checks of types, and f-strings, whose parts have no exact position."""
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list"}
KEYWORDS = {"strict", "non_blocking", "repr"}
"""Arguments that change checks, speed or texts, but no result."""
BODIES = {"body", "orelse", "finalbody", "handlers"}
NAMES = re.compile(
    "progress|advance|seconds|perf_counter|batch|memory|cuda|triton|warn|TYPE_CHECKING",
    re.IGNORECASE,
)
"""A statement with such a name concerns progress, times, batching, memory, warnings or GPUs."""


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        path: the module, relative to the root of the repository.
        lines: first and last line of the changed statement.
        code: the changed line.
        change: column in `code`, the replaced code and its replacement.
        begin, end: the replaced bytes of the module.
        text: their replacement.
    """

    path: str
    lines: tuple[int, int]
    code: str
    change: str
    begin: int
    end: int
    text: str

    @property
    def key(self) -> str:
        """Name of the mutant, which does not change with the lines above it."""
        return f"{self.path} | {self.code} | {self.change}"

    def apply(self, source: str) -> str:
        """Return the module's text with the change."""
        code = source.encode()
        return (code[: self.begin] + self.text.encode() + code[self.end :]).decode()


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    rows, mutants = source.splitlines(), []
    for lines, node, text in _changes(ast.parse(source), (1, 1)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        old = re.sub(r"\s+", " ", source.encode()[begin:end].decode())
        row = rows[node.lineno - 1].encode()
        column = node.col_offset - len(row) + len(row.lstrip())
        change, code = f"{column}: {old} → {text}", row.strip().decode()
        mutants.append(Mutant(path, lines, code, change, begin, end, text))
    return sorted(mutants, key=lambda mutant: (mutant.begin, mutant.end, mutant.text))


def _changes(
    node: ast.AST, lines: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], ast.AST, str]]:
    """Yield the lines of the statement, the node and its replacement for every change below."""
    if isinstance(node, SKIPPED) or (isinstance(node, ast.keyword) and node.arg in KEYWORDS):
        return
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in SKIPPED_FIELDS]
    header = [(name, value) for name, value in fields if name not in BODIES]
    if isinstance(node, ast.stmt):
        first = node.body[0].lineno - 1 if getattr(node, "body", None) else node.end_lineno
        lines = (node.lineno, max(node.lineno, first))
        if any(NAMES.search(name) for _, value in header for name in _names(value)):
            fields = [(name, value) for name, value in fields if name in BODIES]
        else:
            yield from ((lines, node, text) for text in _of_statement(node))
    elif isinstance(node, ast.expr):
        yield from ((lines, node, f"({text})") for text in _of_expression(node))
    for _, value in fields:
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child, lines)


def _names(value: object) -> Iterator[str]:
    """Yield all identifiers in the field of a node."""
    for part in value if isinstance(value, list) else [value]:
        for node in ast.walk(part) if isinstance(part, ast.AST) else ():
            for name in ("id", "attr", "arg"):
                if isinstance(text := getattr(node, name, None), str):
                    yield text


def _of_statement(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"
        case ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield "pass"
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield "pass"


def _of_expression(node: ast.expr) -> Iterator[str]:
    text = ast.unparse
    match node:
        case ast.Constant(value=bool()):
            yield str(not node.value)
        case ast.Constant(value=int() | float()):
            yield repr(node.value + 1)
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield text(ast.Compare(node.left, [SWAPS[type(op)]()], node.comparators))
        case ast.BinOp(left=left, op=op, right=right):
            if not (_is_text(left) or _is_text(right)):
                if type(op) in SWAPS:
                    yield text(ast.BinOp(left, SWAPS[type(op)](), right))
                yield text(left)
        case ast.BoolOp(op=op, values=values):
            yield text(ast.BoolOp(SWAPS[type(op)](), values))
            yield text(ast.BoolOp(op, values[:-1]) if len(values) > 2 else values[0])
        case ast.UnaryOp(operand=operand):
            yield text(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse) if not _is_text(body):
            yield text(ast.IfExp(test, orelse, body))
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield text(ast.Call(ast.Name(CALLS[name]), node.args, node.keywords))
        case ast.Call(func=ast.Attribute(value=value, attr=name)):
            if name in CALLS:
                func = ast.Attribute(value, CALLS[name])
                yield text(ast.Call(func, node.args, node.keywords))
            if name in DROPPED:
                yield text(value)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)
