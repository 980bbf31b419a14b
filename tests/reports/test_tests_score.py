"""The page of a score of a user's tests: what it says, and that nothing a test says becomes markup."""

from strict_page import Page

from reports.tests_score import page, summary
from reports.tests_score_records import ScoredCorrect, ScoredFault, ScoredTest, TestsScore

EVIL = "<script>alert(1)</script>"


def fault(identifier, status, **fields):
    """One of attention's masks."""
    about = {"kind": "fault", "component": "mask", "fault_class": "mask-broadcast-coincidence", "shows": f"n ≠ m {EVIL}"}
    return ScoredFault(id=identifier, status=status, **about, **fields)


def record(**fields):
    """A score with one of everything."""
    faults = [
        fault("noticed-one", "noticed", test="test_a", said=EVIL),
        fault("quiet-one", "got through", input=f"Q 1×1 {EVIL}", dtype="float32", found_by="test_attention_agrees"),
        fault("near-one", "got through", asked=4, differed=3, largest=0.25),
        fault("nan-one", "got through", asked=4, differed=3),
        fault("blurred-one", "not told apart"),
        fault("absent-one", "not shown", why="it has no option bias"),
    ]
    tests = [
        ScoredTest(id=f"test_a[{EVIL}]", calls=2, answered=2, failed_for=["all-nan"]),
        ScoredTest(id="test_b", calls=1, answered=1, failed_for=[]),
        ScoredTest(id="test_c", calls=1, answered=0, failed_for=[]),
        ScoredTest(id="test_d", calls=0, answered=0, failed_for=[]),
    ]
    plain = {"faults": faults, "each_test": tests, "correct": [ScoredCorrect(id="blocked_attention", failed={"test_a": EVIL})]}
    about = {"replaces": "kernels:attention", "step": "attention", "tests": ["test_a.py"], "options": [], "dtypes": ["float32"]}
    return TestsScore(**(about | plain | {"conventions": {}, "unread": {"a window that is 3": 2}, "calls": 4} | fields))


def test_the_page_says_what_the_record_says():
    """What got through and how, what fails though it is correct, what cannot fail, what is set apart."""
    read = Page(page(record(), "veriformer score --tests test_a.py --replaces kernels:attention"))

    words = read.words()
    assert "1 of 5 faults noticed" in words
    assert "no call of your tests shows it" in words
    assert "3 of 4 answers of your tests' calls differ from its correct base's, by up to 0.25, and no test fails" in words
    assert "3 of 4 answers of your tests' calls are NaN, infinite" in words
    assert "fail for its correct base as well" in words
    assert words.count("nothing: it cannot fail") == 1
    assert words.count("its calls could not be read") == 1
    assert "it has no option bias" in words
    assert "2 of 4 calls could not be read, and were left to the kernel: a window that is 3" in words


def test_nothing_that_a_test_says_becomes_markup():
    """A name or a message with tags in it is shown as it is; the page loads nothing."""
    text = page(record(), f"veriformer {EVIL}")

    read = Page(text)
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "img", "iframe"})
    assert EVIL in read.words()


def test_a_score_with_nothing_wrong_is_good():
    """Nothing got through, nothing correct failed, every test can fail."""
    good = record(faults=[fault("noticed-one", "noticed")], each_test=[], correct=[], unread={})

    assert good.good
    assert "Nothing: every fault" in Page(page(good, "veriformer score")).words()
    assert not record().good
    assert not record(faults=[fault("quiet-one", "got through")], each_test=[], correct=[]).good


def test_the_summary_says_what_the_page_says():
    """In Markdown, on as few lines as there are things to say; nothing that a test says becomes markup."""
    text = summary(record(), "veriformer score --tests test_a.py")

    assert text.startswith("# ✗ 1 of 5 faults noticed by the tests of kernels:attention\n")
    assert "| quiet-one | mask-broadcast-coincidence | n ≠ m \\<script\\>" in text
    assert "| Q 1×1 \\<script\\>" in text
    assert "* blocked\\_attention: test\\_a: \\<script\\>" in text
    assert "* test\\_b: 1 call, and passes on zeros, ones, NaN and noise" in text
    assert EVIL not in text
    good = record(faults=[fault("noticed-one", "noticed")], each_test=[], correct=[], unread={})
    assert "got through |" not in summary(good, "veriformer score")
