"""Spread a model's weights over ranks: rank 0 has loaded them, every rank gets and keeps its part."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


def layers_of(model: Any) -> list[nn.Module]:
    """Return the layers of a model's body, as transformers marks them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.get_decoder().modules() if isinstance(module, GradientCheckpointingLayer)]


def spread(model: Any, device: torch.device, policy: MixedPrecisionPolicy, root: nn.Module | None = None) -> None:
    """Shard the layers of `model` over all ranks, on `device`, with the weights of rank 0; called by all ranks.

    Args:
        model: The same model on all ranks. Those but the first need no weights: theirs may be on the meta device.
        device: Where the parts go.
        policy: The dtypes in which gathered weights compute and gradients are summed.
        root: A module around the model, which shards what belongs to no layer (embeddings, norm, head) and gathers it
            for its forward and backward pass. Without one that stays whole on every rank.
    """
    rank = dist.get_rank()
    whole = {name: tensor.detach() for name, tensor in model.state_dict().items()} if rank == 0 else {}
    buffers = {name: buffer.detach() for name, buffer in model.named_buffers()} if rank == 0 else {}
    empty_tensors(model, "meta")
    shard(model, init_device_mesh(device.type, (dist.get_world_size(),)), policy, root)
    model.to_empty(device=device)
    set_model_state_dict(model, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    for name, buffer in model.named_buffers():
        if rank == 0:
            buffer.copy_(buffers[name])
        dist.broadcast(buffer, 0)


def shard(model: Any, mesh: DeviceMesh, policy: MixedPrecisionPolicy, root: nn.Module | None = None) -> None:
    """Shard the layers of `model` over a mesh, and what is in none of them if there is a `root`; see `spread`."""
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    if root is not None:
        # The head is used again in the backward pass, which recomputes logits: it stays gathered in between.
        fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        # A row may leave a parameter without a gradient on some ranks (experts, indexers): all must sum the same ones.
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_reduce_scatter_unused_params(True, recurse=False)


def policy_of(precision: str) -> MixedPrecisionPolicy:
    """Return the dtypes of a trained model: gradients are summed in float32."""
    low = torch.bfloat16 if precision == "bfloat16" else None
    # Weights of tokens and stored log-probabilities must not be rounded on their way in.
    return MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)


def round_parameters(model: nn.Module) -> None:
    """Give all parameters the dtype bfloat16. `model.to` would also round the frequencies of the positions."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def empty_tensors(model: nn.Module, device: str) -> None:
    """Put all parameters and buffers on `device`, without content; those that are one tensor stay one."""
    known: dict[int, Any] = {}

    def empty(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            made = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            new = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
            known[id(tensor)] = (tensor, new)  # the old one is kept, so that its id stays its own
        found: Tensor = known[id(tensor)][1]
        return found

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = empty(tensor)  # type: ignore[assignment]
