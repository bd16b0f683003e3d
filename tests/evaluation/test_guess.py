"""What models guess: a stock model's own softmax, at any temperature, for one blank or several."""

from __future__ import annotations

import pytest
import torch
import transformers

from distil.errors import ConfigError, DataError
from distil.evaluation.guess import Blank, Guesser, guess
from distil.models.families import FAMILIES

MASKED = [name for name, family in FAMILIES.items() if not family.causal]
TEXT = "ba be [MASK] bi bo."


@pytest.fixture
def guesser(folder_of):
    return lambda family, **how: Guesser.load("model", str(folder_of(family, **how)))


def stock(folder, text: str) -> torch.Tensor:
    """Logits of a stock model for a text that is spelled for its tokenizer, as its own code runs it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kind = transformers.AutoModelForCausalLM if "gpt2" in str(folder) else transformers.AutoModelForMaskedLM
    model = kind.from_pretrained(folder).eval()
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits_LV = model(**{k: v for k, v in inputs.items() if k != "token_type_ids"}).logits[0]
    if tokenizer.mask_token is None:
        return logits_LV[-1:]
    return logits_LV[inputs["input_ids"][0] == tokenizer.mask_token_id]


def hold(blank: Blank, logits_V: torch.Tensor, top: int, tokenizer) -> None:
    """The guesses of a blank's only model are those that these logits make."""
    guesses = blank.models[0]
    order = logits_V.argsort(descending=True)[:top]
    found = torch.tensor([g.probabilities for g in guesses.top]).T
    for t, chances, rest in zip(blank.temperatures, found, guesses.rest, strict=True):
        expected = torch.softmax(logits_V.double() / t, -1)
        # The same fp32 forward but for the mask of ones that a tokenizer gives, with which attention may take another
        # kernel: logits of about 4 differ by some 1e-6, probabilities by as much of themselves.
        torch.testing.assert_close(chances.double(), expected[order], rtol=1e-4, atol=0)
        assert chances.sum().item() + rest == pytest.approx(1, abs=1e-6)
    for guess_, piece in zip(guesses.top, tokenizer.batch_decode(order[:, None]), strict=True):
        if piece.strip().isalnum() and piece.isascii():
            assert guess_.token.removeprefix("\u2423") == piece.strip()
    assert guesses.others == len(logits_V) - top


@pytest.mark.parametrize("family", MASKED)
@pytest.mark.parametrize("mask", ["[MASK]", "<mask>"])
def test_a_masked_word_is_guessed_as_the_stock_model_does(folder_of, guesser, family, mask):
    asked = guesser(family)
    (blank,) = guess([asked], TEXT.replace("[MASK]", mask), 7)
    (logits_V,) = stock(folder_of(family), TEXT.replace("[MASK]", asked.tokenizer.mask_token))
    assert blank.text == "ba be ____ bi bo." and blank.temperatures == (1.0, 2.0)
    hold(blank, logits_V, 7, asked.tokenizer)


@pytest.mark.parametrize("text", ["ba be bi", "ba be bi  ", "ba be bi [MASK].", "ba be bi <mask> bo"])
def test_a_causal_model_guesses_the_next_token(folder_of, guesser, text):
    asked = guesser("gpt2")
    (blank,) = guess([asked], text, 5)
    assert blank.text == "ba be bi ____"
    hold(blank, stock(folder_of("gpt2"), "ba be bi")[0], 5, asked.tokenizer)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_each_of_several_masks_is_guessed_with_all_masked(folder_of, guesser, family):
    asked = guesser(family)
    blanks = guess([asked], "[MASK] be <mask> bi [MASK]", 3)
    assert [blank.text for blank in blanks] == [
        "____ be [MASK] bi [MASK]", "[MASK] be ____ bi [MASK]", "[MASK] be [MASK] bi ____"
    ]  # fmt: skip
    mask = asked.tokenizer.mask_token
    for blank, logits_V in zip(blanks, stock(folder_of(family), f"{mask} be {mask} bi {mask}"), strict=True):
        hold(blank, logits_V, 3, asked.tokenizer)


def test_a_higher_temperature_is_flatter_in_the_same_order(guesser):
    (blank,) = guess([guesser("bert")], TEXT, 20, temperatures=(1.0, 2.0, 4.0))
    at = list(zip(*(g.probabilities for g in blank.models[0].top), strict=True))
    for sharp, flat in zip(at, at[1:], strict=False):
        assert sharp[0] > flat[0] and list(flat) == sorted(flat, reverse=True)
        # Ratios of probabilities are the square roots of what they are at half the temperature.
        assert [(a / sharp[0]) ** 0.5 for a in sharp] == pytest.approx([b / flat[0] for b in flat], rel=1e-6)
    assert blank.models[0].rest[0] < blank.models[0].rest[1] < blank.models[0].rest[2]


def test_models_of_other_vocabularies_stand_side_by_side(folder_of):
    pair = [Guesser.load(f, str(folder_of(f))) for f in ("roberta", "bert")]
    (blank,) = guess(pair, TEXT, 4)
    assert [g.model for g in blank.models] == ["roberta", "bert"]
    for alone, beside in zip(pair, blank.models, strict=True):
        assert guess([alone], TEXT, 4)[0].models == (beside,)


def test_a_causal_model_beside_a_masked_one(folder_of):
    pair = [Guesser.load(f, str(folder_of(f))) for f in ("bert", "gpt2")]
    (blank,) = guess(pair, "ba be [MASK]", 4)
    assert blank.text == "ba be ____" and blank.models[1] == guess([pair[1]], "ba be", 4)[0].models[0]
    assert blank.note == ""


@pytest.mark.parametrize("order", [("bert", "gpt2"), ("gpt2", "bert")])
def test_who_sees_less_of_the_text_is_named(folder_of, order):
    pair = [Guesser.load(f, str(folder_of(f))) for f in order]
    (blank,) = guess(pair, "ba be [MASK] bi", 4)
    assert (blank.text, blank.note) == ("ba be ____ bi", "gpt2 saw only: ba be ____")
    (alone,) = guess([pair[order.index("gpt2")]], "ba be [MASK] bi", 4)
    assert (alone.text, alone.note) == ("ba be ____", "")


def test_more_guesses_than_tokens_are_all_tokens(guesser):
    asked = guesser("bert")
    (blank,) = guess([asked], TEXT, 10_000)
    assert len(blank.models[0].top) == len(asked.tokenizer) and blank.models[0].others == 0
    assert blank.models[0].rest == (0.0, 0.0)


def test_tokens_as_a_person_reads_them(guesser):
    bert, gpt2 = guesser("bert"), guesser("gpt2")
    word = lambda asked, token: asked._word(asked.tokenizer.convert_tokens_to_ids(token))
    assert [word(bert, token) for token in ("ba", "##b", "[SEP]")] == ["ba", "##b", "[SEP]"]
    assert word(gpt2, "\u0120b") == "\u2423b" and word(gpt2, "b") == "b"
    assert word(gpt2, "\u010a") == "\\n"  # a line's end would break the table
    assert word(gpt2, "\u0120") == "\u0120" and word(gpt2, "\u00c3") == "\u00c3"  # a space; half a character
    assert bert._word(len(bert.tokenizer) + 5) == f"id {len(bert.tokenizer) + 5}"


@pytest.mark.parametrize(
    ("family", "text", "kind", "said"),
    [
        ("bert", "ba be.", ConfigError, "has no [MASK]"),
        ("bert", "  ", ConfigError, "text is empty"),
        ("bert", "ba [MASK] " * 30, ConfigError, "has 40 positions; shorten it"),
        ("gpt2", "ba " * 60, ConfigError, "has 40 positions; shorten it"),
        ("gpt2", "[MASK] ba", ConfigError, "no text before"),
        ("gpt2", "ba [MASK] be [MASK]", ConfigError, "give one [MASK], or none"),
    ],
)
def test_texts_that_cannot_be_guessed_are_refused(guesser, family, text, kind, said):
    with pytest.raises(kind) as caught:
        guess([guesser(family)], text, 5)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_no_guess_is_refused(guesser):
    with pytest.raises(ConfigError, match="--top is 0; it must be 1 or more"):
        guess([guesser("bert")], TEXT, 0)


def test_a_tokenizer_of_more_ids_than_the_model_has_is_refused(guesser):
    with pytest.raises(DataError, match="they are not of one model"):
        guess([guesser("bert", vocab_size=20)], "bab [MASK]", 5)


def test_weights_that_are_no_numbers_are_refused(guesser):
    asked = guesser("bert")
    asked.model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(DataError, match="gives no finite numbers"):
        guess([asked], TEXT, 5)


def test_without_head_or_tokenizer_there_is_nothing_to_ask(folder_of, tmp_path):
    with pytest.raises(DataError, match="without its head"):
        Guesser.load("model", str(folder_of("bert", head="classes")))
    transformers.AutoModelForMaskedLM.from_pretrained(folder_of("bert")).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no tokenizer loads|special tokens only"):
        Guesser.load("model", str(tmp_path))
