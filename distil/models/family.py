"""What a family of models is to everything else: names of its parts, and the few ways in which it is its own.

``modules`` and ``config`` map a name common to all families to the family's own; what two families both name can be
copied from one to the other. ``{}`` stands for the layer's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import transformers
from torch import Tensor, nn

from distil.errors import ConfigError
from distil.kernels import Head


@dataclass(frozen=True)
class Family:
    """One family's parts, as its code in transformers names them.

    ``encoder`` is the path of the model without its head; ``head_transform`` the steps from hidden states to the rows
    that the decoder multiplies, paths or functions. ``stacked`` says of which modules the outputs are several equal
    blocks, one behind the other, as fused projections have them. ``per_layer`` are lists in the config with an entry a
    layer, ``dropouts`` its rates of dropout. ``layer_norm_eps`` is set where the code fixes what others configure;
    ``positions_after_pad`` where positions are counted from the pad id on.
    """

    name: str
    model_type: str
    model_class: type[transformers.PreTrainedModel]
    encoder: str
    head_transform: tuple[str | Callable[[Tensor], Tensor], ...]
    decoder: str
    modules: Mapping[str, str]
    config: Mapping[str, str]
    dropouts: tuple[str, ...]
    stacked: Mapping[str, int] = field(default_factory=dict)
    per_layer: tuple[str, ...] = ()
    causal: bool = False
    positions_after_pad: bool = False
    layer_norm_eps: float | None = None
    even_heads: bool = False  # rotary positions turn dimensions of a head in pairs
    # Settings, each with the value it must have, under which a layer may stand at another place.
    requires: Mapping[str, object] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        """What its language models are trained to predict: "mlm", masked tokens, or "clm", the next one."""
        return "clm" if self.causal else "mlm"

    @property
    def one_layer(self) -> bool:
        """Whether all its layers are the same one."""
        return not any("{}" in path for name, path in self.modules.items() if name.startswith("layer."))

    @property
    def config_class(self) -> type[transformers.PreTrainedConfig]:
        """The config of its models."""
        return self.model_class.config_class

    def module(self, model: nn.Module, common_name: str, layer: int | None = None) -> nn.Module | None:
        """The module a common name stands for, or None where the family has no such part."""
        path = self.modules.get(common_name)
        return model.get_submodule(path.format(layer)) if path else None

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """The layers of a model, in order; the one that all are, where all are one."""
        path = next(path for name, path in self.modules.items() if name.startswith("layer."))
        stack, several, _ = path.partition(".{}.")
        return list(model.get_submodule(stack)) if several else [model.get_submodule(stack.rpartition(".")[0])]

    def number(self, config: transformers.PreTrainedConfig, common_name: str) -> int:
        """A number of a config by its common name; a feed-forward size that it leaves open is four times the width."""
        value = getattr(config, self.config[common_name])
        if value is None and common_name == "feed_forward":
            return 4 * self.number(config, "hidden")
        return value

    def first_position(self, config: transformers.PreTrainedConfig) -> int:
        """The position id of a sequence's first token. Raises ConfigError where the config does not say."""
        if not self.positions_after_pad:
            return 0
        if config.pad_token_id is None:
            raise ConfigError(f"a {self.name} counts positions from its pad: its config.json must have a pad_token_id")
        return config.pad_token_id + 1

    def longest(self, config: transformers.PreTrainedConfig) -> int:
        """The longest sequence in tokens for which there are positions."""
        return self.number(config, "positions") - self.first_position(config)

    def hidden(self, model: nn.Module, **inputs: object) -> Tensor:
        """Last hidden states of a packed batch, shape (N, H)."""
        return self._run(model, inputs).last_hidden_state.squeeze(0)

    def states(self, model: nn.Module, **inputs: object) -> list[Tensor]:
        """Hidden states (N, H) of a packed batch after each layer; the last ones are those that the head gets."""
        output = self._run(model, inputs | {"output_hidden_states": True})
        return [*(state.squeeze(0) for state in output.hidden_states[1:-1]), output.last_hidden_state.squeeze(0)]

    def _run(self, model: nn.Module, inputs: dict[str, object]) -> transformers.utils.ModelOutput:
        if self.positions_after_pad:
            inputs = inputs | {"position_ids": inputs["position_ids"] + self.first_position(model.config)}
        if self.causal:
            inputs = inputs | {"use_cache": False}
        return model.get_submodule(self.encoder)(**inputs)

    def head(self, model: nn.Module) -> Head:
        """The language-model head of a model of this family."""
        steps = [step if callable(step) else model.get_submodule(step) for step in self.head_transform]
        decoder = model.get_submodule(self.decoder)

        def transform(hidden_RH: Tensor) -> Tensor:
            for step in steps:
                hidden_RH = step(hidden_RH)
            return hidden_RH

        return Head(transform, decoder.weight, decoder.bias)
