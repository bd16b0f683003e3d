"""What is timed: random ids, always the same; lines of a text, masked or not; a split of a task; padded batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import transformers

from distil.errors import DataError
from distil.evaluation.examples import Example, batches, inputs_of, of_task, of_text, share_right, synthetic
from distil.kernels import IGNORED
from distil.tasks.catalogue import find, own_task
from distil.tasks.features import features_of
from distil.tasks.task import Answer, Examples


@pytest.fixture
def tokenizer(folder_of):
    return transformers.AutoTokenizer.from_pretrained(folder_of("bert"))


def test_random_ids_are_always_the_same():
    made = synthetic(97, 512)
    assert made == synthetic(97, 512)
    lengths = [len(example.ids) for example in made.examples]
    assert len(lengths) == 1500 and 8 == min(lengths) <= max(lengths) <= 128
    assert 30.5 < sum(lengths) / 1500 < 31.5  # as it is said in words
    ids = {i for example in made.examples for i in example.ids}
    assert ids == set(range(97))
    assert "1,500 sequences of random ids" in made.what and "made up" in made.what


def test_fewer_and_shorter_ones_where_that_is_asked_for():
    few = synthetic(97, 20, 30)
    assert len(few.examples) == 30 and max(len(e.ids) for e in few.examples) == 20


def test_lines_of_a_text(tmp_path, tokenizer):
    path = str(tmp_path / "t.txt")
    (tmp_path / "t.txt").write_text("ba be\n\n  \nbi bo bu\nbab\n")
    made = of_text(path, tokenizer, "classification", 512, token_types=False)
    assert [e.ids for e in made.examples] == [
        tuple(tokenizer(line)["input_ids"]) for line in ("ba be", "bi bo bu", "bab")
    ]
    assert made.what == f"3 lines of {path}, 4.0 tokens on average" and made.score is None
    assert of_text(path, tokenizer, "classification", 512, False, 2).examples == made.examples[:2]
    cut = of_text(path, tokenizer, "classification", 4, token_types=True).examples
    assert [len(e.ids) for e in cut] == [4, 4, 3]
    assert [e.token_types for e in cut] == [(0,) * 4, (0,) * 4, (0,) * 3]


def test_masks_are_fixed_and_spare_special_tokens(tmp_path, tokenizer):
    (tmp_path / "t.txt").write_text("ba be bi bo bu bab\n" * 400)
    made, again = (of_text(str(tmp_path / "t.txt"), tokenizer, "mlm", 512, False) for _ in range(2))
    assert made.examples == again.examples and made.scored == "masked tokens guessed right"
    plain = np.array(tokenizer("ba be bi bo bu bab")["input_ids"])
    ids = np.array([example.ids for example in made.examples])
    masked = ids == tokenizer.mask_token_id
    assert (ids == np.where(masked, tokenizer.mask_token_id, plain)).all()
    assert not masked[:, [0, -1]].any()
    # 2,400 words with 15 %: a standard deviation of 0.7 points, so 3 points are beyond chance; it is a fixed draw.
    assert masked[:, 1:-1].mean() == pytest.approx(0.15, abs=0.03)
    # Who knows the text is always right, who reads off what is there never, and what is said elsewhere does not count.
    assert made.score([plain] * 400) == 1 and made.score(list(ids)) == 0
    assert made.score(list(np.where(masked, plain, 0))) == 1


def test_a_causal_model_is_asked_for_each_next_token(tmp_path, folder_of):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of("gpt2"))
    (tmp_path / "t.txt").write_text("bab\n")
    made = of_text(str(tmp_path / "t.txt"), tokenizer, "clm", 512, False)
    ids = tokenizer("bab")["input_ids"]
    assert made.examples == (Example(tuple(ids)),) and len(ids) > 1
    assert made.score([np.array([*ids[1:], 99])]) == 1  # after the last there is nothing to be right about
    assert made.score([np.array([99, *ids[2:], 99])]) == (len(ids) - 2) / (len(ids) - 1)


def test_a_text_too_short_for_a_mask_has_no_score(tmp_path, tokenizer):
    (tmp_path / "t.txt").write_text("ba\n")
    made = of_text(str(tmp_path / "t.txt"), tokenizer, "mlm", 512, False)
    assert tokenizer.mask_token_id not in made.examples[0].ids and made.score is None and made.scored == ""


def test_the_share_of_tokens_that_are_asked_for():
    said = [np.array([7, 8, 9]), np.array([5, 6])]
    assert share_right(said, [np.array([IGNORED, 8, 1]), np.array([5, IGNORED])]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("data", [None, b"", b" \n\n", b"\xff\xfe"])
def test_a_file_without_text_is_refused(tmp_path, tokenizer, data):
    if data is not None:
        (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(DataError) as caught:
        of_text(str(tmp_path / "t.txt"), tokenizer, "mlm", 512, False)
    assert str(tmp_path / "t.txt") in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_mask_token_nothing_can_be_masked(tmp_path, folder_of):
    (tmp_path / "t.txt").write_text("ba\n")
    with pytest.raises(DataError, match="has no mask token"):
        of_text(
            str(tmp_path / "t.txt"), transformers.AutoTokenizer.from_pretrained(folder_of("gpt2")), "mlm", 512, False
        )


# --- tasks ---------------------------------------------------------------------------------------------------------

PAIRS = Examples(
    ("0", "1", "2"), (("ba be", "bi", "bo bu"), ("bi", "ba bo bu", "be")), np.array([1, 0, 1]), where="here"
)


@pytest.mark.parametrize("token_types", [True, False])
def test_sequences_of_a_task(tokenizer, token_types):
    made = of_task(find("mrpc"), PAIRS, tokenizer, 512, token_types)
    for example, texts in zip(made.examples, zip(*PAIRS.texts, strict=True), strict=True):
        coded = tokenizer(*texts)
        assert example == Example(
            tuple(coded["input_ids"]), tuple(coded["token_type_ids"]) if token_types else None
        )  # fmt: skip
    assert made.what == "3 sequences of mrpc (here), 6.3 tokens on average" and made.scored == "f1 and accuracy"
    assert max(len(e.ids) for e in of_task(find("mrpc"), PAIRS, tokenizer, 6, token_types).examples) == 6


def test_classes_are_scored_by_the_tasks_own_metrics(tokenizer):
    made = of_task(find("mrpc"), PAIRS, tokenizer, 512, False)
    right, wrong = np.array([0.0, 1.0]), np.array([1.0, 0.0])  # logits of classes 1 and 0
    assert made.score([right, wrong, right]) == 1
    # One hit of two positives, nothing else called one: F1 is 2/3, and two of three are right.
    assert made.score([right, wrong, wrong]) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_values_are_scored_by_correlation(tokenizer):
    task = own_task("mine", ("text",), "label")
    examples = Examples(("0", "1", "2"), (("ba", "be", "bi"),), np.array([1, 2, 4], dtype=np.float32))
    said = [np.array([x], dtype=np.float32) for x in (10, 20, 40)]
    assert of_task(task, examples, tokenizer, 512, False).score(said) == pytest.approx(1)


def test_answers_are_scored_over_the_windows_of_a_context(tokenizer):
    context = " ".join(["ba", "be", "bi", "bo"] * 30)
    place = context.index("bi", 200)
    examples = Examples(("0",), (("bu",), (context,)), np.empty(0, np.int64), (Answer(("bi",), (place,)),), "here")
    task = replace(find("squad"), stride=8)
    made = of_task(task, examples, tokenizer, 64, False)
    features = features_of(task, examples, tokenizer, 64)
    assert len(made.examples) == len(features) > 1
    said = [np.zeros((len(example.ids), 2), dtype=np.float32) for example in made.examples]
    for i, logits in enumerate(said):
        offsets = features.offsets[features.starts[i] : features.starts[i + 1]]
        logits[offsets[:, 0] == place] = 9
    assert made.score(said) == 1  # exact match and F1
    assert made.score([np.roll(logits, 1, axis=0) for logits in said]) == 0
    assert made.scored == "exact match and f1"


def test_a_batch_is_padded_to_its_longest():
    inputs = inputs_of([Example((5, 6, 7), (0, 0, 1)), Example((8,), (1,))], 3)
    assert {name: tensor.tolist() for name, tensor in inputs.items()} == {
        "input_ids": [[5, 6, 7], [8, 3, 3]], "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "token_type_ids": [[0, 0, 1], [1, 0, 0]],
    }  # fmt: skip
    assert set(inputs_of([Example((5,))], 0)) == {"input_ids", "attention_mask"}


def test_batches_hold_every_example_once():
    examples = [Example((i,) * (i + 1)) for i in range(7)]
    found = batches(examples, 3, 9)
    assert [len(b["input_ids"]) for b in found] == [3, 3, 1]
    assert [row[0].item() for b in found for row in b["input_ids"]] == list(range(7))
