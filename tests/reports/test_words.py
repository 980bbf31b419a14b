"""Numbers and names as a reader wants them."""

import math

import pytest
import sample_runs

from reports import words
from reports.render import breakable, fenced, markdown


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (words.number(41.27), "41.3"),
        (words.number(0.9996), "1.00"),
        (words.number(0), "0"),
        (words.number(1.5e-9), "1.50e-09"),
        (words.number(math.nan), "–"),
        (words.count(29370), "29\u2009370"),
        (words.time(999), "999 ns"),
        (words.time(1.5e6), "1.50 ms"),
        (words.size(3 * 2**20), "3.00 MiB"),
        (words.rate(6.03e10, "flop/s"), "60.3 Gflop/s"),
        (words.ratio(0.99649), "0.996"),
        (words.interval(0.5, None), "–"),
        (words.of_budget(41.3), "41.3 × the budget"),
        (words.of_budget(0.31), "31 % of the budget"),
        (words.times(41.2), "41×"),
        (words.times(1720), "1700×"),
        (words.times(17_200), "1.7e4×"),
        (words.factor(1.488), "1.49"),
        (words.factor(26.94), "26.9"),
        (words.apart("-0.7310585786300049", "-0.6697615385055542"), ("-0.731", "-0.670")),
        (words.apart("1.0", "1.0000123"), ("1.00000", "1.00001")),
        (words.apart("3", "7"), ("3", "7")),
        (words.apart("True", "False"), ("True", "False")),
        (words.plural(1, "claim"), "1 claim"),
        (words.plural(2, "process", "processes"), "2 processes"),
    ],
)
def test_numbers_are_short_and_have_units(said, wanted):
    """Three digits, a unit, and a dash for what is not there."""
    assert said == wanted


def test_long_text_is_cut_and_says_how_much_is_left_out():
    """Nothing is dropped silently."""
    assert words.excerpt("x" * 12, 10) == "xxxxxxxxxx … (2 more characters: tables/checks.csv)"


def test_replay_line_keeps_the_options_of_its_run_and_quotes_names():
    """A name with a space or a quote is one token for the shell."""
    check = sample_runs.check("A5", "p", "my kernels.py:f'", "float16") | {"device": "cuda", "seed": 3}

    line = words.replay(check, ["--as=softmax", "--hypothesis-profile=ci", "--examples=7"])

    assert line == (
        "veriformer verify 'my kernels.py:f'\"'\"'' --claims A5 --dtype float16 --device cuda --seed 3 --as softmax --examples 7"
    )


def test_markdown_shows_every_character_as_it_is():
    """No cell, emphasis, tag or link comes of a name; no backticks close a fence that holds them."""
    assert markdown("a|b*c*\n<d> [e](f) `g`") == r"a\|b\*c\* \<d\> \[e\](f) \`g\`"
    assert fenced("```\nx") == "````text\n```\nx\n````"
    assert breakable("torch.<b>") == "torch.<wbr>&lt;b&gt;"
