"""Students of part of the teacher's vocabulary: whose ids are whose, and models that are left some rows alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import transformers
from languages import MADE, OURS
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from distil.data.tokenizer import special_ids, vocab_size
from distil.data.trimming import restricted
from distil.errors import ConfigError, DataError, one_line
from distil.models.vocabulary import ids_of, restrict_vocabulary_

pytestmark = pytest.mark.usefixtures("one_thread")

V = 151
SIZES = dict(vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
IDS_V = np.r_[0:4, 150, np.random.default_rng(0).permutation(np.arange(4, 150))[:60], 3, 3]  # some ids twice


@dataclass(frozen=True)
class AFamily:
    """What the function asks of a family."""

    name: str
    positions_after_pad: bool = False


MODELS = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, pad_token_id=3)),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(vocab_size=V, dim=32, n_layers=2, n_heads=4, hidden_dim=48, pad_token_id=3)
    ),
    "roberta": lambda: transformers.RobertaForMaskedLM(transformers.RobertaConfig(**SIZES, max_position_embeddings=40)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, bos_token_id=150, eos_token_id=150)
    ),
    "modernbert": lambda: transformers.ModernBertForMaskedLM(
        transformers.ModernBertConfig(
            **SIZES, pad_token_id=3, cls_token_id=0, bos_token_id=0, sep_token_id=150, eos_token_id=150
        )
    ),
}


def made(kind: str, **changes: object) -> tuple[transformers.PreTrainedModel, AFamily]:
    """A random model, biases included, and its family."""
    torch.manual_seed(0)
    model = MODELS[kind]()
    if changes:
        model = type(model)(type(model.config)(**{**model.config.to_diff_dict(), **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval(), AFamily(kind, kind == "roberta")


def logits(model: transformers.PreTrainedModel, ids: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(ids)).logits


def inputs(pad: int) -> np.ndarray:
    """Sequences in the student's numbers, each with its pads; the first ids are the same in the teacher's."""
    own = np.random.default_rng(1).integers(4, len(IDS_V) - 2, (3, 20))
    own[:, 0] = 0
    for row in range(3):
        own[row, 20 - 4 * row :] = pad
    return own


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_the_whole_model(kind, tied, tmp_path):
    model, family = made(kind, tie_word_embeddings=tied)
    own = inputs(model.config.pad_token_id or 3)
    rows = [layer.weight[IDS_V].clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    model.double()
    before = logits(model, IDS_V[own])[..., IDS_V]
    assert before.std() > 0.1
    restrict_vocabulary_(model, family, IDS_V)
    # Each is the sum of the same products. In what order they are summed may hang on a matrix's width: so in doubles.
    assert torch.allclose(logits(model, own), before, rtol=0, atol=1e-12)
    assert not torch.allclose(logits(model, own)[..., :-1], before[..., 1:], rtol=0, atol=1e-3)

    model.float()
    for wanted, layer in zip(rows, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True):
        assert torch.equal(layer.weight, wanted)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert model.config.vocab_size == len(IDS_V)
    after = logits(model, own)
    model.save_pretrained(tmp_path)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert torch.equal(logits(again, own), after)
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
    assert str(again.get_input_embeddings()) == str(model.get_input_embeddings())  # sizes, padding
    assert str(again.get_output_embeddings()) == str(model.get_output_embeddings())


def test_biases_of_a_head_stay_one():
    for kind, holder in (("bert", "cls.predictions"), ("roberta", "lm_head")):
        model, family = made(kind)
        bias = model.get_submodule(holder).bias.detach()[IDS_V]
        restrict_vocabulary_(model, family, IDS_V)
        head = model.get_submodule(holder)
        assert head.bias is head.decoder.bias and torch.equal(head.bias, bias)


def test_what_is_frozen_stays_so_and_type_and_other_tensors_too():
    model, family = made("bert")
    model.requires_grad_(False).bfloat16()
    others = {name: tensor for name, tensor in model.named_parameters() if V not in tensor.shape}
    restrict_vocabulary_(model, family, IDS_V)
    assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(False, torch.bfloat16)}
    after = dict(model.named_parameters())
    assert all(after[name] is tensor for name, tensor in others.items()) and len(others) > 20


def test_special_ids_of_a_config_are_renumbered():
    model, family = made("gpt2")
    restrict_vocabulary_(model, family, IDS_V)
    for owner in (model.config, model.generation_config):
        assert (owner.bos_token_id, owner.eos_token_id, owner.pad_token_id) == (4, 4, None)
    model, family = made("gpt2", eos_token_id=[5, 150])
    restrict_vocabulary_(model, family, np.r_[150, 6, 7], {"pad": 2, "cls": 1})
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (1, [0], 2)
    model, family = made("modernbert")
    restrict_vocabulary_(model, family, np.r_[150, 9, 8, 7], {"pad": 2})
    found = {name: getattr(model.config, f"{name}_token_id") for name in ("pad", "cls", "bos", "sep", "eos")}
    assert found == {"pad": 2, "cls": None, "bos": None, "sep": 0, "eos": 0}  # 0, the old [CLS], is gone
    assert model.get_input_embeddings().padding_idx == 2


def test_positions_after_the_pad_stay_where_they_are():
    model, family = made("roberta")
    with pytest.raises(ConfigError, match="positions of a roberta are counted from its pad, id 1") as caught:
        restrict_vocabulary_(model, family, np.r_[1, 0, 5])
    assert len(one_line(caught.value)) < 250
    with pytest.raises(ConfigError, match="counted from its pad"):
        restrict_vocabulary_(model, family, IDS_V, {"pad": 2})
    with pytest.raises(ConfigError, match="counted from its pad"):
        restrict_vocabulary_(model, family, np.r_[0])
    assert model.config.vocab_size == V == len(model.get_input_embeddings().weight)  # refused before anything changed
    restrict_vocabulary_(model, family, IDS_V, {"pad": 1, "cls": 0, "sep": 4})
    assert (model.config.pad_token_id, model.config.eos_token_id) == (1, 4)
    model, family = made("roberta")
    restrict_vocabulary_(model, family, np.r_[1, 1, 5])
    assert (model.config.pad_token_id, model.config.bos_token_id) == (1, None)
    restrict_vocabulary_(*made("bert"), np.r_[1, 0, 5])  # elsewhere the pad may go


@pytest.mark.parametrize(("ids", "said"), [([0, V], f"0 to {V}"), ([-1, 3], "-1 to 3"), ([], "none")])
def test_ids_without_a_row_are_refused(ids, said):
    with pytest.raises(ConfigError, match=f"ids {said} of a model with a vocabulary of {V}"):
        restrict_vocabulary_(*made("bert"), np.array(ids))


# --- tokenizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MADE)
def test_ids_of_a_trimmed_tokenizer(kind):
    teacher = MADE[kind]()
    smaller, ids = restricted(teacher, {id_ for line in OURS for id_ in teacher(line).input_ids})
    found, missing = ids_of(smaller, teacher)
    assert np.array_equal(found, ids) and found.dtype == np.int64 and missing == []
    back, missing = ids_of(teacher, smaller)
    assert np.array_equal(ids[back[ids]], ids) and back.shape == (vocab_size(teacher),)
    assert missing == [token for token in teacher.convert_ids_to_tokens(range(len(back))) if token in missing]
    assert len(missing) == vocab_size(teacher) - len(ids) > 0
    gone = teacher.convert_tokens_to_ids(missing)
    assert set(back[gone].tolist()) == {special_ids(smaller)["unk"]}


def words(*tokens: str, **roles: str) -> PreTrainedTokenizerFast:
    """A tokenizer of these tokens; those that are None leave gaps."""
    vocabulary = {token: i for i, token in enumerate(tokens) if token}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, tokens[0])), **roles)


def test_roles_come_before_names():
    teacher = words("<unk>", "a", "[MASK]", "<mask>", "<s>", "</s>", "<pad>", unk_token="<unk>", mask_token="<mask>",
                    bos_token="<s>", eos_token="</s>", pad_token="<pad>")  # fmt: skip
    student = words("[PAD]", "[CLS]", "[SEP]", "[MASK]", "b", "a", "[UNK]", unk_token="[UNK]", mask_token="[MASK]",
                    cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")  # fmt: skip
    found, missing = ids_of(student, teacher)
    assert found.tolist() == [6, 4, 5, 3, 0, 1, 0] and missing == ["b"]


def test_a_token_of_several_roles_is_itself_where_it_can_be():
    teacher = words("<end>", "a", "<pad>", unk_token="<end>", bos_token="<end>", eos_token="<end>", pad_token="<pad>")
    student = words("a", "<end>", unk_token="<end>", bos_token="<end>", eos_token="<end>", pad_token="<end>")
    assert ids_of(student, teacher)[0].tolist() == [1, 0]


def test_what_stands_for_the_missing():
    student = words("a", "b", None, "c")
    for roles, stands in (({"unk_token": "u"}, 1), ({"pad_token": "p"}, 2), ({"eos_token": "e"}, 3)):
        found, missing = ids_of(student, words("c", "u", "p", "e", **roles))
        assert found.tolist() == [stands, stands, stands, 0] and missing == ["a", "b"]
    with pytest.raises(DataError, match="lacks 3 tokens of the student's, and has neither") as caught:
        ids_of(student, words("c", "u"))
    assert len(one_line(caught.value)) < 250
    assert ids_of(words("c"), words("u", "c"))[0].tolist() == [1]  # nothing is missing: nothing needs to stand for it
