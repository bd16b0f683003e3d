"""What is timed: random ids, always the same; lines of a text, masked or not; sequences of a task; padded batches."""

from __future__ import annotations

import numpy as np
import pytest
import transformers

from distil.errors import DataError
from distil.evaluation.examples import Example, batches, inputs_of, of_features, of_text, synthetic
from distil.kernels import IGNORED
from distil.tasks.batch import Features


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
    (tmp_path / "t.txt").write_text("ba be\n\n  \nbi bo bu\nbab\n")
    made = of_text(str(tmp_path / "t.txt"), tokenizer, 512)
    assert [e.ids for e in made.examples] == [
        tuple(tokenizer(line)["input_ids"]) for line in ("ba be", "bi bo bu", "bab")
    ]
    assert all(e.label is None and e.token_types == (0,) * len(e.ids) for e in made.examples)
    assert made.what == f"3 lines of {tmp_path / 't.txt'}, 4.0 tokens on average"
    assert of_text(str(tmp_path / "t.txt"), tokenizer, 512, 2).examples == made.examples[:2]
    assert [len(e.ids) for e in of_text(str(tmp_path / "t.txt"), tokenizer, 4).examples] == [4, 4, 3]


def test_masks_are_fixed_and_spare_special_tokens(tmp_path, tokenizer):
    (tmp_path / "t.txt").write_text("ba be bi bo bu bab\n" * 400)
    how = (str(tmp_path / "t.txt"), tokenizer, 512, None, "mlm")
    made = of_text(*how)
    assert made == of_text(*how)
    plain = np.array(tokenizer("ba be bi bo bu bab")["input_ids"])
    ids, labels = (np.array([getattr(e, name) for e in made.examples]) for name in ("ids", "label"))
    asked = labels != IGNORED
    assert (labels[asked] == np.broadcast_to(plain, ids.shape)[asked]).all()
    assert (ids == np.where(asked, tokenizer.mask_token_id, plain)).all()
    assert not asked[:, [0, -1]].any()
    # 2,400 words with 15 %: a standard deviation of 0.7 points, so 3 points are beyond chance; it is a fixed draw.
    assert asked[:, 1:-1].mean() == pytest.approx(0.15, abs=0.03)


def test_a_causal_model_is_asked_for_each_next_token(tmp_path, tokenizer):
    (tmp_path / "t.txt").write_text("ba be\n")
    (example,) = of_text(str(tmp_path / "t.txt"), tokenizer, 512, asks="clm").examples
    assert example.label == (*example.ids[1:], IGNORED)


@pytest.mark.parametrize("data", [None, b"", b" \n\n", b"\xff\xfe"])
def test_a_file_without_text_is_refused(tmp_path, tokenizer, data):
    if data is not None:
        (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(DataError) as caught:
        of_text(str(tmp_path / "t.txt"), tokenizer, 512)
    assert str(tmp_path / "t.txt") in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_mask_token_nothing_can_be_masked(tmp_path, folder_of):
    (tmp_path / "t.txt").write_text("ba\n")
    with pytest.raises(DataError, match="has no mask token"):
        of_text(str(tmp_path / "t.txt"), transformers.AutoTokenizer.from_pretrained(folder_of("gpt2")), 512, asks="mlm")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([2, 0], dtype=np.int64), [2, 0]),
        (np.array([0.5, 4.0], dtype=np.float32), [0.5, 4.0]),
        (np.array([[1, 2], [0, 0]], dtype=np.int64), [(1, 2), (0, 0)]),
    ],
)
def test_sequences_of_a_task(labels, expected):
    ids, types = np.array([5, 6, 7, 8, 9], dtype=np.int32), np.array([0, 0, 1, 0, 1], dtype=np.int32)
    features = Features(ids, types, np.array([0, 3, 5]), labels, np.arange(2))
    made = of_features(features, "two", token_types=True)
    assert made.what == "two" and made.examples == (
        Example((5, 6, 7), (0, 0, 1), expected[0]), Example((8, 9), (0, 1), expected[1])
    )  # fmt: skip
    assert of_features(features, "two", token_types=False, count=1).examples == (Example((5, 6, 7), None, expected[0]),)


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
