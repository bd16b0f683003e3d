"""A student from its teacher's layers: every tensor accounted for, a full copy computes the same function."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny import LAYERS as DEPTH
from tiny import VOCAB, config, randomised, tiny
from torch import nn

from distil.errors import ConfigError
from distil.models.families import FAMILIES, family_of
from distil.models.shape import shape_of, spread
from distil.models.shape import student_config as config_of_shape
from distil.models.student import decay_groups
from distil.models.student import make_student as student_of_shape
from distil.tables import Model

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


def wanted_model(family: str, layers, dropout: float, **more) -> Model:
    return Model(teacher="", student=family, student_layers=tuple(layers), dropout=dropout, **more)


def student_config(teacher, family, layers, dropout, **more):
    return config_of_shape(teacher, shape_of(teacher, wanted_model(family, layers, dropout, **more)))


def make_student(teacher, family, layers, dropout, **more):
    return student_of_shape(
        teacher, shape_of(teacher.config, wanted_model(family, layers, dropout, **more)), "teacher", 0
    ).model


def bert_config(**changes) -> transformers.BertConfig:
    shape = dict(
        vocab_size=97, hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3, pad_token_id=7,
        initializer_range=0.5,
    )  # fmt: skip
    return transformers.BertConfig(**{**shape, **changes})


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
    mine, theirs = make_student(teacher, family, LAYERS, 0.1).state_dict(), teacher.state_dict()
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
        students.append(make_student(teacher, family, LAYERS, 0.1).state_dict())
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


@pytest.mark.parametrize(("source", "family"), [*((name, "same") for name in FAMILIES), ("bert", "distilbert")])
def test_a_full_depth_copy_computes_the_teachers_logits(source, family):
    teacher = tiny(source)
    student = make_student(teacher, family, (), 0.0).eval()
    ids = torch.randint(5, VOCAB, (3, 40), generator=torch.Generator().manual_seed(1))  # all positions
    with torch.no_grad():
        wanted, found = teacher(ids).logits, student(ids).logits
    # The same function; only the order of adding three embeddings differs, a rounding of 2^-24 that six layers carry
    # on. Each may double it a few times (random weights, LayerNorm): 2^10 roundings of the largest logit, 6e-5.
    assert (found - wanted).abs().max() <= 2**-14 * wanted.abs().max()
    assert wanted.abs().max() > 1  # and there is something to compare


def test_a_distilbert_can_be_the_teacher():
    shape = dict(vocab_size=97, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=40)
    teacher = randomised(transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**shape)))
    student = make_student(teacher, "distilbert", range(3), 0.0)
    mine, theirs = student.state_dict(), teacher.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(
        make_student(teacher, "distilbert", (2,), 0.0).distilbert.transformer.layer[0].ffn.lin1.weight,
        teacher.distilbert.transformer.layer[2].ffn.lin1.weight,
    )


def test_fewer_layers_are_another_function(teacher):
    student = make_student(teacher, "distilbert", LAYERS, 0.0).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert (student(ids).logits - teacher(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_layers_may_repeat_and_go_backwards(teacher, family):
    student = make_student(teacher, family, (5, 0, 0), 0.0).state_dict()
    name = "distilbert.transformer.layer.{}.ffn.lin1.weight"
    name = name if family == "distilbert" else "bert.encoder.layer.{}.intermediate.dense.weight"
    for own, other in enumerate((5, 0, 0)):
        wanted = teacher.state_dict()[f"bert.encoder.layer.{other}.intermediate.dense.weight"]
        assert torch.equal(student[name.format(own)], wanted)


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_the_decoder_is_tied_and_the_teacher_is_left_alone(teacher, family):
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = make_student(teacher, family, LAYERS, 0.1)
    decoder, embeddings = student.get_output_embeddings().weight, student.get_input_embeddings().weight
    assert decoder is embeddings
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)  # no storage is shared with the teacher
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_a_student_is_fp32_whatever_the_teacher(teacher):
    half = randomised(transformers.BertForMaskedLM(bert_config())).bfloat16()
    student = make_student(half, "distilbert", LAYERS, 0.1)
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    theirs = half.state_dict()
    word = student.distilbert.embeddings.word_embeddings.weight
    assert torch.equal(word, theirs["bert.embeddings.word_embeddings.weight"].float())
    position = theirs["bert.embeddings.position_embeddings.weight"].float()
    token_type = theirs["bert.embeddings.token_type_embeddings.weight"][0].float()
    # Folded in fp32: in bf16 the sum would lose its lower bits.
    assert torch.equal(student.distilbert.embeddings.position_embeddings.weight, position + token_type)


# --- config --------------------------------------------------------------------------------------------------------


def test_a_distilbert_config_has_the_teachers_shape():
    config = student_config(bert_config(hidden_act="relu"), "distilbert", LAYERS, 0.25)
    found = {name: getattr(config, name) for name in (
        "n_layers", "dim", "n_heads", "hidden_dim", "activation", "vocab_size", "max_position_embeddings",
        "dropout", "attention_dropout", "pad_token_id", "initializer_range", "tie_word_embeddings",
    )}  # fmt: skip
    assert found == {
        "n_layers": 3, "dim": 32, "n_heads": 4, "hidden_dim": 48, "activation": "relu", "vocab_size": 97,
        "max_position_embeddings": 40, "dropout": 0.25, "attention_dropout": 0.25, "pad_token_id": 7,
        "initializer_range": 0.5, "tie_word_embeddings": True,
    }  # fmt: skip


def test_a_bert_config_differs_in_depth_and_dropout_alone():
    teacher = bert_config(layer_norm_eps=1e-5, type_vocab_size=3, hidden_act="relu")
    mine, theirs = student_config(teacher, "bert", LAYERS, 0.25).to_dict(), teacher.to_dict()
    assert {name for name in theirs if mine.get(name) != theirs[name]} == {
        "num_hidden_layers", "hidden_dropout_prob", "attention_probs_dropout_prob",
    }  # fmt: skip
    assert (mine["num_hidden_layers"], mine["hidden_dropout_prob"], mine["attention_probs_dropout_prob"]) == (
        3,
        0.25,
        0.25,
    )


def test_dropout_reaches_the_modules(teacher):
    student = make_student(teacher, "distilbert", LAYERS, 0.25)
    assert {m.p for m in student.modules() if isinstance(m, nn.Dropout)} == {0.25}


@pytest.mark.parametrize(
    ("changes", "family", "layers", "said"),
    [
        ({}, "distilbert", (0, 6), "layer 6 is out of range: the teacher has 6 layers, 0 to 5"),
        ({}, "distilbert", (-1,), "layer -1 is out of range"),
        ({"num_hidden_layers": 2}, "bert", (0, 2), "the teacher has 2 layers, 0 to 1"),
        ({}, "gpt2", (0,), "student gpt2: it predicts the next token, the teacher, a bert, masked tokens; give "
         "--student same, or one of: bert, distilbert, roberta, xlm-roberta, albert, modernbert"),
        ({}, "modernbert", (0,), "modernbert: its layers have layer_types of their teacher's, and a bert has none; "),
        ({}, "distilbrt", (0,), "student distilbrt: no such family (did you mean distilbert?); there are: bert, "),
        ({"layer_norm_eps": 1e-5}, "distilbert", (0,), "LayerNorm epsilon 1e-12, the teacher 1e-05; give --"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(changes, family, layers, said):
    with pytest.raises(ConfigError) as caught:
        student_config(bert_config(**changes), family, layers, 0.1)
    assert said in str(caught.value)


def test_a_teacher_of_no_known_family_is_refused():
    with pytest.raises(ConfigError, match="type electra; there are: bert, "):
        student_config(transformers.ElectraConfig(), "distilbert", (0,), 0.1)


# --- optimiser groups ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_decay_groups_are_a_partition(teacher, family):
    student = make_student(teacher, family, LAYERS, 0.1)
    decayed, plain = decay_groups(student, 0.125)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.125, 0.0)
    found = [id(p) for group in (decayed, plain) for p in group["params"]]
    assert len(found) == len(set(found)) and set(found) == {id(p) for p in student.parameters()}
    # Matrices have two dimensions; biases and LayerNorms have one: a criterion of its own.
    assert {p.dim() for p in decayed["params"]} == {2} and {p.dim() for p in plain["params"]} == {1}


def test_frozen_parameters_are_in_no_group(teacher):
    student = make_student(teacher, "distilbert", LAYERS, 0.1)
    frozen = student.distilbert.embeddings.requires_grad_(False)
    ids = {id(p) for group in decay_groups(student, 0.1) for p in group["params"]}
    assert not ids & {id(p) for p in frozen.parameters()} and ids


def test_an_untied_teacher_is_refused():
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        tie_word_embeddings=False,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="not tied"):
        make_student(transformers.BertForMaskedLM(config), "distilbert", [0, 1], 0.0)


def test_a_bert_student_of_a_distilbert_computes_its_function():
    config = transformers.DistilBertConfig(vocab_size=97, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    teacher = transformers.DistilBertForMaskedLM(config).eval()
    student = make_student(teacher, "bert", [0, 1], 0.0).eval()
    ids = torch.arange(5, 40)[None]
    # The same operations on the same numbers, but for adding a token-type row of zeros.
    torch.testing.assert_close(student(ids).logits, teacher(ids).logits, rtol=1e-6, atol=1e-6)


# --- other shapes --------------------------------------------------------------------------------------------------


def test_six_of_twelve_layers_are_the_published_ones():
    assert spread(6, 12) == (0, 2, 4, 7, 9, 11)


def test_an_even_spread_has_first_and_last_and_even_steps():
    for of in range(1, 40):
        for depth in range(2, of + 1):
            layers = spread(depth, of)
            steps = {b - a for a, b in zip(layers, layers[1:], strict=False)}
            assert (layers[0], layers[-1], len(layers)) == (0, of - 1, depth) and max(steps) - min(steps) <= 1
    assert spread(1, 12) == (0,) and spread(3, 2) == (0, 1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_and_takes_layers(family):
    teacher = tiny(family)
    shape = shape_of(teacher.config, wanted_model("same", (), 0.0, student_depth=2))
    made = student_of_shape(teacher, shape, "teacher", 0)
    assert shape.layers == (0, DEPTH - 1) and (made.cut, made.random) == ((), ())
    own = family_of(made.model.config)
    for name in own.modules:
        for mine, theirs in enumerate(shape.layers) if name.startswith("layer.") else [(None, None)]:
            found, wanted = (
                own.module(made.model, name, mine).state_dict(),
                own.module(teacher, name, theirs).state_dict(),
            )
            assert all(torch.equal(found[key], wanted[key]) for key in wanted), name
    # What the family names is all there is: nothing keeps the values that it was made with.
    again = student_of_shape(teacher, shape, "teacher", 1).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in made.model.state_dict().items())


def test_layers_of_a_kind_keep_it():
    teacher = tiny("modernbert")
    config = student_config(teacher.config, "same", (0, 3), 0.0)
    assert config.layer_types == [teacher.config.layer_types[0], teacher.config.layer_types[3]]


def test_a_layer_that_is_built_otherwise_is_refused():
    with pytest.raises(ConfigError, match="input_norm: layer 0 of the student cannot start as layer 1.*student_layers"):
        make_student(tiny("modernbert"), "same", (1, 2), 0.0)
    with pytest.raises(ConfigError, match="embeddings_norm: the student's cannot start as the teacher's.*another --"):
        make_student(tiny("modernbert"), "bert", (1, 2), 0.0)
    teacher = tiny("modernbert")  # the other way out that is named
    shape = shape_of(teacher.config, wanted_model("bert", (1, 2), 0.0))
    assert student_of_shape(teacher, shape, "random", 0).random


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrower_student_gets_the_first_rows_and_columns(family):
    teacher = tiny(family)
    wanted = wanted_model("same", (), 0.0, student_depth=2, student_hidden=16, student_feed_forward=12)
    made = student_of_shape(teacher, shape_of(teacher.config, wanted), "teacher", 0)
    own, heads = family_of(teacher.config), 4
    assert made.random == () and "word_embeddings" in made.cut or family == "albert"  # narrow already
    assert own.number(made.model.config, "heads") == 2  # of 8 dimensions, as the teacher's
    mine, theirs = (own.module(m, "layer.feed_forward_out", 0).weight for m in (made.model, teacher))
    mine, theirs = (mine.T, theirs.T) if family == "gpt2" else (mine, theirs)
    assert torch.equal(mine, theirs[:16, :12])
    fused = "layer.query_key_value" in own.modules
    name = "layer.query_key_value" if fused else "layer.query"
    mine, theirs = (own.module(m, name, 0).weight for m in (made.model, teacher))
    mine, theirs = (mine.T, theirs.T) if family == "gpt2" else (mine, theirs)
    blocks = 3 if fused else 1
    # The first two heads of queries, of keys and of values, not the first rows of all three in a row.
    assert torch.equal(mine.view(blocks, 2, 8, 16), theirs.view(blocks, heads, 8, 32)[:, :2, :, :16])
    out = [own.module(m, "layer.attention_output", 0).weight for m in (made.model, teacher)]
    mine, theirs = (w.T for w in out) if family == "gpt2" else out
    assert torch.equal(mine, theirs[:16, :16])
    ids = torch.arange(5, 20)[None]
    assert made.model.eval()(ids).logits.isfinite().all()


def test_heads_of_fewer_dimensions_get_the_first_of_each():
    teacher = tiny("bert")
    student = make_student(teacher, "same", (0,), 0.0, student_hidden=16, student_heads=4)
    mine, theirs = (m.bert.encoder.layer[0].attention.self.query.weight for m in (student, teacher))
    assert torch.equal(mine.view(4, 4, 16), theirs.view(4, 8, 32)[:, :4, :16])


def test_what_is_wider_than_the_teacher_is_random_and_told():
    teacher = tiny("bert")
    shape = shape_of(teacher.config, wanted_model("distilbert", (0,), 0.0, student_hidden=64, student_feed_forward=48))
    made, again = (student_of_shape(teacher, shape, "teacher", 3) for _ in range(2))
    assert "word_embeddings" in made.random and "layer.query" in made.random and not made.cut
    assert all(torch.equal(a, b) for a, b in zip(made.model.parameters(), again.model.parameters(), strict=True))


def test_random_weights_are_those_of_a_new_model_and_of_the_seed():
    teacher = tiny("bert")
    shape = shape_of(teacher.config, wanted_model("distilbert", (0,), 0.0))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    one, same, other = (student_of_shape(teacher, shape, "random", seed).model for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())  # nothing else is drawn from
    parameters = zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True)
    for (name, p), q, r in parameters:
        assert torch.equal(p, q) and (p.dim() == 1 or not torch.equal(p, r)), name
    assert abs(one.distilbert.embeddings.word_embeddings.weight.std() - 0.02) < 0.002  # the family's own range


def test_feed_forward_follows_the_width():
    shape = shape_of(config("bert"), wanted_model("same", (), 0.0, student_hidden=16))
    assert (shape.hidden, shape.heads, shape.feed_forward) == (16, 2, 24)
    assert shape_of(config("gpt2"), wanted_model("same", (), 0.0)).feed_forward == 128  # which its config leaves open


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"student_hidden": 31}, "is no multiple of 3 attention heads; give --student_hidden 33 or --student_heads 1"),
        ({"student_heads": 5}, "student_hidden 32 is no multiple of 5 attention heads; give --student_hidden 35"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(sizes, said):
    with pytest.raises(ConfigError) as caught:
        shape_of(config("bert"), wanted_model("same", (), 0.0, **sizes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("family", "name"), [("albert", "num_hidden_groups"), ("gpt2", "scale_attn_by_inverse_layer_idx")]
)
def test_models_whose_layers_depend_on_their_place_are_refused(family, name):
    value = 2 if name == "num_hidden_groups" else True
    with pytest.raises(ConfigError, match=f"a {family} with {name} {value} cannot give layers"):
        shape_of(config(family, **{name: value}), wanted_model("same", (), 0.0))


def test_positions_of_two_families_are_matched_by_what_they_stand_for():
    teacher = tiny("roberta", layer_norm_eps=1e-12)
    student = make_student(teacher, "distilbert", (), 0.0).eval()
    assert student.config.max_position_embeddings == 40
    ids = torch.randint(5, VOCAB, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = teacher(ids).logits, student(ids).logits
    assert (found - wanted).abs().max() <= 2**-14 * wanted.abs().max()
