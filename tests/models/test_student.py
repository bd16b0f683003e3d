"""A student from its teacher's layers: every tensor accounted for, a full copy computes the same function."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny import VOCAB, bert_config, randomised, student_of, tiny

from distil.errors import ConfigError
from distil.models.families import FAMILIES
from distil.models.student import decay_groups

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = (0, 3, 5)
# Where each family keeps the parts of layer {}, written out here once more: BERT's name and DistilBERT's.
LAYER = {
    "attention.self.query": "attention.q_lin", "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin", "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm", "intermediate.dense": "ffn.lin1", "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}  # fmt: skip
REST = {
    "bert.embeddings.word_embeddings.weight": "distilbert.embeddings.word_embeddings.weight",
    "bert.embeddings.LayerNorm.weight": "distilbert.embeddings.LayerNorm.weight",
    "bert.embeddings.LayerNorm.bias": "distilbert.embeddings.LayerNorm.bias",
    "cls.predictions.transform.dense.weight": "vocab_transform.weight",
    "cls.predictions.transform.dense.bias": "vocab_transform.bias",
    "cls.predictions.transform.LayerNorm.weight": "vocab_layer_norm.weight",
    "cls.predictions.transform.LayerNorm.bias": "vocab_layer_norm.bias",
    "cls.predictions.decoder.weight": "vocab_projector.weight",
    "cls.predictions.decoder.bias": "vocab_projector.bias",
}


@pytest.fixture(scope="module")
def teacher() -> transformers.BertForMaskedLM:
    return randomised(transformers.BertForMaskedLM(bert_config()), scale=0.3)


def pairs_of(family: str) -> dict[str, str]:
    """Teacher's tensor name by student's, for LAYERS."""
    found = {}
    for own, other in enumerate(LAYERS):
        for bert, distilbert in LAYER.items():
            for part in ("weight", "bias"):
                mine = f"distilbert.transformer.layer.{own}.{distilbert}.{part}"
                mine = mine if family == "distilbert" else f"bert.encoder.layer.{own}.{bert}.{part}"
                found[mine] = f"bert.encoder.layer.{other}.{bert}.{part}"
    if family == "distilbert":
        return found | {mine: theirs for theirs, mine in REST.items()}
    same = [*REST, "bert.embeddings.position_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"]
    return found | {name: name for name in [*same, "cls.predictions.bias"]}


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_every_tensor_comes_from_the_teacher(teacher, family):
    mine, theirs = student_of(teacher, family, LAYERS, 0.1).state_dict(), teacher.state_dict()
    pairs = pairs_of(family)
    for name, other in pairs.items():
        assert torch.equal(mine[name], theirs[other]), name
    # What is left is accounted for: nothing keeps the random values it was made with.
    folded = {"distilbert.embeddings.position_embeddings.weight"} if family == "distilbert" else set()
    assert mine.keys() - pairs.keys() == folded
    for name in folded:
        token_type = theirs["bert.embeddings.token_type_embeddings.weight"][0]
        assert torch.equal(mine[name], theirs["bert.embeddings.position_embeddings.weight"] + token_type)


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_nothing_of_the_random_start_is_left(teacher, family):
    students = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        students.append(student_of(teacher, family, LAYERS, 0.1).state_dict())
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


@pytest.mark.parametrize(("source", "family"), [*((name, "same") for name in FAMILIES), ("bert", "distilbert")])
def test_a_full_depth_copy_computes_the_teachers_logits(source, family):
    teacher = tiny(source)
    student = student_of(teacher, family, (), 0.0).eval()
    ids = torch.randint(5, VOCAB, (3, 40), generator=torch.Generator().manual_seed(1))  # all positions
    with torch.no_grad():
        wanted, found = teacher(ids).logits, student(ids).logits
    if family == "same":  # the very same operations
        assert torch.equal(found, wanted)
    # The same function; only the order of adding three embeddings differs, a rounding of 2^-24 that six layers carry
    # on. Each may double it a few times (random weights, LayerNorm): 2^10 roundings of the largest logit, 6e-5.
    assert (found - wanted).abs().max() <= 2**-14 * wanted.abs().max()
    assert wanted.abs().max() > 1  # and there is something to compare


def test_a_distilbert_can_be_the_teacher():
    shape = dict(vocab_size=97, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=40)
    teacher = randomised(transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**shape)))
    student = student_of(teacher, "distilbert", range(3), 0.0)
    mine, theirs = student.state_dict(), teacher.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(
        student_of(teacher, "distilbert", (2,), 0.0).distilbert.transformer.layer[0].ffn.lin1.weight,
        teacher.distilbert.transformer.layer[2].ffn.lin1.weight,
    )


def test_fewer_layers_are_another_function(teacher):
    student = student_of(teacher, "distilbert", LAYERS, 0.0).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert (student(ids).logits - teacher(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_layers_may_repeat_and_go_backwards(teacher, family):
    student = student_of(teacher, family, (5, 0, 0), 0.0).state_dict()
    name = "distilbert.transformer.layer.{}.ffn.lin1.weight"
    name = name if family == "distilbert" else "bert.encoder.layer.{}.intermediate.dense.weight"
    for own, other in enumerate((5, 0, 0)):
        wanted = teacher.state_dict()[f"bert.encoder.layer.{other}.intermediate.dense.weight"]
        assert torch.equal(student[name.format(own)], wanted)


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_the_decoder_is_tied_and_the_teacher_is_left_alone(teacher, family):
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = student_of(teacher, family, LAYERS, 0.1)
    decoder, embeddings = student.get_output_embeddings().weight, student.get_input_embeddings().weight
    assert decoder is embeddings
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)  # no storage is shared with the teacher
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_a_student_is_fp32_whatever_the_teacher(teacher):
    half = randomised(transformers.BertForMaskedLM(bert_config())).bfloat16()
    student = student_of(half, "distilbert", LAYERS, 0.1)
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    theirs = half.state_dict()
    word = student.distilbert.embeddings.word_embeddings.weight
    assert torch.equal(word, theirs["bert.embeddings.word_embeddings.weight"].float())
    position = theirs["bert.embeddings.position_embeddings.weight"].float()
    token_type = theirs["bert.embeddings.token_type_embeddings.weight"][0].float()
    # Folded in fp32: in bf16 the sum would lose its lower bits.
    assert torch.equal(student.distilbert.embeddings.position_embeddings.weight, position + token_type)


# --- optimiser groups ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_decay_groups_are_a_partition(teacher, family):
    student = student_of(teacher, family, LAYERS, 0.1)
    decayed, plain = decay_groups(student, 0.125)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.125, 0.0)
    found = [id(p) for group in (decayed, plain) for p in group["params"]]
    assert len(found) == len(set(found)) and set(found) == {id(p) for p in student.parameters()}
    # Matrices have two dimensions; biases and LayerNorms have one: a criterion of its own.
    assert {p.dim() for p in decayed["params"]} == {2} and {p.dim() for p in plain["params"]} == {1}


def test_frozen_parameters_are_in_no_group(teacher):
    student = student_of(teacher, "distilbert", LAYERS, 0.1)
    frozen = student.distilbert.embeddings.requires_grad_(False)
    ids = {id(p) for group in decay_groups(student, 0.1) for p in group["params"]}
    assert not ids & {id(p) for p in frozen.parameters()} and ids


def test_an_untied_teacher_is_refused():
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        tie_word_embeddings=False,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="not tied"):
        student_of(transformers.BertForMaskedLM(config), "distilbert", [0, 1], 0.0)


def test_a_bert_student_of_a_distilbert_computes_its_function():
    config = transformers.DistilBertConfig(vocab_size=97, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    teacher = transformers.DistilBertForMaskedLM(config).eval()
    student = student_of(teacher, "bert", [0, 1], 0.0).eval()
    ids = torch.arange(5, 40)[None]
    # The same operations on the same numbers, but for adding a token-type row of zeros.
    torch.testing.assert_close(student(ids).logits, teacher(ids).logits, rtol=1e-6, atol=1e-6)
