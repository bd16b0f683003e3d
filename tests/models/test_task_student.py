"""A task's student from its fitted teacher: what it starts as, and what is new."""

from __future__ import annotations

import pytest
import torch
from tasks import KINDS, LABELS, a_task, features, stock, task_batch, tiny_task
from tiny import asked

from distil.errors import ConfigError
from distil.models.families import FAMILIES
from distil.models.shape import shape_of
from distil.models.student import Student, make_task_student
from distil.models.task_distiller import TaskDistiller
from distil.models.task_heads import HEAD, task_family
from distil.tasks.batch import TaskBatch
from distil.tasks.tables import TaskLoss
from distil.tasks.task import CLASSIFICATION, SPANS

pytestmark = pytest.mark.usefixtures("one_thread")
every_kind = pytest.mark.parametrize("kind", KINDS)


def student_of(teacher, kind: str, *how: object, weights: str = "teacher", seed: int = 0, **more: object) -> Student:
    shape = shape_of(teacher.config, asked(*how, **more))
    return make_task_student(teacher, a_task(kind), shape, weights, seed)


@every_kind
@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_depth_copy_computes_the_teachers_logits(family, kind):
    teacher, batch = tiny_task(family, kind), task_batch([40, 3, 17], kind)
    made = student_of(teacher, kind, "same")
    assert (made.cut, made.random) == ((), ())
    assert made.model.training and all(p.requires_grad for p in made.model.parameters())
    with torch.no_grad():
        found, wanted = stock(made.model.eval(), kind, batch)[0], stock(teacher, kind, batch)[0]
    assert torch.equal(found, wanted)  # the very same operations


@every_kind
def test_a_distilbert_of_a_bert_has_its_hidden_states(kind):
    teacher, batch = tiny_task("bert", kind), task_batch([40, 3, 17], kind)
    batch.token_types_N.zero_()  # a DistilBERT has but the first
    made = student_of(teacher, kind, "distilbert")
    with torch.no_grad():
        (own, states), (other, their_states) = (stock(model.eval(), kind, batch) for model in (made.model, teacher))
    real = torch.arange(40) < torch.tensor([[40], [3], [17]])
    # As for language models: the order of adding three embeddings, a rounding that the layers carry on.
    assert (states - their_states)[real].abs().max() <= 2**-14 * their_states.abs().max()
    head = {name for name in task_family(FAMILIES["distilbert"], kind).modules if name.startswith(HEAD)}
    if kind == SPANS:  # the same head in both
        assert made.random == () and (own - other).abs().max() <= 2**-13 * max(1, other.abs().max())
    else:
        assert set(made.random) == head == {"head.pre_classifier", "head.classifier"} and made.cut == ()


@every_kind
def test_fewer_layers_are_those_that_were_asked_for(kind):
    teacher = tiny_task("bert", kind)
    made = student_of(teacher, kind, "same", (0, 3)).model.state_dict()
    for name, tensor in teacher.state_dict().items():
        if "layer.3" in name:
            assert torch.equal(made[name.replace("layer.3", "layer.1")], tensor)
        elif "encoder.layer" not in name or "layer.0" in name:
            assert torch.equal(made[name], tensor), name
    assert sum("layer" in name for name in made) * 2 == sum("layer" in name for name in teacher.state_dict())


def test_a_head_that_is_not_the_teachers_is_drawn_from_the_seed():
    teacher = tiny_task("bert", CLASSIFICATION)
    torch.manual_seed(1)
    one = student_of(teacher, CLASSIFICATION, "distilbert", seed=5).model.state_dict()
    torch.manual_seed(2)
    same, other = (student_of(teacher, CLASSIFICATION, "distilbert", seed=seed).model.state_dict() for seed in (5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert differ == {"pre_classifier.weight", "classifier.weight"}


@every_kind
def test_a_narrow_student_is_cut_with_its_head(kind):
    teacher = tiny_task("bert", kind)
    made = student_of(teacher, kind, "same", student_hidden=16)
    heads = {name for name in task_family(FAMILIES["bert"], kind).modules if name.startswith(HEAD)}
    assert heads <= set(made.cut) and made.random == ()
    decoder = task_family(FAMILIES["bert"], kind).decoder
    assert torch.equal(made.model.get_submodule(decoder).weight, teacher.get_submodule(decoder).weight[:, :16])
    with torch.no_grad():
        assert stock(made.model.eval(), kind, task_batch([5, 9], kind))[0].isfinite().all()


@every_kind
def test_random_weights_are_none_of_the_teachers(kind):
    teacher = tiny_task("bert", kind)
    made = student_of(teacher, kind, "same", weights="random")
    assert made.random == tuple(task_family(FAMILIES["bert"], kind).modules)
    theirs = teacher.state_dict()
    assert not any(torch.equal(tensor, theirs[name]) for name, tensor in made.model.state_dict().items())


@every_kind
@pytest.mark.parametrize("family", ["same", "distilbert"])
def test_the_config_says_what_it_is_for(family, kind, tmp_path):
    made = student_of(tiny_task("bert", kind), kind, family, dropout=0.25).model
    made.save_pretrained(tmp_path)
    stated = type(made.config).from_pretrained(tmp_path)
    assert stated.finetuning_task == "mine" and stated.num_labels == a_task(kind).outputs
    assert kind != CLASSIFICATION or stated.id2label == dict(enumerate(LABELS))
    assert 0.25 in (getattr(stated, "dropout", None), getattr(stated, "hidden_dropout_prob", None))
    assert stated.architectures == [type(made).__name__]


def test_the_teacher_is_left_alone():
    teacher = tiny_task("bert", CLASSIFICATION)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    made = student_of(teacher, CLASSIFICATION, "same")
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(1)  # no storage is shared
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_a_causal_student_of_a_bert_is_refused():
    with pytest.raises(ConfigError, match="student gpt2"):
        student_of(tiny_task("bert", CLASSIFICATION), CLASSIFICATION, "gpt2")


@every_kind
def test_it_learns_from_its_teacher(kind):
    # Direct distillation by the published weights: a few steps bring all that the student is compared by nearer.
    teacher, made = tiny_task("bert", kind), features([7, 3, 12, 4, 9, 2, 5, 11], kind)
    student = student_of(teacher, kind, "distilbert", (0, 3)).model
    families = [task_family(FAMILIES[name], kind) for name in ("distilbert", "bert")]
    module = TaskDistiller(student, families[0], kind, teacher, families[1], TaskLoss(alpha_ce=5.0, alpha_cos=2.0))
    optimizer = torch.optim.Adam(student.parameters(), 1e-3)
    torch.manual_seed(0)
    totals = []
    for _ in range(30):
        output = module(TaskBatch.of(made, range(8)), 8)
        output.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(output.total.item())
    assert sum(totals[-3:]) < 0.7 * sum(totals[:3])
