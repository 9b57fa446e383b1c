"""The filter language: what it selects, and what it refuses."""

import pandas as pd
import pytest

from immunomod.contrast.where import evaluate_where
from immunomod.errors import UserError

TABLE = pd.DataFrame(
    {
        "stimulus": ["PHA", "PHA", "LPS", "", "anti-CD3"],
        "time_h": ["24", "24.0", "48", "72", ""],
        "batch": ["B1", "B2", "B1", "B2", "B1"],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("  ", [0, 1, 2, 3, 4]),
        ('stimulus == "PHA"', [0, 1]),
        ('stimulus == "PHA" and time_h == "24"', [0, 1]),
        ("time_h == 24", [0, 1]),
        ("time_h >= 48", [2, 3]),
        ("time_h < 48", [0, 1]),
        ('stimulus in ("LPS", "anti-CD3")', [2, 4]),
        ('stimulus not in ["LPS", "PHA"]', [3, 4]),
        ('stimulus != "PHA" or batch == "B2"', [1, 2, 3, 4]),
        ('not (stimulus == "PHA")', [2, 3, 4]),
        ('stimulus == "LPS" or stimulus == "PHA" and batch == "B2"', [1, 2]),
        ("stimulus = PHA", [0, 1]),
        ("stimulus = PHA, LPS; batch = B1", [0, 2]),
        ("stimulus = anti-CD3", [4]),
        ("batch != B1", [1, 3]),
        ('stimulus == ""', [3]),
        ("time_h == -1", []),
    ],
)
def test_filters_select(where, rows):
    assert list(TABLE.index[evaluate_where(where, TABLE)]) == rows


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ('__import__("os").system("true") == 0', "no comparison"),
        ('stimulus.upper() == "PHA"', "no comparison"),
        ("stimulus == batch", "quotation marks"),
        ("stimulus == PHA", "quotation marks"),
        ("1 if True else 0", "no comparison"),
        ("[x for x in ().__class__.__bases__]", "no comparison"),
        ("lambda: 0", "no comparison"),
        ('stimulus == "PHA" and', "cannot be read"),
        ('stimulus < "PHA"', "no number"),
        ("0 < time_h < 48", "no comparison"),
        ('dose == "1"', "names the column 'dose'"),
        ("dose = 1", "names the column 'dose'"),
        ('f"{stimulus}" == "PHA"', "no comparison"),
        ('stimulus is "PHA"', "not known"),
        ("True", "no comparison"),
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_anything_else_is_refused(where, says):
    with pytest.raises(UserError, match=says):
        evaluate_where(where, TABLE)
