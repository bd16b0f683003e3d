"""Which curves are drawn together, under what title: known tags in an order that tells a story, and all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distil.report.events import Curve
from distil.report.figures import of_tag
from distil.report.thinning import noisy, running_mean


@dataclass(frozen=True)
class Series:
    """A curve with its name in its panel; ``reference`` is one to be held against, such as the teacher's."""

    tag: str
    name: str
    curve: Curve
    reference: bool = False

    @cached_property
    def drawn(self) -> Curve:
        """What is drawn in full: the curve, or the running mean of a noisy one, unless it is what was evaluated."""
        return running_mean(self.curve) if not evaluated(self.tag) and noisy(self.curve) else self.curve


@dataclass(frozen=True)
class Panel:
    """Curves that share axes; ``note`` says what is drawn, with its unit, ``kind`` is that of its figures.

    ``by_ratio`` is whether far apart values are better compared by their ratio.
    """

    title: str
    note: str
    kind: str
    series: tuple[Series, ...]
    by_ratio: bool = False


# {first part of a tag: the section that it belongs to}, in the order of the page.
LEARNING, OPTIMISER, SPEED, HEALTH = "Learning", "Optimiser", "Speed, memory and text", "Health"
SECTIONS = {
    "loss": LEARNING, "heldout": LEARNING, "loss_weighted": LEARNING, "teacher": LEARNING,
    "optimizer": OPTIMISER, "speed": SPEED, "memory": SPEED, "data": SPEED, "health": HEALTH,
}  # fmt: skip
# {tag: (title, note)}; those named here come first, in this order.
_KNOWN = {
    "loss/total": ("Loss", "all terms, weighted"),
    "heldout/mlm_accuracy": ("Held-out accuracy", "masked tokens guessed right"),
    "heldout/clm_accuracy": ("Held-out accuracy", "next tokens guessed right"),
    "heldout/agreement": ("Agreement", "held-out places with the teacher's own first guess"),
    "heldout/perplexity": ("Held-out perplexity", "exp of nats a token"),
    "loss/ce": ("KL to the teacher", "nats a token, at the recipe's temperature"),
    "loss/mlm": ("Masked-LM loss", "nats a predicted token"),
    "loss/clm": ("Causal-LM loss", "nats a predicted token"),
    "loss/cos": ("Cosine distance", "1 − cosine of the last hidden states"),
    "loss/mse": ("Logits apart", "squared difference of the logits"),
    "loss/hidden": ("Hidden states apart", "squared difference, layer by layer"),
    "loss/relations": ("Relations apart", "among queries, keys and values"),
    "loss/task": ("Task loss", "against the labels"),
    "score": ("Score", "mean of the task's metrics, in percent"),
    "optimizer/lr": ("Learning rate", ""),
    "optimizer/grad_norm": ("Gradient norm", "before clipping"),
    "optimizer/loss_scale": ("Loss scale", ""),
    "optimizer/skipped_steps": ("Skipped steps", "so far"),
    "speed/tokens_per_second": ("Speed", "tokens a second, all ranks"),
    "speed/eta_hours": ("Time left", "hours"),
    "memory/peak_gib": ("Peak memory", "GiB, rank 0"),
    "data/wait_fraction": ("Waiting for data", "share of the time"),
    "data/masked_fraction": ("Masked", "share of the tokens"),
    "data/predicted_fraction": ("Predicted", "share of the tokens"),
    "data/epoch": ("Epoch", "passes over the text"),
    "data/tokens": ("Tokens", "seen so far"),
    "health/bad_steps": ("Bad steps", "without finite gradients, so far"),
    "health/spikes": ("Spikes", "of the loss, so far"),
}
# Of a fine-tuning, where they are not the same.
_OF_FINE_TUNING = {
    "loss/ce": ("KL to the teacher", "T² KL a sequence; of a value to be told, the squared difference"),
    "loss/cos": ("Cosine distance", "1 − cosine of the last hidden states of [CLS]"),
}
_TOGETHER = {"loss_weighted": ("Terms of the loss", "each times its weight")}  # all of a first part in one panel
_TERMS = {"ce": "KL", "mlm": "masked LM", "clm": "causal LM", "cos": "cosine", "mse": "logits", "hidden": "hidden"}
_PLAIN = {"teacher/mlm_loss": "loss/mlm", "teacher/clm_loss": "loss/clm"}  # {the teacher's curve: whose panel it is in}
_EVALUATED = ("heldout/", "validation", "test")  # the last two begin the names of splits that a task is judged on
MOST = 6  # curves in a panel
COUNTERS = {"data/tokens", "data/epoch", "speed/eta_hours"}  # straight lines, of which the end says all


def sections(curves: Mapping[str, Curve], fine_tuning: bool = False) -> dict[str, list[Panel]]:
    """{title of a section: its panels}, of every tag but those of ``told``."""
    known = _KNOWN | (_OF_FINE_TUNING if fine_tuning else {})
    moving = _drawn(curves)
    beside = {tag: _beside(tag, moving) for tag in curves}
    found: dict[str, list[Panel]] = {}
    done = set()
    for tag in _in_order(moving):
        first = tag.partition("/")[0]
        if tag in done or beside[tag]:
            continue
        if first in _TOGETHER and len(members := [t for t in moving if t.partition("/")[0] == first]) <= MOST:
            done.update(members)
            panel = _together(first, members, moving)
        else:
            against = [other for other, whose in beside.items() if whose == tag]
            panel = _alone(tag, against, curves, known)
        found.setdefault(section_of(tag), []).append(panel)
    return {title: found[title] for title in dict.fromkeys([*SECTIONS.values(), *found]) if title in found}


def told(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Curves of which the last value says all: counters, and what keeps one value that no other is held against."""
    moving = _drawn(curves)
    return {tag: curves[tag] for tag in _in_order(curves) if tag not in moving and not _beside(tag, moving)}


def _drawn(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Curves worth a look: no counters, and of more than one value; NaN is unlike itself."""
    return {t: c for t, c in curves.items() if t not in COUNTERS and bool((c.values != c.values[0]).any())}


def name_of(tag: str) -> str:
    """A tag in words."""
    if tag in _KNOWN:
        return _KNOWN[tag][0]
    name = " ".join((tag.partition("/")[2] or tag).replace("/", " ").replace("_", " ").split())
    return name[:1].upper() + name[1:] or tag


def evaluated(tag: str) -> bool:
    """Whether a curve is of evaluations, whose figures stand elsewhere, too, and not of batches."""
    return tag == "score" or tag.startswith(_EVALUATED)


def section_of(tag: str) -> str:
    """The section of the page that a tag belongs to: for an unknown family its own."""
    first = tag.partition("/")[0]
    if evaluated(tag):
        return LEARNING
    return SECTIONS.get(first, first or "Other")


def _in_order(tags: Iterable[str]) -> list[str]:
    """Known tags as listed above, others after those of their section, as they came."""
    known, titles = list(_KNOWN), list(dict.fromkeys(SECTIONS.values()))
    first = ["loss/total", "score", *(tag for tag in known if tag.startswith("heldout/"))]

    def place(tag: str) -> tuple[int, int, int]:
        part = tag.partition("/")[0]
        section = titles.index(section_of(tag)) if section_of(tag) in titles else len(titles)
        if tag in first:
            return section, 0, first.index(tag)
        if evaluated(tag):
            return section, 1, 0
        if part in _TOGETHER:
            return section, 2, 0
        return section, 3, known.index(tag) if tag in known else len(known)

    return sorted(tags, key=place)


def _beside(tag: str, moving: Mapping[str, Curve]) -> str | None:
    """The moving curve in whose panel a curve of the teacher's stands; None for any other."""
    if (own := _PLAIN.get(tag)) in moving:
        return own
    first, _, rest = tag.rpartition("/")
    if not rest.startswith("teacher_"):
        return None
    wanted = rest.removeprefix("teacher_")
    same = [t for t in moving if t.rpartition("/")[0] == first and t != tag and "teacher_" not in t]
    same = [t for t in same if t.rpartition("/")[2] == wanted or t.endswith(f"_{wanted}")]
    return min(same, key=len, default=None)


def _together(first: str, tags: Sequence[str], curves: Mapping[str, Curve]) -> Panel:
    title, note = _TOGETHER[first]
    names = [tag.partition("/")[2] for tag in tags]
    # The largest first, since the colours go by place and the largest is what one looks at.
    pairs = sorted(zip(tags, names, strict=True), key=lambda p: -float(np.nanmean(np.abs(curves[p[0]].values))))
    series = tuple(Series(tag, _TERMS.get(name, name.replace("_", " ")), curves[tag]) for tag, name in pairs)
    return Panel(title, note, of_tag(tags[0]), series)


def _alone(
    tag: str, against: Sequence[str], curves: Mapping[str, Curve], known: Mapping[str, tuple[str, str]]
) -> Panel:  # fmt: skip
    title, note = known.get(tag, (name_of(tag), tag if name_of(tag).lower() != tag else ""))
    name = "student" if against else ""
    series = [Series(tag, name, curves[tag])]
    series += [Series(other, "teacher", curves[other], reference=True) for other in against]
    by_ratio = tag.startswith("loss/") or tag.rpartition("/")[2] in ("perplexity", "grad_norm", "loss_scale")
    return Panel(title, note, of_tag(tag), tuple(series), by_ratio)
