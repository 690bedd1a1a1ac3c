"""The memory of one training step as torch's own trackers see it, with tensors that have sizes and no content.

No GPU is needed, and no memory: `FakeTensorMode` runs the real modules, losses, optimizer and FSDP2 on one of many
ranks that exist in name only, and `MemTracker` adds up what is there. DeepSpeed's engine runs so, too, as far as it is
told what numbers it would read.
"""

import argparse
import gc
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

GIB = 2**30


@dataclass(frozen=True)
class Case:
    """A model's shape, options of `train`, rows of a forward pass, and what is beside: a live teacher, an adapter."""

    name: str
    model: dict[str, Any]
    train: dict[str, Any]
    rows: int = 1
    teacher: bool = False
    lora: int = 0
    goal: float | None = None
    """GiB that it should need at most."""

    @property
    def workers(self) -> int:
        return int(self.train.get("workers", 1))


@dataclass
class Tracked:
    """Bytes at the peak, in all and by what MemTracker calls them."""

    total: float
    parts: dict[str, float] = field(default_factory=dict)


def tracked(case: Case) -> Tracked:
    """Return the peak of one rank's step, with an optimizer that has made steps before."""
    import torch

    from continual.training.strategies.base import adamw

    if case.train.get("strategy") == "deepspeed":
        return _tracked_zero(case)
    with _models(case) as (train, module, teacher):
        optimizer = adamw(train, module, torch.device("cpu"))
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        tracker = _tracker()
        tracker.track_external(module, optimizer, *_tensors(teacher))
        with tracker:
            _pass(case, train, module, teacher)
            optimizer.step()
            optimizer.zero_grad()
        return _peak(tracker)


def _peak(tracker: Any) -> Tracked:
    [peak] = tracker.get_tracker_snapshot("peak").values()
    parts = {str(getattr(key, "value", key)): float(size) for key, size in peak.items() if size}
    return Tracked(parts.pop("Total"), parts)


def _tracked_zero(case: Case) -> Tracked:
    """Return the peak of a step of DeepSpeed's engine, which has made some before.

    A process does this once: DeepSpeed keeps its first process group.
    """
    import torch

    from continual.training.strategies.deepspeed import start_engine

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(case.workers)}
    with _models(case) as (train, module, teacher), _numbers_told():
        passes = min(2, -(-train.batch_rows // (train.workers * case.rows)))
        module.to = lambda device: module  # it is there, and torch cannot move tensors without content
        engine = start_engine(train, module, torch.device("cpu"), passes)
        for group in engine.optimizer.optimizer.param_groups:
            group["fused"] = True  # as on a GPU: the fused kernel allocates no temporary tensors

        def step(tracker: Any = None) -> None:
            for number in range(passes):
                if tracker is not None:
                    tracker.reset_mod_stats()  # it knows one pass only
                engine.set_gradient_accumulation_boundary(number == passes - 1)
                _pass(case, train, engine, teacher, lambda loss: engine.backward(loss, scale_wrt_gas=False))
            engine.step()

        for _ in range(3 - passes):
            step()  # ZeRO-3 looks at two passes before it fetches ahead
        tracker = _tracker()
        tracker.track_external(module, *_all_tensors())
        with tracker:
            step(tracker)
        return _peak(tracker)


@contextmanager
def _numbers_told() -> Iterator[None]:
    """Answer what DeepSpeed asks of tensors without content: numbers are one, and other ranks have the same ones."""
    import torch
    from torch._subclasses.fake_impls import op_implementations_dict

    os.environ["DS_ACCELERATOR"] = "cpu"  # before the import, which decides it
    from deepspeed.runtime.zero import partitioned_param_coordinator as coordinator

    def number(mode: Any, function: Any, tensor: Any) -> float | bool:
        return False if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1

    warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # DeepSpeed looks whether it is even
    known = {torch.ops.aten._local_scalar_dense.default: number}
    with (
        patch.dict(op_implementations_dict, known),
        patch.object(coordinator, "assert_ints_same_as_other_ranks", lambda values: None),
    ):
        yield


def _all_tensors() -> list[Any]:
    """Return one tensor for each storage in use. The garbage collector finds those that only DeepSpeed refers to."""
    from torch._subclasses.fake_tensor import FakeTensor

    gc.collect()
    found = [each for each in gc.get_objects() if type(each) is FakeTensor and each.device.type == "cpu"]
    return list({each.untyped_storage()._cdata: each.detach() for each in found}.values())


def counted(case: Case) -> int:
    """Return the operations of one rank's forward and backward pass, by torch's own counter.

    Attention is computed by plain matrix products, since the counter does not know all kernels of CPUs.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with _models(case) as (train, module, teacher), sdpa_kernel(SDPBackend.MATH):
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoModules()  # type: ignore[assignment]
        with counter:
            _pass(case, train, module, teacher)
        return int(counter.get_total_flops())


class _NoModules(nullcontext[None]):
    """In place of what tells the counter the module of an operation: its hooks do not allow `autograd.grad`, with which
    a loss in chunks computes its gradients (torch 2.13)."""

    parents: ClassVar[set[str]] = {"Global"}


@contextmanager
def _models(case: Case) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the options of training, the module and the teacher, without content."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed.device_mesh import init_device_mesh

    from continual.config.schema import Train
    from continual.training.losses import sums
    from continual.training.resources import PART_LOGITS
    from continual.training.spread import empty_tensors

    sums.CACHED_LOGITS = PART_LOGITS  # as on a GPU
    train = Train.model_validate(case.train)
    models = [_llama(case, case.lora), *([_llama(case, 0)] if case.teacher and not case.lora else [])]
    with _ranks(case.workers):
        mesh = init_device_mesh("cpu", (case.workers,))
        with FakeTensorMode():
            for made in models:
                empty_tensors(made, "cpu")
            module = _module(models[0], train, mesh)
            yield train, module, _teacher(case, train, mesh, models[0], models[-1])


def _pass(
    case: Case, train: Any, module: Any, teacher: Any, backward: Callable[[Any], object] = lambda loss: loss.backward()
) -> None:
    """Make a forward and a backward pass over rows of two documents."""
    import torch

    from continual.training.layout import Layout
    from continual.training.losses.kinds import Kl, Nll

    size = (case.rows, train.row_tokens)
    half, count = torch.arange(train.row_tokens // 2), case.rows * train.row_tokens
    ids, positions = torch.zeros(size, dtype=torch.long), torch.cat([half, half]).expand(size)
    loss: Any = Kl() if teacher is not None else Nll()
    # Every position predicts: which do is a matter of content.
    layout = Layout(torch.arange(count), torch.ones(count))
    backward(module(ids, positions, torch.ones(size), loss, teacher, layout=layout))


@contextmanager
def _ranks(count: int) -> Iterator[None]:
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def _module(model: Any, train: Any, mesh: Any) -> Any:
    """Return the module that is trained, as a worker builds it."""
    import torch

    from continual.models.recompute import recompute_layers
    from continual.training.module import LossModule
    from continual.training.resources import chunk_positions
    from continual.training.spread import policy_of, shard

    if train.activation_checkpointing:
        recompute_layers(model, reentrant=train.strategy == "deepspeed" and train.zero_stage == 3)
    low = torch.bfloat16 if train.precision == "bfloat16" and train.strategy != "fsdp" else None
    module = LossModule(model.train(), chunk_positions(train, model.config.vocab_size), low)
    if train.strategy == "fsdp":
        module.head_is_spread = True
        shard(model, mesh, policy_of(train.precision), root=module)
    return module


def _teacher(case: Case, train: Any, mesh: Any, model: Any, other: Any) -> Any:
    """Return what `load_teachers` would: None, the base of an adapter, or the `other` model."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    from baselines.lora import Lora
    from continual.training.frozen import Unadapted
    from continual.training.spread import round_parameters, shard
    from continual.training.strategies import spreads_weights

    if not case.teacher:
        return None
    if case.lora:
        return Unadapted(model, Lora(type="lora", rank=case.lora).unadapted)
    teacher = other.requires_grad_(False)
    if spreads_weights(train):
        if train.precision == "bfloat16" and train.strategy == "fsdp":
            round_parameters(teacher)
        shard(teacher, mesh, MixedPrecisionPolicy(cast_forward_inputs=False))
    return teacher.eval()


def _tracker() -> Any:
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.distributed._tools.mod_tracker import ModTracker

    class Modules(ModTracker):
        """Knows nothing of a module whose inputs begin a graph: its hooks do not allow `autograd.grad`, with which a
        loss in chunks computes its gradients (torch 2.13)."""

        left_out: ClassVar[set[int]] = set()

        def _fw_pre_hook(self, module: Any, inputs: Any) -> None:
            if _begin_a_graph(inputs):
                self.left_out.add(id(module))
            else:
                super()._fw_pre_hook(module, inputs)

        def _fw_post_hook(self, module: Any, inputs: Any, output: Any) -> None:
            if id(module) in self.left_out:
                self.left_out.remove(id(module))
            else:
                super()._fw_post_hook(module, inputs, output)

    class Tracker(MemTracker):
        def _track_module_params_and_buffers(self, module: Any, install_grad_hooks: bool = True) -> tuple[int, int]:
            """Ask for no gradients of frozen parameters, which MemTracker does (torch 2.13)."""
            nothing = SimpleNamespace(remove=lambda: None)
            for parameter in module.parameters():
                if not parameter.requires_grad:
                    self._param_to_grad_hook_handles.setdefault(parameter, (nothing, nothing))
            return super()._track_module_params_and_buffers(module, install_grad_hooks)

    tracker = Tracker()
    tracker._mod_tracker = Modules()
    return tracker


def _begin_a_graph(inputs: Any) -> bool:
    return any(getattr(each, "requires_grad", False) and each.is_leaf for each in inputs)


def _tensors(teacher: Any) -> list[Any]:
    """Return the weights of a teacher that is loaded, as far as this rank holds them."""
    from torch import nn
    from torch.distributed.tensor import DTensor

    parameters = teacher.parameters() if isinstance(teacher, nn.Module) else []
    return [p.detach() if not isinstance(p, DTensor) else p.to_local().detach() for p in parameters]


def _llama(case: Case, lora: int) -> Any:
    """Return the model, with an adapter if its rank is not 0, on the meta device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from baselines.lora import Lora

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**case.model))
        if lora:
            Lora(type="lora", rank=lora).adapt(model, 0)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="a case as JSON")
    found = tracked(Case(**json.loads(parser.parse_args().case)))
    print(json.dumps(asdict(found)))
