"""Reading the tables that people edit, against a JSON schema for their rows, with every fault named by row and column.

Used for the sheets (``samples.tsv``, ``contrasts.tsv``), the gene programmes and the cell markers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from immunomod.errors import Problem, StudyError

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMAS = REPOSITORY / "workflow" / "schemas"


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The JSON schema ``workflow/schemas/<name>.schema.yaml``."""
    schema: dict[str, Any] = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))
    return schema


def describe(error: jsonschema.ValidationError) -> tuple[str, str]:
    """A schema fault and its fix, in the words of somebody who edits a table rather than a schema."""
    schema: Any = error.schema
    wanted: Any = error.validator_value
    described = schema.get("description", "") if isinstance(schema, Mapping) else ""
    hint = f" ({described})" if described else ""
    value: Any = error.instance
    match error.validator:
        case "enum":
            return f"{value!r} is not one of {', '.join(map(repr, wanted))}", "write one of them, or leave it empty"
        case "pattern":
            return f"{value!r} is not allowed here", f"write {described}" if described else "correct it"
        case "anyOf":
            names = [name for part in wanted for name in part.get("required", [])]
            return f"one of {', '.join(names)} must be given", f"fill in {' or '.join(names)}"
        case "dependentRequired":
            lacking = [name for key, names in wanted.items() if key in value for name in names if name not in value]
            given = [key for key, names in wanted.items() if key in value and set(names) - set(value)]
            return f"{', '.join(lacking)} is empty where {', '.join(given)} is given", f"fill in {', '.join(lacking)}"
        case "additionalProperties":
            known = ", ".join(sorted(schema["properties"]))
            return f"{error.message}; known are {known}", "correct the spelling, or take it out"
        case _:
            return f"{error.message}{hint}", "correct it"


@dataclass
class Examined:
    """A table as far as it can be read, and everything that is wrong with it.

    ``rows``: all fields as stripped strings (empty for absent), every column of the schema present, indexed by the
    row's number in the file, counted from 1; None where there is no table at all.
    """

    rows: pd.DataFrame | None
    problems: list[Problem] = field(default_factory=list)

    def faulty_rows(self, *columns: str) -> set[int]:
        """Numbers of the rows with an error in one of the columns, or in a place without column."""
        return {one.row for one in self.problems if one.row and one.is_error and one.column in ("", *columns)}


def read_table(path: str | Path, schema_name: str, unique: Sequence[str] = ()) -> pd.DataFrame:
    """:func:`examine_table`, where nothing may be wrong.

    Raises
    ------
    StudyError
        One message that lists every fault with its row and column.
    """
    found = examine_table(path, schema_name, unique)
    if found.problems or found.rows is None:
        raise StudyError(found.problems)
    return found.rows


def examine_table(path: str | Path, schema_name: str, unique: Sequence[str] = ()) -> Examined:
    """Read a tab-separated table with a header and validate each row.

    Lines that begin with ``#`` are comments, above the header too.

    Parameters
    ----------
    path
        The file, UTF-8 (a byte-order mark is tolerated).
    schema_name
        Name of the schema of a row; an empty field counts as absent.
    unique
        Columns whose values, taken together, may occur once only.
    """
    path = Path(path)
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Examined(None, [Problem(file, f"{path} does not exist", "create it, or correct the path in the config")])
    except UnicodeDecodeError as fault:
        problem = f"{path} is not UTF-8 text ({fault})"
        return Examined(None, [Problem(file, problem, "save it as UTF-8, tab-separated")])
    except OSError as fault:
        problem = f"{path} cannot be read ({fault.strerror})"
        return Examined(None, [Problem(file, problem, "correct the path in the config, or the file's permissions")])
    schema = load_schema(schema_name)
    rows = _split(text)
    header_row, fields, _ = next(rows, (1, [], True))
    header = [name.strip() for name in fields]
    found = Examined(None, _header_problems(file, header_row, header, schema))
    if not any(header) or len(set(header)) < len(header):
        return found

    numbers: list[int] = []
    records: list[dict[str, str]] = []
    validator = jsonschema.Draft202012Validator(schema)
    for number, fields, is_closed in rows:
        if not is_closed:
            found.problems.append(_open_quote(file, number))
        fields = [entry.strip() for entry in fields]
        if len(fields) > len(header):
            problem = f"{len(fields)} fields where the header has {len(header)}"
            found.problems.append(Problem(file, problem, "take out a tab, or name the column in the header", number))
            fields = fields[: len(header)]
        record = dict(zip(header, fields + [""] * (len(header) - len(fields)), strict=True))
        found.problems += _row_problems(file, number, record, validator)
        numbers.append(number)
        records.append(record)
    table = pd.DataFrame(records, columns=header, index=pd.Index(numbers, name="row", dtype=int), dtype=str)
    for name in schema["properties"]:
        if name not in table:
            table[name] = ""
    if unique:
        found.problems += _repeats(file, table, list(unique))
    if table.empty and not found.problems:
        found.problems.append(
            Problem(file, f"{path} has a header and no rows", f"add one row per {schema['title']}", header_row)
        )
    found.rows = table
    return found


def _row_problems(
    file: str, number: int, record: Mapping[str, str], validator: jsonschema.Draft202012Validator
) -> list[Problem]:
    """What the schema has against a row; what the header lacks is not said again in every row."""
    present = {name: value for name, value in record.items() if value}
    problems: list[Problem] = []
    for error in sorted(validator.iter_errors(present), key=lambda e: list(map(str, e.path))):
        wanted: Any = error.validator_value
        if error.validator == "required":
            lacking = [name for name in wanted if name not in present and name in record]
            problems += [Problem(file, "empty, and must be given", "fill it in", number, name) for name in lacking]
            continue
        column = str(error.path[0]) if error.path else ""
        if error.validator == "anyOf":
            names = [name for part in wanted for name in part["required"]]
            column = next((name for name in names if name in record), "")
        elif error.validator == "dependentRequired":
            column = next(name for key, names in wanted.items() if key in present for name in names)
        if column or error.validator != "anyOf":
            problems.append(Problem(file, *describe(error), number, column))
    return list(dict.fromkeys(problems))


def _repeats(file: str, table: pd.DataFrame, unique: list[str]) -> list[Problem]:
    """Rows whose values stand in a row above already."""
    problems = []
    for number in table.index[table.duplicated(unique)]:
        if not table.at[number, unique[0]]:
            continue
        values = ", ".join(f"{name} {table.at[number, name]!r}" for name in unique)
        same = (table[unique] == table.loc[number, unique]).all(axis=1)
        problem = f"{values} stands already in row {table.index[same][0]}"
        problems.append(Problem(file, problem, "give it another name, or take the row out", int(number), unique[0]))
    return problems


def split_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each row that is neither a comment nor empty.

    Raises
    ------
    StudyError
        A quotation mark is left open: it would swallow the rows below it. In a comment, it is but a mark.
    """
    for number, fields, is_closed in _split(text):
        if not is_closed:
            raise StudyError([_open_quote(str(path), number)])
        yield number, fields


def _split(text: str) -> Iterator[tuple[int, list[str], bool]]:
    """Number and fields of each row that is neither a comment nor empty, and whether its quotation marks are closed."""
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if line.lstrip(' "').startswith("#") or not line.strip():  # a spreadsheet may quote a comment
            continue
        fields = next(csv.reader([line], delimiter="\t"))
        closed = next(csv.reader([f"{line}\tend"], delimiter="\t"))[-1] == "end"
        if not closed or any("\t" in entry for entry in fields):
            yield number, line.replace('"', "").split("\t"), False
        elif any(entry.strip() for entry in fields):
            yield number, fields, True


def _open_quote(file: str, number: int) -> Problem:
    problem = "a field begins with a quotation mark that the row does not close"
    return Problem(file, problem, "remove it, or double it and close the field", number)


def _header_problems(file: str, row: int, header: Sequence[str], schema: Mapping[str, Any]) -> list[Problem]:
    if not any(header):
        fix = f"name the columns in its first row: {', '.join(schema['required'])}"
        return [Problem(file, f"{file} is empty", fix, row)]
    repeated = sorted({name for name in header if header.count(name) > 1})
    problems = [
        Problem(file, f"column {name!r} stands more than once in the header", "rename or remove one", row, name)
        for name in repeated
    ]
    lacking = [name for name in schema["required"] if name not in header]
    either = [name for part in schema.get("anyOf", []) for name in part["required"]]
    if either and not set(either) & set(header):
        lacking.append(" or ".join(either))
    if lacking:
        names = {",": "comma", ";": "semicolon"}
        looks = [f"; the file looks {names[sign]}-separated" for sign in names if sign in header[0]]
        fix = "save the file tab-separated" if looks else "add it"
        problem = f"the header lacks column {', '.join(lacking)}{''.join(looks[:1])}"
        problems.append(Problem(file, problem, fix, row))
    return problems
