"""tests/mutants: which faults it plants in a piece of C, and in which order."""
import os
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "tests", "mutants"))

import changes  # noqa: E402
import reach  # noqa: E402

SAMPLE = """\
#include "x.h"
#define BOUND 8 /* of 4 */
static const int table[] = {5, 6};

/* if (comment == 1) return; */
static int first(struct x *x, int size)
{
    char text[64];
    assert(size == 3);
    LOGD("%d == %d", size, 7);
    if (log_it && size >= 5) LOGW("%d", size);
    if (size > BOUND && !x->done) return -1;
    x->left = size - 2;
    (void)second(x, size);
    return *x->at * 2;
}

static void second(struct x *x, int size)
{
    memset(x, 0, sizeof *x);
}
"""


def found(kind=None):
    return [(change.line, change.kind, SAMPLE[change.start:change.end], change.text)
            for change in changes.Source("core/x.c", SAMPLE).changes() if kind in (None, change.kind)]


@pytest.mark.parametrize("kind,expected", [
    ("comparison", [(12, ">", ">=")]),
    ("call", [(14, "second(x, size)", "(void)0"), (20, "memset(x, 0, sizeof *x)", "(void)0")]),
    ("arguments", [(14, "x, size", "size, x"), (20, "x, 0", "0, x"), (20, "0, sizeof *x", "sizeof *x, 0")]),
    ("constant", [(12, "1", "0"), (12, "1", "2"), (13, "2", "1"), (13, "2", "3"), (15, "2", "1"), (15, "2", "3"),
                  (20, "0", "1")]),
    ("condition", [(12, "(size > BOUND && !x->done)", "(!(size > BOUND && !x->done))")]),
    ("logic", [(12, "&&", "||"), (12, "!", "!!")]),
    ("arithmetic", [(13, "-", "+"), (15, "*", "/")]),
    ("assignment", [(13, "x->left = size - 2", "(void)0")]),
    ("define", [(2, "8", "9"), (2, "8", "7")]),
])
def test_faults_of_a_kind(kind, expected):
    """Neither in assertions, log lines and their conditions, comments and tables, nor in the size of a local array."""
    assert [(line, before, after) for line, _, before, after in found(kind)] == expected


def test_numbers_keep_their_base():
    source = "void first(int *x)\n{\n    second(x, 0600, 0x1F, 10);\n}\n"
    texts = [change.text for change in changes.Source("core/x.c", source).changes() if change.kind == "constant"]
    assert texts == ["0577", "0601", "0x1e", "0x20", "9", "11"]


def test_a_return_has_the_type_of_its_function():
    assert (13, "return", "x", "return 0; x") in found() and (20, "return", "memset", "return; memset") in found()


def test_a_macro_is_noticed_where_it_is_used():
    assert [change.places for change in changes.Source("x.c", SAMPLE).changes()
            if change.kind == "define"] == [[(12, 16)], [(12, 16)]]


def test_a_fault_keeps_its_line_and_changes_one_place():
    for change in changes.Source("x.c", SAMPLE).changes():
        changed = change.apply(SAMPLE)
        different = [pair for pair in zip(SAMPLE.splitlines(), changed.splitlines()) if pair[0] != pair[1]]
        assert len(changed.splitlines()) == len(SAMPLE.splitlines()) and len(different) == 1, change.name


def test_who_reaches_a_place():
    """clang's segments: line, column, how often, whether that is known."""
    spans = reach.spans_of([[3, 1, 5, True, True, False], [4, 9, 5, True, False, False], [4, 20, 0, True, True, False],
                            [4, 30, 2, True, False, False], [5, 2, 0, False, False, False]])
    assert spans == [[3, 1], [4, 20], [4, 30], [5, 2]]
    reacher = reach.Reacher("tests/test_x", 1.0, {"core/x.c": spans})

    def reaches(*places):
        change = changes.Change(changes.Source("core/x.c", SAMPLE), "call", 0, 1, "", list(places))
        return reacher.reaches(change)

    assert reaches((3, 1)) and reaches((4, 19)) and reaches((4, 30)) and reaches((5, 1)) and reaches((9, 1), (4, 1))
    assert not reaches((2, 9)) and not reaches((4, 20)) and not reaches((4, 29)) and not reaches((5, 2), (9, 1))


def ranked(folder, seed):
    return [(change.path, change.start, change.text) for change in changes.ranked(str(folder), ["core"], seed)]


def test_a_seed_takes_the_same_faults_also_after_an_edit_elsewhere(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "x.c").write_text(SAMPLE)
    (tmp_path / "core" / "y.c").write_text(SAMPLE)
    before = ranked(tmp_path, 1)
    assert len(before) == 2 * len(found()) and before == ranked(tmp_path, 1) and before != ranked(tmp_path, 2)
    (tmp_path / "core" / "y.c").write_text("int x;\n")
    assert sorted(ranked(tmp_path, 1)) == sorted(place for place in before if place[0] == "core/x.c")
    kinds = [change.kind for change in changes.ranked(str(tmp_path), ["core"], 1)]
    assert len(set(kinds[:9])) == 9, "the kinds take turns"


def test_a_list_by_hand(tmp_path):
    (tmp_path / "list").write_text("# why\ncore/x.c: nobody sees it\n- a  < b\n+ a <= b\n")
    assert changes.left_out(str(tmp_path / "list")) == {("core/x.c", "a  < b", "a <= b"): "nobody sees it"}
