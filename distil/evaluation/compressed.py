"""A model in smaller and faster forms: int8 by torch, ONNX in fp32 and in int8.

int8 is dynamic quantisation: weights are rounded once, with a scale for each output, activations as they come, so that
nothing has to be calibrated. torch's own is the one of ``torch.ao.quantization``, deprecated and still in torch 2.13;
its successor torchao runs on CPUs at the speed of fp32 unless the model is compiled.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from distil.errors import ConfigError, RunError, one_line
from distil.evaluation.examples import Inputs
from distil.evaluation.loaded import Loaded
from distil.evaluation.speed import Runner

FP32, INT8, ONNX, ONNX_INT8 = FORMS = ("fp32", "int8", "onnx", "onnx-int8")
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INSTALL = f"pip install {' '.join(PACKAGES)}, in the versions of requirements.txt"


@dataclass(frozen=True)
class Form:
    """A form of a model: its name, its bytes (on disk; of int8 those of its tensors) and how to run it on a batch."""

    name: str
    bytes: int
    run: Runner


class Logits(nn.Module):
    """A model of transformers as a function of tensors to one tensor.

    Logits of a sequence (B, C) or of its tokens (B, L, V); of answers' first and last tokens (B, L, 2).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """See the class."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return output.logits if "logits" in output else torch.stack((output.start_logits, output.end_logits), dim=-1)


def available(asked: list[str] | None) -> tuple[list[str], str]:
    """Names of the forms that can be made here, of those asked for (None: of all), and a note on what is left out.

    Raises ConfigError where one that was asked for cannot be made.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if not missing:
        return list(dict.fromkeys([FP32, *(asked or FORMS)])), ""
    if asked and {ONNX, ONNX_INT8} & set(asked):
        raise ConfigError(f"the ONNX forms need {', '.join(missing)}: {INSTALL}")
    note = "" if asked else f"Without the ONNX forms, which need {', '.join(missing)}: {INSTALL}."
    return [FP32, *(name for name in asked or FORMS if name == INT8)], note


def forms_of(loaded: Loaded, names: list[str], example: Inputs, threads: int) -> list[Form]:
    """The forms of a model, in this order. ``example`` is a batch with the inputs that all will have."""
    forms = [Form(FP32, loaded.file_bytes, torch_runner(loaded.model))] if FP32 in names else []
    if INT8 in names:
        small = int8(loaded.model)
        forms.append(Form(INT8, tensor_bytes(small), torch_runner(small)))
    if ONNX in names or ONNX_INT8 in names:
        with tempfile.TemporaryDirectory(prefix="distil-onnx-") as folder:
            path = onnx_file(loaded.model, example, Path(folder) / "model.onnx")
            if ONNX in names:
                forms.append(Form(ONNX, path.stat().st_size, onnx_runner(path, threads)))
            if ONNX_INT8 in names:
                path = onnx_int8_file(path)
                forms.append(Form(ONNX_INT8, path.stat().st_size, onnx_runner(path, threads)))
    return forms


def torch_runner(model: nn.Module) -> Runner:
    """Run a model of transformers."""
    logits = Logits(model).eval()

    def run(inputs: Inputs) -> Tensor:
        with torch.inference_mode():
            return logits(**inputs)

    return run


def int8(model: nn.Module) -> nn.Module:
    """A copy of the model whose linear layers hold int8 weights; embeddings, norms and attention stay in fp32."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    model = copy.deepcopy(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):  # GPT-2's linear layers, under a name that is not quantised
            model.set_submodule(path, _linear(module))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        return quantize_dynamic(model, {nn.Linear: per_channel_dynamic_qconfig}, inplace=True)


def _linear(module: Conv1D) -> nn.Linear:
    linear = nn.Linear(*module.weight.shape)
    linear.weight, linear.bias = nn.Parameter(module.weight.T.contiguous()), module.bias
    return linear.requires_grad_(False)


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of all tensors of a model that a file would hold, shared ones once; quantised weights with their scales."""
    tensors: dict[int, Tensor] = {}
    for value in model.state_dict(keep_vars=True).values():
        for tensor in value if isinstance(value, tuple) else (value,):  # of a quantised layer weight and bias
            if isinstance(tensor, Tensor):
                tensors[id(tensor)] = tensor
    total = 0
    for tensor in tensors.values():
        total += tensor.numel() * tensor.element_size()
        if tensor.is_quantized:
            total += 2 * 4 * tensor.q_per_channel_scales().numel()  # scale and zero point of each output
    return total


def onnx_file(model: nn.Module, example: Inputs, path: Path) -> Path:
    """Export to ONNX with any batch and any length. Raises RunError where torch cannot."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision, which nobody asked for, is not there
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    # Of size 1 an axis would be taken for fixed.
    shaped = {name: torch.cat([tensor[:1, :2].expand(2, -1)] * 4, dim=1) for name, tensor in example.items()}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own code to itself
            torch.onnx.export(
                Logits(model).eval(), (), path, kwargs=shaped, dynamic_shapes=dict.fromkeys(shaped, axes),
                output_names=["logits"], dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - the exporter has many, of no common kind
        raise RunError(
            f"{type(model).__name__} cannot be exported to ONNX ({one_line(error.__cause__ or error)[:200]}); leave "
            f"that out by --forms {FP32} {INT8}"
        ) from error
    return path


def onnx_int8_file(path: Path) -> Path:
    """The model of an ONNX file with int8 weights, embeddings included, beside it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, small = path.with_suffix(".folded.onnx"), path.with_suffix(".int8.onnx")
    # Tied embeddings are the decoder's weight by a transposition, which has to be folded for that to be quantised.
    quant_pre_process(path, whole, skip_symbolic_shape=True)
    quantize_dynamic(whole, small, weight_type=QuantType.QInt8, per_channel=True)
    return small


def onnx_runner(path: Path, threads: int) -> Runner:
    """Run an ONNX file on so many threads; the file is not needed any more."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> Tensor:
        return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])

    return run
