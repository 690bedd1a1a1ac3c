"""What a DeepSpeed engine keeps in a layout of its own, as tensors that any number of ranks reads again.

They have the names of those of ddp and fsdp, and what ZeRO spreads is spread by rows, as fsdp does. Of what is spread
one tensor at a time is whole.
"""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, empty

from continual.errors import ContinualError
from continual.training.states import MOMENTS, load_tensors, model_tensors, save_tensors, saved_names


class ZeroStates:
    """Saves and loads the float32 weights of `model` and AdamW's state, which `engine` keeps under ZeRO 1, 2 or 3.

    `writers`: a gloo group of all ranks, see `save_tensors`. Every method is called by all ranks.
    """

    def __init__(self, engine: Any, model: nn.Module, writers: dist.ProcessGroup):
        self.zero, self.device = engine.optimizer, engine.device
        self.model, self.writers = model, writers
        self.here = init_device_mesh(self.device.type, (dist.get_world_size(),))
        self.copies = DeviceMesh.from_group(writers, "cpu")
        # Under ZeRO-3 parameters have attributes of DeepSpeed's, which no type knows.
        self.trained: dict[str, Any] = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def save(self, folder: Path) -> Future[Any]:
        """Write everything below `folder`, from a copy, see `save_tensors`; for an engine that has made a step."""
        from deepspeed.utils import safe_get_full_optimizer_state

        tensors: dict[str, Tensor] = {}
        for name, tensor in model_tensors(self.model):
            tensors[f"model.{name}"] = _own_rows(tensor, self.copies) if _partitioned(tensor) else tensor.detach()
        step = self.zero.optimizer.state[self._partitions()[0]]["step"]
        for name, parameter in self.trained.items():
            tensors[f"step.{name}"] = torch.tensor(float(step))
            for kind in MOMENTS[1:]:
                tensors[f"{kind}.{name}"] = _rows(safe_get_full_optimizer_state(parameter, kind), self.copies)
        return save_tensors(folder, tensors, self.writers)

    def load(self, folder: Path) -> int:
        """Read into a fresh engine what a strategy has saved, bit for bit; return the number of steps made.

        Raises ContinualError if the folder lacks something.
        """
        known = saved_names(folder)
        steps = {f"step.{name}": torch.zeros(1) for name in self.trained}
        load_tensors(folder, steps, known, self.writers)
        counts = {int(step) for step in steps.values()}
        if len(counts) > 1:
            problem = f"weights in {folder} were updated {sorted(counts)} times, and ZeRO updates all alike"
            raise ContinualError(f"{problem}; go on with the strategy that wrote it")
        [step] = counts
        self._begin(step)
        self._load_weights(folder, known)
        for kind in MOMENTS[1:]:
            self._load_moments(folder, known, kind)
        return step

    def _load_weights(self, folder: Path, known: set[str]) -> None:
        import deepspeed

        tensors: dict[str, Any] = dict(model_tensors(self.model))
        wanted = {name: self._empty(t.ds_shape) if _partitioned(t) else t.detach() for name, t in tensors.items()}
        load_tensors(folder, {f"model.{name}": tensor for name, tensor in wanted.items()}, known, self.writers)
        for name, tensor in wanted.items():
            if isinstance(tensor, DTensor):
                whole = tensor.full_tensor()
                with deepspeed.zero.GatheredParameters(tensors[name], modifier_rank=0), torch.no_grad():
                    tensors[name].copy_(whole)
        # Every partition's float32 weights, which the optimizer updates, are a copy of these.
        self.zero.refresh_fp32_params()
        if hasattr(self.zero, "checkpoint_event_epilogue"):
            self.zero.checkpoint_event_epilogue()  # gathers small parameters again, which stay whole

    def _load_moments(self, folder: Path, known: set[str], kind: str) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        parts = {name: self._empty(getattr(p, "ds_shape", p.shape)) for name, p in self.trained.items()}
        load_tensors(folder, {f"{kind}.{name}": part for name, part in parts.items()}, known, self.writers)
        for name, parameter in self.trained.items():
            whole = parts[name].full_tensor().flatten()
            if _partitioned(parameter):
                # The other function fails where the last rank's part is padded (deepspeed 0.19).
                size = parameter.ds_tensor.numel()
                begin = size * dist.get_rank(parameter.ds_process_group)
                own = whole[begin : begin + size]
                own = nn.functional.pad(own, (0, size - len(own)))
                safe_set_local_optimizer_state(parameter, own, kind)
            else:
                safe_set_full_optimizer_state(parameter, whole, kind)

    def _begin(self, step: int) -> None:
        """Give AdamW, which has not made a step, the state that it creates in its first one."""
        adamw = self.zero.optimizer
        for partition in self._partitions():
            device = partition.device if adamw.defaults.get("fused") else "cpu"
            adamw.state[partition] = {
                "step": torch.tensor(float(step), device=device),
                **{kind: torch.zeros_like(partition, requires_grad=False) for kind in MOMENTS[1:]},
            }
        if hasattr(self.zero, "_lazy_init_hp_params_optimizer_state"):
            self.zero._lazy_init_hp_params_optimizer_state()  # ZeRO 1 and 2 look there for a parameter's part

    def _partitions(self) -> list[Tensor]:
        """Return this rank's flat float32 weights, which are what AdamW sees."""
        name = "fp32_partitioned_groups_flat"
        found: list[Tensor] = getattr(self.zero, name, None) or self.zero.single_partition_of_fp32_groups
        return found

    def _empty(self, shape: torch.Size) -> DTensor:
        """Return a float32 tensor on the device, spread by rows, without content."""
        return empty(shape, dtype=torch.float32, device_mesh=self.here, placements=[Shard(0)])


def _partitioned(tensor: Tensor) -> bool:
    """Return whether ZeRO-3 spreads a tensor."""
    return hasattr(tensor, "ds_id")


def _own_rows(parameter: Any, mesh: DeviceMesh) -> DTensor:
    """Return this rank's rows of a parameter that ZeRO-3 spreads, see `_rows`."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    if parameter.requires_grad:  # what is gathered for a forward pass may have been quantized on its way
        return _rows(safe_get_full_fp32_param(parameter), mesh)
    with deepspeed.zero.GatheredParameters(parameter):
        return _rows(parameter.detach(), mesh)


def _rows(whole: Tensor, mesh: DeviceMesh) -> DTensor:
    """Return a copy on the CPU of this rank's rows, as a part of the tensor that all ranks have."""
    size = -(-len(whole) // mesh.size())
    begin = size * mesh.get_local_rank()
    rows = whole[begin : begin + size].to("cpu", copy=True)
    return DTensor.from_local(rows, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride())
