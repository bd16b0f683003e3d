"""Students of any shape: which layers, which sizes, what is cut, what is random, and what cannot be made."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny import LAYERS, VOCAB, asked, bert_config, config, shaped, student_of, tiny
from torch import nn

from distil.errors import ConfigError
from distil.models.families import FAMILIES, family_of
from distil.models.shape import shape_of, spread
from distil.models.student import make_student

pytestmark = pytest.mark.usefixtures("one_thread")

CHOSEN = (0, 3, 5)


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
    shape = shape_of(teacher.config, asked("same", (), 0.0, student_depth=2))
    made = make_student(teacher, shape, "teacher", 0)
    assert shape.layers == (0, LAYERS - 1) and (made.cut, made.random) == ((), ())
    own = family_of(made.model.config)
    for name in own.modules:
        for mine, theirs in enumerate(shape.layers) if name.startswith("layer.") else [(None, None)]:
            found, wanted = (
                own.module(made.model, name, mine).state_dict(),
                own.module(teacher, name, theirs).state_dict(),
            )
            assert all(torch.equal(found[key], wanted[key]) for key in wanted), name
    # What the family names is all there is: nothing keeps the values that it was made with.
    again = make_student(teacher, shape, "teacher", 1).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in made.model.state_dict().items())


def test_layers_of_a_kind_keep_it():
    teacher = tiny("modernbert")
    config = shaped(teacher.config, "same", (0, 3), 0.0)
    assert config.layer_types == [teacher.config.layer_types[0], teacher.config.layer_types[3]]


def test_a_layer_that_is_built_otherwise_is_refused():
    teacher = tiny("modernbert")
    with pytest.raises(ConfigError, match="input_norm: layer 0 of the student cannot start as layer 1.*student_layers"):
        student_of(teacher, "same", (1, 2))
    with pytest.raises(ConfigError, match="embeddings_norm: the student's cannot start as the teacher's.*another --"):
        student_of(teacher, "bert", (1, 2))
    shape = shape_of(teacher.config, asked("bert", (1, 2)))  # the other way out that is named
    assert make_student(teacher, shape, "random", 0).random


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrower_student_gets_the_first_rows_and_columns(family):
    teacher = tiny(family)
    wanted = asked("same", (), 0.0, student_depth=2, student_hidden=16, student_feed_forward=12)
    made = make_student(teacher, shape_of(teacher.config, wanted), "teacher", 0)
    own, heads = family_of(teacher.config), 4
    assert made.random == () and ("word_embeddings" in made.cut) == (family != "albert")  # whose are narrow already
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
    student = student_of(teacher, "same", (0,), 0.0, student_hidden=16, student_heads=4)
    mine, theirs = (m.bert.encoder.layer[0].attention.self.query.weight for m in (student, teacher))
    assert torch.equal(mine.view(4, 4, 16), theirs.view(4, 8, 32)[:, :4, :16])


def test_heads_that_are_wider_than_the_teachers_get_rows_of_several():
    teacher = tiny("bert")
    student = student_of(teacher, "same", (0,), student_heads=2)
    for name in ("attention.self.query", "attention.output.dense"):
        mine, theirs = (m.bert.encoder.layer[0].get_submodule(name).weight for m in (student, teacher))
        assert torch.equal(mine, theirs)


def test_rotary_heads_are_even():
    with pytest.raises(ConfigError, match="student_hidden 20 with 4 heads: 5 dimensions a head, which must be an even"):
        shape_of(config("modernbert"), asked("same", student_hidden=20, student_heads=4))
    made = student_of(tiny("modernbert"), "same", student_hidden=24, student_heads=4)
    assert made(torch.arange(5, 20)[None]).logits.isfinite().all()


def test_one_layer_cannot_start_as_several():
    with pytest.raises(ConfigError, match="all its layers are one, which cannot start as 2; give --init"):
        shape_of(config("bert"), asked("albert", (0, 1)))
    assert shape_of(config("bert"), asked("albert", (1, 1))).layers == (1, 1)
    assert len(shape_of(config("bert"), asked("albert", initial_weights="random")).layers) == LAYERS


def test_special_ids_are_never_those_of_a_class():
    teacher = config("bert", pad_token_id=7)
    made = shaped(teacher, "albert", (0,))
    assert made.pad_token_id == 7 and made.bos_token_id is None and made.eos_token_id is None


def test_positions_that_nobody_can_count_are_refused():
    with pytest.raises(ConfigError, match="a roberta counts positions from its pad: its config.json must have"):
        FAMILIES["roberta"].longest(config("roberta", pad_token_id=None))


def test_what_is_wider_than_the_teacher_is_random_and_told():
    teacher = tiny("bert")
    shape = shape_of(teacher.config, asked("distilbert", (0,), 0.0, student_hidden=64, student_feed_forward=48))
    made, again = (make_student(teacher, shape, "teacher", 3) for _ in range(2))
    assert "word_embeddings" in made.random and "layer.query" in made.random and not made.cut
    assert all(torch.equal(a, b) for a, b in zip(made.model.parameters(), again.model.parameters(), strict=True))


def test_random_weights_are_those_of_a_new_model_and_of_the_seed():
    teacher = tiny("bert")
    shape = shape_of(teacher.config, asked("distilbert", (0,), 0.0))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    one, same, other = (make_student(teacher, shape, "random", seed).model for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())  # nothing else is drawn from
    parameters = zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True)
    for (name, p), q, r in parameters:
        assert torch.equal(p, q) and (p.dim() == 1 or not torch.equal(p, r)), name
    assert abs(one.distilbert.embeddings.word_embeddings.weight.std() - 0.02) < 0.002  # the family's own range


@pytest.mark.parametrize(("width", "heads"), [(32, 4), (15, 3), (24, 3), (20, 4), (8, 1), (5, 1)])
def test_heads_are_no_wider_than_the_teachers_so_that_nothing_of_them_is_random(width, heads):
    teacher = tiny("bert")  # of heads with 8 dimensions
    shape = shape_of(teacher.config, asked("same", student_hidden=width))
    assert shape.heads == heads and make_student(teacher, shape, "teacher", 0).random == ()


def test_feed_forward_follows_the_width():
    shape = shape_of(config("bert"), asked("same", (), 0.0, student_hidden=16))
    assert (shape.hidden, shape.heads, shape.feed_forward) == (16, 2, 24)
    assert shape_of(config("gpt2"), asked("same", (), 0.0)).feed_forward == 128  # which its config leaves open


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"student_hidden": 31}, "makes no heads of about 8 dimensions, as the teacher's are; give --student_hidden 24 "
         "or 32, or --student_heads too"),
        ({"student_heads": 5}, "student_hidden 32 is no multiple of 5 attention heads; give --student_hidden 35"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_divide_are_refused(sizes, said):
    with pytest.raises(ConfigError) as caught:
        shape_of(config("bert"), asked("same", (), 0.0, **sizes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("family", "name"), [("albert", "num_hidden_groups"), ("gpt2", "scale_attn_by_inverse_layer_idx")]
)
def test_models_whose_layers_depend_on_their_place_are_refused(family, name):
    value = 2 if name == "num_hidden_groups" else True
    with pytest.raises(ConfigError, match=f"a {family} with {name} {value} cannot give layers"):
        shape_of(config(family, **{name: value}), asked("same", (), 0.0))


def test_positions_of_two_families_are_matched_by_what_they_stand_for():
    teacher = tiny("roberta", layer_norm_eps=1e-12)
    student = student_of(teacher, "distilbert", (), 0.0).eval()
    assert student.config.max_position_embeddings == 40
    ids = torch.randint(5, VOCAB, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = teacher(ids).logits, student(ids).logits
    assert (found - wanted).abs().max() <= 2**-14 * wanted.abs().max()


# --- config --------------------------------------------------------------------------------------------------------


def test_a_distilbert_config_has_the_teachers_shape():
    config = shaped(bert_config(hidden_act="relu"), "distilbert", CHOSEN, 0.25)
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
    mine, theirs = shaped(teacher, "bert", CHOSEN, 0.25).to_dict(), teacher.to_dict()
    assert {name for name in theirs if mine.get(name) != theirs[name]} == {
        "num_hidden_layers", "hidden_dropout_prob", "attention_probs_dropout_prob",
    }  # fmt: skip
    assert (mine["num_hidden_layers"], mine["hidden_dropout_prob"], mine["attention_probs_dropout_prob"]) == (
        3,
        0.25,
        0.25,
    )


def test_dropout_reaches_the_modules():
    student = student_of(tiny("bert"), "distilbert", (0, 3), 0.25)
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
        shaped(bert_config(**changes), family, layers, 0.1)
    assert said in str(caught.value)


def test_a_teacher_of_no_known_family_is_refused():
    with pytest.raises(ConfigError, match="type electra; there are: bert, "):
        shaped(transformers.ElectraConfig(), "distilbert", (0,), 0.1)
