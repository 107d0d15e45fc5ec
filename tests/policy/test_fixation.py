"""Where to look: what a person may say."""

import pytest

from foveal.policy.fixation import parse_fixation


@pytest.mark.parametrize(
    ("text", "fixation"),
    [
        ("center", "center"),
        (" Centre ", "center"),
        ("AUTO", "auto"),
        ("0.25,0.5", (0.25, 0.5)),
        (" 1 , 0 ", (1.0, 0.0)),
        ("1e-1,.5", (0.1, 0.5)),
    ],
)
def test_words_and_points_are_understood(text, fixation):
    assert parse_fixation(text) == fixation


@pytest.mark.parametrize("text", ["", "middle", "0.5", "0.1,0.2,0.3", "0.5;0.5", "a,b", "0.5,", "(0.5,0.5)"])
def test_anything_else_is_refused_with_what_is_expected(text):
    with pytest.raises(ValueError, match=r"expected center, auto, or two numbers Y,X from 0 to 1"):
        parse_fixation(text)


@pytest.mark.parametrize("text", ["1.1,0.5", "0.5,-0.1", "nan,0.5", "inf,0", "50,50"])
def test_points_outside_the_picture_are_refused(text):
    with pytest.raises(ValueError, match="lies outside the picture"):
        parse_fixation(text)
