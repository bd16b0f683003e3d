"""Models of part of their vocabulary: which ids of a teacher a student's stand for, and a model of these alone.

Shapes: V ids, of the student where it is not said; H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import nn

from distil.data.tokenizer import special_ids, vocab_size
from distil.errors import ConfigError, DataError
from distil.models.families import Family

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# What configs call the tokens that data.tokenizer.special_ids has under pad, unk, cls, sep and mask.
_CONFIGURED = {
    "pad_token_id": "pad", "unk_token_id": "unk", "cls_token_id": "cls", "bos_token_id": "cls", "sep_token_id": "sep",
    "eos_token_id": "sep", "mask_token_id": "mask",
}  # fmt: skip


def ids_of(
    student_tokenizer: PreTrainedTokenizerFast, teacher_tokenizer: PreTrainedTokenizerFast
) -> tuple[np.ndarray, list[str]]:
    """For each id of the student the teacher's id of the same token, int64 (V,); and the tokens that the teacher lacks.

    Special tokens are the same where their roles are, whatever they are called, all others where their strings are.
    What the teacher lacks gets its token for the unknown, else its pad or its end; numbers that stand for no token
    get that too, unlisted. Raises DataError where there is none of these.
    """
    theirs, their_roles = teacher_tokenizer.get_vocab(), special_ids(teacher_tokenizer)
    instead = [their_roles[role] for role in ("unk", "pad", "sep") if role in their_roles]
    ids_V = np.full(vocab_size(student_tokenizer), -1, dtype=np.int64)
    for token, id_ in student_tokenizer.get_vocab().items():
        ids_V[id_] = theirs.get(token, -1)
    roles: dict[int, list[int]] = {}
    for role, id_ in special_ids(student_tokenizer).items():
        if role in their_roles:
            roles.setdefault(id_, []).append(their_roles[role])
    for id_, same in roles.items():
        if ids_V[id_] not in same:  # a token may have several roles, as GPT-2's only one; then its string decides
            ids_V[id_] = same[0]
    lacking = np.flatnonzero(ids_V < 0).tolist()
    if lacking and not instead:
        raise DataError(
            f"{teacher_tokenizer.name_or_path}: lacks {len(lacking):,} tokens of the student's, and has neither an "
            "unknown nor a pad nor an end token to stand for them; give the student a tokenizer trimmed from it"
        )
    if lacking:
        ids_V[lacking] = instead[0]
    tokens = student_tokenizer.convert_ids_to_tokens(lacking)
    return ids_V, [token for token in tokens if token is not None]


def restrict_config_(
    config: transformers.PreTrainedConfig, family: Family, ids_V: np.ndarray, special: Mapping[str, int] | None = None
) -> None:
    """Make a config, in place, that of the model that ``restrict_vocabulary_`` leaves, which explains the arguments.

    Raises ConfigError, before anything is changed, where positions are counted from the pad and it would move.
    """
    if family.positions_after_pad:
        _refuse_moved_pad(config.pad_token_id, family, ids_V, special)
    config.vocab_size = len(ids_V)
    _renumber(config, family, ids_V, special)


def restrict_vocabulary_(
    model: transformers.PreTrainedModel, family: Family, ids_V: np.ndarray, special: Mapping[str, int] | None = None
) -> None:
    """Leave a model, in place, the rows ``ids_V`` (V,) of its vocabulary, in that order.

    Embeddings and decoder are cut, and what is tied stays so: logit i becomes the one of id ``ids_V[i]``. ``special``
    are the new ids of special tokens by role, for the config; without them those in the config are renumbered. Where
    positions are counted from the pad, that id cannot move. Raises ConfigError where it would, and for ids that the
    model has no row for.
    """
    config, rows = model.config, model.get_input_embeddings().weight.shape[0]
    ids_V = np.asarray(ids_V, dtype=np.int64)
    if ids_V.size == 0 or ids_V.min() < 0 or ids_V.max() >= rows:
        found = f"{ids_V.min()} to {ids_V.max()}" if ids_V.size else "none"
        raise ConfigError(f"ids {found} of a model with a vocabulary of {rows:,}; give a tokenizer of that model's ids")
    restrict_config_(config, family, ids_V, special)
    cut: dict[nn.Parameter, nn.Parameter] = {}
    for module, name, old in list(_rows_by_id(model, rows)):
        if old not in cut:
            chosen = torch.from_numpy(ids_V).to(old.device)
            cut[old] = nn.Parameter(old.detach()[chosen], requires_grad=old.requires_grad)
        setattr(module, name, cut[old])
    if getattr(model, "generation_config", None) is not None:
        _renumber(model.generation_config, family, ids_V, special)
    embeddings, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    embeddings.num_embeddings = decoder.out_features = len(ids_V)
    if embeddings.padding_idx is not None:
        embeddings.padding_idx = config.pad_token_id


def _rows_by_id(model: transformers.PreTrainedModel, rows: int) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Every place of a parameter with a row for each of the ``rows`` ids: its module, name there, and the parameter.

    A decoder's bias may be tied to one of a module around it, or not: the outer one is saved, whether used or not.
    """
    decoder = model.get_output_embeddings()
    path = next(name for name, module in model.named_modules() if module is decoder)
    around = {path[:end] for end, mark in enumerate(path) if mark == "."} | {"", path}
    known = {model.get_input_embeddings().weight, decoder.weight}
    for name in around:
        bias = getattr(model.get_submodule(name), "bias", None)
        if isinstance(bias, nn.Parameter) and bias.shape == (rows,):
            known.add(bias)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in known:
                yield module, name, parameter


def _refuse_moved_pad(pad: int, family: Family, ids_V: np.ndarray, special: Mapping[str, int] | None) -> None:
    now = (special or {}).get("pad", pad)
    if now != pad or pad >= len(ids_V) or ids_V[pad] != pad:
        raise ConfigError(
            f"positions of a {family.name} are counted from its pad, id {pad}, which is another token of the student's "
            "tokenizer; give it one whose pad has that id, as one trimmed from the teacher's has"
        )


def _renumber(
    owner: transformers.PreTrainedConfig | transformers.GenerationConfig,
    family: Family,
    ids_V: np.ndarray,
    special: Mapping[str, int] | None,
) -> None:
    """Give the special tokens in a config their new ids, or None for those that are gone."""
    special = special or {}
    for name in _CONFIGURED.keys() - ({"pad_token_id"} if family.positions_after_pad else set()):
        old = getattr(owner, name, None)
        if _CONFIGURED[name] in special and (old is not None or name == "pad_token_id"):
            setattr(owner, name, int(special[_CONFIGURED[name]]))
        elif isinstance(old, list):
            setattr(owner, name, np.flatnonzero(np.isin(ids_V, old)).tolist() or None)
        elif old is not None:
            places = np.flatnonzero(ids_V == old)
            setattr(owner, name, int(places[0]) if places.size else None)
