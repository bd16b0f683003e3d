"""Every tag has exactly one place, known ones by what they mean, others by their family."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from left import recorded

from distil.report.panels import COUNTERS, HEALTH, LEARNING, MOST, OPTIMISER, SPEED, name_of, sections, told

MOVING = [1.0, 3.0, 2.0]
FAMILIES = ["loss", "loss_weighted", "heldout", "validation", "teacher", "optimizer", "health", "eval", "", "a/b"]
NAMES = ["total", "mlm", "mlm_loss", "mlm_accuracy", "accuracy", "teacher_accuracy", "agreement", "lr", "f1", "x y", ""]
TAGS = st.builds(lambda family, name: f"{family}/{name}" if family else name, *map(st.sampled_from, (FAMILIES, NAMES)))


def curves(*tags, flat=()):
    return recorded({tag: [2.0, 2.0] if tag in flat else MOVING for tag in tags}).curves


def tags_of(panels):
    return [series.tag for panel in panels for series in panel.series]


@settings(deadline=None, max_examples=200)
@given(st.lists(TAGS, unique=True), st.sets(TAGS))
def test_every_tag_has_one_place(tags, flat):
    made = curves(*tags, flat=flat)
    drawn = [tag for panels in sections(made).values() for tag in tags_of(panels)]
    assert sorted([*drawn, *told(made)]) == sorted(tags)


def test_terms_of_a_fine_tuning_are_of_sequences():
    made = curves("loss/ce", "loss/task")
    notes = [
        {panel.title: panel.note for panel in sections(made, fine_tuning)[LEARNING]}["KL to the teacher"]
        for fine_tuning in (False, True)
    ]
    assert notes[0].startswith("nats a token") and notes[1].startswith("T² KL a sequence")


def test_a_distillations_curves_are_in_an_order_that_tells_a_story():
    made = curves(
        "heldout/perplexity", "loss_weighted/ce", "loss_weighted/mlm", "loss/ce", "loss/mlm", "loss/total",
        "teacher/mlm_loss", "heldout/mlm_accuracy", "heldout/teacher_accuracy", "heldout/agreement", "health/spikes",
        "speed/tokens_per_second", "optimizer/lr", "data/tokens", flat={"heldout/teacher_accuracy", "health/spikes"},
    )  # fmt: skip
    found = sections(made)
    assert list(found) == [LEARNING, OPTIMISER, SPEED]
    assert [panel.title for panel in found[LEARNING]] == [
        "Loss", "Held-out accuracy", "Agreement", "Held-out perplexity", "Terms of the loss", "KL to the teacher",
        "Masked-LM loss",
    ]  # fmt: skip
    accuracy, masked = found[LEARNING][1], found[LEARNING][-1]
    assert [(s.tag, s.name, s.reference) for s in accuracy.series] == [
        ("heldout/mlm_accuracy", "student", False), ("heldout/teacher_accuracy", "teacher", True),
    ]  # fmt: skip
    assert tags_of([masked]) == ["loss/mlm", "teacher/mlm_loss"]
    assert list(told(made)) == ["data/tokens", "health/spikes"]


def test_a_teachers_curve_without_its_students_stands_alone():
    assert tags_of(sections(curves("heldout/teacher_accuracy"))[LEARNING]) == ["heldout/teacher_accuracy"]
    assert list(told(curves("heldout/teacher_accuracy", flat={"heldout/teacher_accuracy"}))) == [
        "heldout/teacher_accuracy"
    ]


def test_unknown_families_are_sections_of_their_own_at_the_end():
    found = sections(curves("zeta/one", "loss/task", "validation/matthews", "zeta/two", "plain", "health/bad_steps"))
    assert list(found) == [LEARNING, HEALTH, "zeta", "plain"]
    assert tags_of(found[LEARNING]) == ["validation/matthews", "loss/task"]
    assert [panel.title for panel in found["zeta"]] == ["One", "Two"]


def test_more_weighted_terms_than_colours_have_a_panel_each():
    tags = [f"loss_weighted/{i}" for i in range(MOST + 1)]
    assert len(sections(curves(*tags))[LEARNING]) == MOST + 1


def test_counters_are_told_and_not_drawn():
    assert set(told(curves(*COUNTERS))) == COUNTERS and sections(curves(*COUNTERS)) == {}


def test_names_are_words():
    assert name_of("loss/total") == "Loss" and name_of("validation/exact_match") == "Exact match"
    assert name_of("a/b/c_d") == "B c d" and name_of("plain") == "Plain" and name_of("x/") == "X"
