"""Reading the tables that people edit, against a JSON schema for their rows, with every fault named by row and column.

Used for the sheets (``samples.tsv``, ``contrasts.tsv``), the gene programmes and the cell markers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from immunomod.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMAS = REPOSITORY / "workflow" / "schemas"
MAX_FAULTS_SHOWN = 20


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The JSON schema ``workflow/schemas/<name>.schema.yaml``."""
    schema: dict[str, Any] = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))
    return schema


def describe(error: jsonschema.ValidationError) -> str:
    """One sentence on a schema fault, in the words of somebody who edits a table rather than a schema."""
    schema: Any = error.schema
    wanted: Any = error.validator_value
    described = schema.get("description", "") if isinstance(schema, Mapping) else ""
    hint = f" ({described})" if described else ""
    value = error.instance
    match error.validator:
        case "enum":
            return f"{value!r} is not one of {', '.join(map(repr, wanted))}"
        case "pattern":
            return f"{value!r} is not allowed here{hint}"
        case "anyOf":
            names = [name for part in wanted for name in part["required"]]
            return f"one of {', '.join(names)} must be given"
        case "additionalProperties":
            return f"{error.message}; known are {', '.join(sorted(schema['properties']))}"
        case _:
            return f"{error.message}{hint}"


def read_table(path: str | Path, schema_name: str, unique: Sequence[str] = ()) -> pd.DataFrame:
    """Read a tab-separated table with a header and validate each row.

    Parameters
    ----------
    path
        The file, UTF-8 (a byte-order mark is tolerated).
    schema_name
        Name of the schema of a row; an empty field counts as absent.
    unique
        Columns whose values, taken together, may occur once only.

    Returns
    -------
    All fields as stripped strings (empty for absent), every column of the schema present; the index is the row's
    number in the file, counted from 1. Lines that begin with ``#`` are comments, above the header too.

    Raises
    ------
    UserError
        One message that lists every fault with its row and column.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Create it, or correct the path in the config.") from None
    except UnicodeDecodeError as fault:
        raise UserError(f"{path} is not UTF-8 text ({fault}). Save it as UTF-8, tab-separated.") from None
    schema = load_schema(schema_name)
    rows = split_rows(path, text)
    header_row, fields = next(rows, (1, []))
    header = [name.strip() for name in fields]
    _check_header(path, header_row, header, schema)

    faults: list[str] = []
    numbers: list[int] = []
    records: list[dict[str, str]] = []
    validator = jsonschema.Draft202012Validator(schema)
    for number, fields in rows:
        fields = [field.strip() for field in fields]
        if len(fields) > len(header):
            faults.append(f"row {number}: {len(fields)} fields where the header has {len(header)}")
            continue
        record = dict(zip(header, fields + [""] * (len(header) - len(fields)), strict=True))
        present = {name: value for name, value in record.items() if value}
        for error in sorted(validator.iter_errors(present), key=lambda e: list(map(str, e.path))):
            if error.validator == "required":
                lacking = [name for name in schema["required"] if name not in present]
                faults += [f"row {number}, column {name}: empty, and must be given" for name in lacking]
                continue
            where = f"row {number}, column {error.path[0]}" if error.path else f"row {number}"
            faults.append(f"{where}: {describe(error)}")
        numbers.append(number)
        records.append(record)
    table = pd.DataFrame(records, columns=header, index=pd.Index(numbers, name="row"), dtype=str)
    for name in schema["properties"]:
        if name not in table:
            table[name] = ""
    if unique:
        for number in table.index[table.duplicated(list(unique))]:
            values = ", ".join(f"{name} {table.at[number, name]!r}" for name in unique)
            same = (table[list(unique)] == table.loc[number, list(unique)]).all(axis=1)
            faults.append(f"row {number}, column {unique[0]}: {values} stands already in row {table.index[same][0]}")
    if faults:
        shown = "\n  ".join(dict.fromkeys(faults[:MAX_FAULTS_SHOWN]))
        more = f"\n  ... and {len(faults) - MAX_FAULTS_SHOWN} more" if len(faults) > MAX_FAULTS_SHOWN else ""
        raise UserError(f"{path}:\n  {shown}{more}")
    if table.empty:
        raise UserError(f"{path} has a header and no rows. Add one row per {schema['title']}.")
    return table


def split_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each row that is neither a comment nor empty.

    A quotation mark left open would swallow the rows below it, and is refused. In a comment, it is but a mark.
    """
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if line.lstrip(' "').startswith("#") or not line.strip():  # a spreadsheet may quote a comment
            continue
        fields = next(csv.reader([line], delimiter="\t"))
        closed = next(csv.reader([f"{line}\tend"], delimiter="\t"))[-1] == "end"
        if not closed or any("\t" in field for field in fields):
            raise UserError(
                f"{path} row {number}: a field begins with a quotation mark that the row does not close. Remove it, "
                "or double it and close the field."
            )
        if any(field.strip() for field in fields):
            yield number, fields


def _check_header(path: Path, row: int, header: Sequence[str], schema: Mapping[str, Any]) -> None:
    if not any(header):
        raise UserError(f"{path} is empty. Its first row must name the columns: {', '.join(schema['required'])}.")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path} row {row}: column {repeated[0]!r} stands more than once in the header.")
    lacking = [name for name in schema["required"] if name not in header]
    if lacking:
        names = {",": "comma", ";": "semicolon"}
        looks = [
            f"; the file looks {names[sign]}-separated, and must be tab-separated"
            for sign in names
            if sign in header[0]
        ]
        raise UserError(f"{path} row {row}: the header lacks column {', '.join(lacking)}{''.join(looks[:1])}.")
