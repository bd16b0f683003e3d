"""The products of a step are those that torch counts in one, in every family and for every term."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distil.data.batch import PackedBatch
from distil.kernels.paths import using
from distil.models.distiller import Counts, Distiller
from distil.models.families import FAMILIES, family_of
from distil.models.shape import shape_of
from distil.models.student import make_student
from distil.planning.products import Product, Rows, distillation, encoder, flops, head
from distil.tables import Loss, Model

pytestmark = pytest.mark.usefixtures("one_thread")

PAPER = Loss(temperature=2.0, alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0)
LENGTHS, PREDICTED, VOCABULARY = [8, 8, 8], 5, 53  # of one length: on a CPU attention would pad the shorter ones
SMALL = dict(
    vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=20,
)  # fmt: skip
CONFIGS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), SMALL),
    "distilbert": dict(
        vocab_size=VOCABULARY, dim=16, n_layers=3, n_heads=4, hidden_dim=24, max_position_embeddings=20
    ),
    "albert": SMALL | dict(embedding_size=12),
    "modernbert": SMALL | dict(local_attention=6, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
                               sep_token_id=2),
    "gpt2": dict(
        vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=4, n_positions=20, bos_token_id=0, eos_token_id=0
    ),
}  # fmt: skip


def counted(teacher: transformers.PreTrainedModel, loss: Loss, student: Model) -> tuple[int, int]:
    """FLOPs of a step by torch's counter, and by ours."""
    made = make_student(teacher, shape_of(teacher.config, student), "teacher", 0).model.train()
    compared = (teacher, family_of(teacher.config)) if loss.needs_teacher else (None, None)
    module = Distiller(made, family_of(made.config), *compared, loss)
    n = sum(LENGTHS)
    labels = np.full(n, -100)
    rows = np.arange(n) if family_of(made.config).causal else np.arange(PREDICTED) * 3
    labels[rows] = 7
    batch = PackedBatch.pack(np.arange(n) % VOCABULARY, labels, np.array(LENGTHS, dtype=np.int32))
    # Attention by plain products, which the counter sees on a CPU, too.
    with FlopCounterMode(display=False) as counter, using("torch"), sdpa_kernel(SDPBackend.MATH):
        module(batch, Counts(n, len(rows))).total.backward()
    teacher_config = teacher.config if loss.needs_teacher else None
    ours = distillation(made.config, teacher_config, loss, Rows(LENGTHS, len(rows)))
    return counter.get_total_flops(), sum(map(flops, ours))


def a_teacher(family: str) -> transformers.PreTrainedModel:
    model = FAMILIES[family].model_class(FAMILIES[family].config_class(**CONFIGS[family]))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family_as_torch_counts_them(family):
    loss = PAPER if not FAMILIES[family].causal else replace(PAPER, alpha_mlm=0.0, alpha_clm=2.0)
    theirs, ours = counted(a_teacher(family), loss, Model(teacher="", student="same", student_depth=2, dropout=0.0))
    assert ours == theirs


@pytest.mark.parametrize(
    "loss",
    [
        PAPER,
        replace(PAPER, restrict_ce_to_mask=True),
        replace(PAPER, alpha_ce=0.0),  # the teacher's head is not run
        replace(PAPER, alpha_ce=0.0, alpha_mlm=0.0),  # nor anything of the student's head trained
        replace(PAPER, alpha_ce=0.0, alpha_cos=0.0),  # no teacher
        replace(PAPER, alpha_mse=1.0, alpha_ce=0.0),
        replace(PAPER, alpha_hidden=1.0),
        replace(PAPER, alpha_relations=1.0, relation_heads=4),
    ],
    ids=lambda loss: ",".join(f"{n}={v}" for n, v in vars(loss).items() if v != getattr(PAPER, n)) or "paper",
)
@pytest.mark.parametrize("width", [16, 8])
def test_for_every_term_as_torch_counts_them(loss, width):
    student = Model(teacher="", student="distilbert", student_depth=2, student_hidden=width, dropout=0.0)
    theirs, ours = counted(a_teacher("bert"), loss, student)
    assert ours == theirs


def test_causal_and_restricted_has_two_sets_of_logits():
    loss = replace(PAPER, alpha_mlm=0.0, alpha_clm=2.0, restrict_ce_to_mask=True)
    theirs, ours = counted(a_teacher("gpt2"), loss, Model(teacher="", student="same", student_depth=2, dropout=0.0))
    assert ours == theirs


BERT_BASE = transformers.BertConfig(vocab_size=30522)
DISTILBERT = transformers.DistilBertConfig(vocab_size=30522)


@pytest.mark.parametrize(
    ("length", "share", "teacher", "student"),
    [(128, 1.0, 222.6, 406.1), (128, 0.15, 181.8, 283.5), (512, 1.0, 236.8, 427.3)],
)
def test_bert_base_to_distilbert(length, share, teacher, student):
    """MFLOP a token worked out by hand: 24 H^2 + 4 L H a layer, 2 H^2 + 2 H V a row of the head; the student's x 3."""
    rows = Rows([length] * 20, round(20 * length * share))
    loss = replace(PAPER, restrict_ce_to_mask=share < 1)
    found = [flops(products) / rows.attended / 1e6 for products in distillation(DISTILBERT, BERT_BASE, loss, rows)]
    assert found == pytest.approx([teacher, student], abs=0.05)  # as rounded in the table


def test_attention_is_quadratic_in_each_sequence():
    def attention(lengths: list[int]) -> int:
        return flops(p for p in encoder(BERT_BASE, lengths) if p.inside)

    assert attention([10, 20]) * 900 == attention([30]) * (100 + 400)
    assert attention([10, 20, 10]) == 2 * attention([10]) + attention([20])


def test_a_head_without_rows_is_nothing():
    assert head(BERT_BASE, 0) == []


def test_backward_products_are_those_of_the_gradients():
    inputs, weights = Product("p", "forward", rows=5, inner=3, columns=7, times=2).backward()
    assert (inputs.rows, inputs.inner, inputs.columns) == (5, 7, 3)
    assert (weights.rows, weights.inner, weights.columns) == (3, 5, 7)
    assert inputs.flops == weights.flops == 2 * 5 * 3 * 7 * 2
