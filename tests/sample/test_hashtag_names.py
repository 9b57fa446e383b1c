"""The sheet's column ``hashtags``: read, and matched to a matrix without ever guessing."""

import pytest

from immunomod.errors import UserError
from immunomod.sample.demultiplex.names import (
    find_hashtags,
    match_hashtags,
    parse_hashtags,
    share_hashtag,
    sheet_donors,
    without_donors,
)


def test_tags_and_donors():
    assert parse_hashtags("HTO1=D1, HTO2 = D 2,HTO3") == {"HTO1": "D1", "HTO2": "D 2", "HTO3": ""}
    assert parse_hashtags("") == {}
    assert without_donors("HTO1=D1,HTO2") == "HTO1,HTO2"
    assert without_donors("=D1") == "=D1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("HTO1=", "'HTO1=' names no hashtag and donor"),
        ("=D1", "names no hashtag and donor"),
        ("HTO1=D1=D2", "names no hashtag and donor"),
        ("HTO1=D1,hto-1=D2", "'hto-1' stands twice"),
        (",", "names no hashtag"),
    ],
)
def test_what_cannot_be_read(text, words):
    with pytest.raises(UserError, match=words):
        parse_hashtags(text)


def test_donors_that_the_sheet_knows():
    assert sheet_donors("HTO1=D1,HTO2=D2,HTO3=D1", "") == ("D1", "D2")
    assert sheet_donors("HTO1,HTO2", "D9") == ("D9",)
    assert sheet_donors("HTO1=D1,HTO2", "D9") == ("D1", "D9")
    assert sheet_donors("HTO1=D1,HTO2", "") == ()
    assert sheet_donors("", "D9") == ("D9",)
    assert sheet_donors("", "") == ()


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        ("HTO1", ["HTO1", "HTO10", "hto-1"], "HTO1"),
        ("hto_1", ["HTO-1", "HTO-10"], "HTO-1"),
        ("HTO1", ["HTO1-ACCCACCAGTAAGAC", "HTO10-GGTCGAGAGCATTCA"], "HTO1-ACCCACCAGTAAGAC"),
        ("Hashtag3", ["anti-human_Hashtag_3", "anti-human_Hashtag_13"], "anti-human_Hashtag_3"),
        ("Hashtag1", ["Hashtag1_TotalA", "Hashtag10_TotalA"], "Hashtag1_TotalA"),
        ("0251", ["B0251", "B0252"], "B0251"),
    ],
)
def test_names_are_forgiving(wanted, names, found):
    assert match_hashtags([wanted], {"hashtags": names}, names) == {wanted: found}


@pytest.mark.parametrize(
    ("wanted", "names", "words"),
    [
        (["HTO1"], ["HTO10", "HTO11"], "'HTO1' is no hashtag of the matrix; name one of its hashtags: HTO10, HTO11"),
        (["hto1"], ["HTO-1", "HTO_1"], "'hto1' may be HTO-1, HTO_1"),
        (["HTO"], ["HTO-A", "HTO-B"], "'HTO' may be HTO-A, HTO-B"),
        (["HTO1", "HTO1_TotalA"], ["HTO1_TotalA", "HTO2_TotalA"], "both HTO1_TotalA"),
        (["1"], ["HTO11", "HTO21"], "is no hashtag"),
        (["---"], ["HTO1"], "is no hashtag"),
    ],
)
def test_names_are_never_guessed(wanted, names, words):
    with pytest.raises(UserError, match=words):
        match_hashtags(wanted, {"hashtags": names}, names)


def test_hashtags_among_other_features():
    features = {"antibody_capture": ["CD3", "B0251", "B0252"], "hashtags": ["HTO1"], "multiplexing_capture": ["CMO301"]}
    assert find_hashtags(features) == ["HTO1", "CMO301"]
    assert find_hashtags(features, ["b025*"]) == ["HTO1", "CMO301", "B0251", "B0252"]
    assert match_hashtags(["B0251", "HTO1"], features, ["HTO1"]) == {"B0251": "B0251", "HTO1": "HTO1"}
    with pytest.raises(UserError, match="name one of its hashtags: CD3"):
        match_hashtags(["HTO1"], {"antibody_capture": ["CD3"]}, [])
    with pytest.raises(UserError, match="its hashtags: none"):
        match_hashtags(["HTO1"], {}, [])


def test_rows_that_share_a_tag():
    assert share_hashtag("HTO1=D1,HTO2=D2", "HTO3=D1,hto-2=D2") == "hto-2"
    assert share_hashtag("HTO1=D1", "HTO2=D1") == ""
