"""The filter of a contrast: a small language of comparisons on sheet columns, parsed here and never executed as Python.

Two spellings are understood. Short: ``stimulus = PHA; time_h = 24, 48`` (every part must hold; a comma lists
alternatives). Long: ``stimulus == "PHA" and (time_h >= 24 or msc_donor in ("M1", "M2")) and not batch == "B3"``.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError

Mask = NDArray[np.bool_]

_SHORT_PART = re.compile(r"\s*(\w+)\s*(!?=)(?!=)\s*([^=<>!()\"']+?)\s*")
_ORDER: dict[type[ast.cmpop], Callable[..., Mask]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EXAMPLE = 'Write for example: stimulus == "PHA" and time_h == 24.'


def evaluate_where(where: str, table: pd.DataFrame) -> Mask:
    """Rows of ``table`` that pass ``where``; all of them for an empty filter.

    Values are compared as text, or as numbers where both sides are numbers (``24`` equals ``24.0``). ``<``, ``<=``,
    ``>`` and ``>=`` compare numbers, and an empty field passes none of them.

    Raises
    ------
    UserError
        The filter cannot be read, or names a column that ``table`` lacks.
    """
    if not where.strip():
        return np.ones(len(table), dtype=bool)
    parts = [_SHORT_PART.fullmatch(part) for part in where.split(";") if part.strip()]
    if parts and all(parts):
        masks = []
        for part in parts:
            assert part is not None
            column, sign, values = part.groups()
            mask = is_level(_column(column, table, where), [value.strip() for value in values.split(",")])
            masks.append(mask if sign == "=" else ~mask)
        return np.asarray(np.all(masks, axis=0))
    try:
        tree = ast.parse(where.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise UserError(f"the filter {where!r} cannot be read. {_EXAMPLE}") from None
    return _evaluate(tree, table, where)


def is_level(values: pd.Series, levels: list[str]) -> Mask:
    """Which ``values`` equal one of ``levels``, as text or as numbers."""
    text = values.astype(str)
    mask = text.isin(levels).to_numpy()
    numbers = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce").dropna()
    if len(numbers):
        mask |= pd.to_numeric(text, errors="coerce").isin(numbers).to_numpy()
    return np.asarray(mask, dtype=bool)


def _evaluate(node: ast.expr, table: pd.DataFrame, where: str) -> Mask:
    match node:
        case ast.BoolOp(op=op, values=values):
            masks = [_evaluate(value, table, where) for value in values]
            return np.asarray(np.all(masks, axis=0) if isinstance(op, ast.And) else np.any(masks, axis=0))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_evaluate(operand, table, where)
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]):
            return _compare(_column(name, table, where), op, right, where)
        case _:
            raise UserError(f"the filter {where!r} holds {ast.unparse(node)!r}, which is no comparison. {_EXAMPLE}")


def _compare(values: pd.Series, op: ast.cmpop, right: ast.expr, where: str) -> Mask:
    levels = _literals(right, where)
    if isinstance(op, ast.Eq | ast.In):
        return is_level(values, levels)
    if isinstance(op, ast.NotEq | ast.NotIn):
        return ~is_level(values, levels)
    if type(op) in _ORDER and len(levels) == 1:
        try:
            limit = float(levels[0])
        except ValueError:
            raise UserError(f"the filter {where!r} orders by {levels[0]!r}, which is no number.") from None
        return np.asarray(_ORDER[type(op)](pd.to_numeric(values, errors="coerce").to_numpy(), limit))
    raise UserError(f"the filter {where!r} uses a comparison that is not known here. {_EXAMPLE}")


def _literals(node: ast.expr, where: str) -> list[str]:
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return [str(value)]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return [str(-value)]
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return [literal for part in parts for literal in _literals(part, where)]
        case _:
            raise UserError(
                f"the filter {where!r} compares with {ast.unparse(node)!r}; put text in quotation marks. {_EXAMPLE}"
            )


def _column(name: str, table: pd.DataFrame, where: str) -> pd.Series:
    if name not in table:
        raise UserError(
            f"the filter {where!r} names the column {name!r}. There are {', '.join(map(str, table.columns))}."
        )
    return table[name]
