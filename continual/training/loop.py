"""The training loop that runs in every Ray Train worker. It knows streams, and no mitigation by name."""

import gc
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from continual.contract.stream import Stream
from continual.errors import ContinualError
from continual.ledger.records import Records, rows_hash
from continual.models import load_model
from continual.models.export import export_model
from continual.models.forward import check_head
from continual.store import empty_folder, folder_damage, publish_folder, write_atomic
from continual.training import checkpoints
from continual.training.anchors import load_pulls
from continual.training.batch import INPUTS, Batch, Rows, to_batch, to_tensors
from continual.training.job import TASK, TrainJob
from continual.training.module import LossModule
from continual.training.schedule import learning_rate
from continual.training.strategies import build_strategy


class Worker:
    """One rank's training state."""

    def __init__(self, job: TrainJob, rank: int, world_size: int, device: torch.device):
        self.job, self.rank, self.world_size, self.device = job, rank, world_size, device
        _seed(job.seed, rank)
        model = load_model(job.model.path, "float32")
        check_head(model)
        for mitigation in job.mitigations:
            mitigation.adapt(model)
        autocast = torch.bfloat16 if job.train.precision == "bfloat16" else None
        module = LossModule(model.to(device).train(), job.train.loss_chunk_tokens, autocast)
        self.teachers = self._load_teachers()
        self.pulls = load_pulls(job.anchors, module.model, device)
        self.weights = {stream.name: stream.coefficient for stream in job.streams}
        self.control: dict[str, dict[str, Any]] = {}
        self.micro = self._micro_batches()
        self.strategy = build_strategy(job.train, module, job.steps, device, world_size, self.micro)
        self.step, found = checkpoints.newest_valid(job.checkpoints)
        if found is not None:
            self._resume(found)

    def _load_teachers(self) -> dict[str, torch.nn.Module]:
        """Frozen models by hash; streams with the same teacher share it."""
        found: dict[str, torch.nn.Module] = {}
        for teacher in (stream.teacher for stream in self.job.streams):
            if teacher is not None and teacher.hash not in found:
                found[teacher.hash] = load_model(teacher.path, "float32", self.device).requires_grad_(False)
        return found

    def _micro_batches(self) -> int:
        """Forward passes per optimizer step of each rank; equal on all ranks, since shares are filled up."""
        return sum(len(self._slices(stream)) for stream in self.job.streams)

    def _slices(self, stream: Stream) -> list[slice]:
        rows = -(-stream.rows_per_step // self.world_size)
        size = self.job.train.micro_rows or rows
        return [slice(at, at + size) for at in range(0, rows, size)]

    # One optimizer step -------------------------------------------------------------------------------------------

    def counts(self, batch: Batch, stop: bool) -> tuple[dict[str, float], float, bool]:
        """Global positions with weight > 0 by stream, tokens, and whether any rank wants to stop."""
        local = [float((batch[stream.name]["weights"][:, 1:] > 0).sum()) for stream in self.job.streams]
        total = torch.tensor([*local, float(stop)], dtype=torch.float64)
        if self.world_size > 1:
            dist.all_reduce(total := total.to(self.device))
        *counts, stops = total.tolist()
        names = [stream.name for stream in self.job.streams]
        return dict(zip(names, counts, strict=True)), sum(counts), stops > 0

    def forward_backward(self, batch: Batch, counts: dict[str, float]) -> dict[str, float]:
        """Accumulate the gradients of all streams; returns each stream's global mean loss in nats per token."""
        sums = torch.zeros(len(self.job.streams), dtype=torch.float64)
        done = 0
        for number, stream in enumerate(self.job.streams):
            name = stream.name
            # DDP and ZeRO average over ranks: times world_size makes the sum over ranks the global mean.
            scale = self.world_size * self.weights[name] / max(counts[name], 1.0)
            for part in self._slices(stream):
                done += 1
                with self.strategy.micro(last=done == self.micro):
                    loss = self._loss(stream, batch[name], part)
                    self.strategy.backward(loss * scale, last=done == self.micro)
                sums[number] += loss.detach().double().cpu()
        if self.world_size > 1:
            dist.all_reduce(sums := sums.to(self.device))
        return {
            stream.name: total / max(counts[stream.name], 1.0)
            for stream, total in zip(self.job.streams, sums.tolist(), strict=True)
        }

    def _loss(self, stream: Stream, rows: Rows, part: slice) -> torch.Tensor:
        """Return the weighted sum of a stream's losses over some of its rows."""
        tensors = {name: tensor[part].to(self.device) for name, tensor in rows.items()}
        inputs = [tensors.pop(name) for name in INPUTS]
        teacher = self.teachers[stream.teacher.hash] if stream.teacher else None
        return self.strategy(*inputs, loss=stream.loss, teacher=teacher, columns=tensors)

    def train_step(self, batch: Batch, stop: bool) -> tuple[dict[str, Any], bool]:
        """One optimizer step; returns its record, and whether all ranks should stop after it."""
        train = self.job.train
        counts, tokens, stopping = self.counts(batch, stop)
        losses = self.forward_backward(batch, counts)
        if self.pulls:
            losses |= {f"anchor/{name}": value for name, value in self.strategy.pull(self.pulls).items()}
        rate = learning_rate(self.step, self.job.steps, train.learning_rate, train.schedule, train.warmup_steps)
        norm = self.strategy.step(rate)
        self.step += 1
        if not all(np.isfinite([*losses.values(), norm])):
            raise ContinualError(
                f"the loss is not finite at step {self.step} ({losses}); "
                f"lower `train.learning_rate` ({train.learning_rate})"
            )
        record = {
            "step": self.step,
            "loss": losses,
            "weight": dict(self.weights),
            "tokens": int(tokens),
            "task_tokens": int(counts[TASK]),
            "learning_rate": rate,
            "gradient_norm": norm,
        }
        return record, stopping

    # Beside the steps ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def drift(self) -> dict[str, float]:
        """KL(teacher || model) in nats per token on each stream's held-out rows, over all ranks; in eval mode."""
        from continual.data.rows import RowReader

        measured = {}
        self.strategy.eval()
        for stream in self.job.streams:
            if not stream.loss.measures_drift or stream.held_out == 0:
                continue
            numbers = np.arange(stream.held_out)[self.rank :: self.world_size]
            # A rank without a row reads one of padding.
            taken = numbers if len(numbers) else np.array([-1])
            rows = RowReader(stream.rows).take(taken)
            if stream.columns is not None:
                rows |= RowReader(stream.columns).take(taken, stream.loss.columns)
            total = torch.zeros(2, dtype=torch.float64, device=self.device)
            # Every rank makes the same number of forward passes: ZeRO-3 gathers weights in each.
            for at in range(-(-stream.held_out // self.world_size)):
                chosen = to_tensors(stream, {k: v[min(at, len(taken) - 1)][None] for k, v in rows.items()})
                loss = self._loss(stream, chosen, slice(None))
                if at < len(numbers):
                    count = (chosen["weights"][:, 1:] > 0).sum()
                    total += torch.stack([loss.double().cpu(), count.double()]).to(self.device)
            if self.world_size > 1:
                dist.all_reduce(total)
            measured[stream.name] = float(total[0] / total[1].clamp(min=1))
        self.strategy.train()
        return measured

    def adjust(self, drift: dict[str, float]) -> None:
        """Let every controlling mitigation set stream weights from the measured drift; equal on all ranks."""
        for number, mitigation in enumerate(self.job.mitigations):
            if mitigation.control_every and self.step % mitigation.control_every == 0:
                state = self.control.get(str(number), {})
                measured = {f"drift/{name}": value for name, value in drift.items()}
                self.control[str(number)], weights = mitigation.control(state, measured)
                self.weights |= {name: weight for name, weight in weights.items() if name in self.weights}

    def controlled(self) -> bool:
        """Whether some mitigation wants a measurement after this step."""
        return any(m.control_every and self.step % m.control_every == 0 for m in self.job.mitigations)

    def checkpoint(self) -> None:
        """Publish a whole checkpoint of this step; called by all ranks."""
        final = checkpoints.step_folder(self.job.checkpoints, self.step)
        temporary = final.with_name(f".{final.name}.tmp")
        if self.rank == 0:
            empty_folder(temporary)
        self.barrier()
        self.strategy.save(temporary)
        torch.save(_random_state(), temporary / f"random-{self.rank}.pt")
        if self.rank == 0:
            torch.save({"weights": self.weights, "control": self.control}, temporary / "control.pt")
        self.barrier()
        if self.rank == 0:
            publish_folder(temporary, final, {"step": self.step, "world_size": self.world_size})
            checkpoints.prune(self.job.checkpoints, self.job.train.keep_checkpoints, self.step)
        self.barrier()

    def _resume(self, folder: Path) -> None:
        self.strategy.load(folder)
        states = torch.load(folder / "control.pt", weights_only=False)
        self.weights, self.control = states["weights"], states["control"]
        _set_random_state(torch.load(folder / f"random-{self.rank}.pt", weights_only=False))

    def export(self, folder: Path) -> None:
        """Write the model as a folder for `from_pretrained`; called by all ranks."""
        state = self.strategy.full_state()
        if self.rank == 0 and state is not None:
            adapt = [mitigation.adapt for mitigation in self.job.mitigations]
            export_model(self.job.model.path, self.job.tokenizer, state, folder, adapt, {"steps": self.job.steps})
        self.barrier()

    def agreed(self, value: bool) -> bool:
        """Rank 0's value on all ranks: files that change between two looks must not part them."""
        if self.world_size == 1:
            return value
        flag = torch.tensor([int(value)], device=self.device)
        dist.broadcast(flag, 0)
        return bool(flag.item())

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def train_worker(config: dict[str, TrainJob]) -> None:
    """Ray Train's function, `config["job"]` its job: from the newest valid checkpoint to the exported model."""
    import ray.train
    from ray.train.torch import get_device

    job = config["job"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    failed = job.files.failed
    if failed.is_file():
        # Ray Train restarts a failed worker; what failed with a sentence would fail again.
        raise ContinualError(failed.read_text())
    torch.set_num_threads(job.threads)
    try:
        worker = Worker(job, rank, world_size, get_device())
        records = Records(job.files.metrics, worker.step) if rank == 0 else None
        if worker.step < job.steps:
            shard = ray.train.get_dataset_shard("steps")
            batches = iter(shard.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=2))
            run_steps(worker, batches, records, job.files.stop)
        if worker.step >= job.steps:
            worker.export(job.export)
        step = worker.step
        # Ray Train destroys the process group next, which can hang for ever while a DDP object lives (torch 2.13).
        del worker
        gc.collect()
    except ContinualError as error:
        write_atomic(failed, str(error))
        raise
    ray.train.report({"step": step})


def run_steps(worker: Worker, batches: Any, records: Records | None, stop_file: Path) -> None:
    """Optimizer steps until the stage's last, or until somebody puts down `stop_file`."""
    job = worker.job
    while worker.step < job.steps:
        started = time.perf_counter()
        arrays = next(batches)
        waited = time.perf_counter() - started
        if int(arrays["step"][0]) != worker.step:
            raise ContinualError(f"the data delivered step {int(arrays['step'][0])} where {worker.step} was due")
        record, stopping = worker.train_step(to_batch(job.streams, arrays), stop_file.exists())
        record |= {"rows": rows_hash(arrays, worker), "data_wait": waited}
        due = job.evaluate_every and worker.step % job.evaluate_every == 0
        if due or worker.controlled() or worker.step == job.steps:
            record["drift"] = worker.drift()
            worker.adjust(record["drift"])
        record["seconds"] = time.perf_counter() - started
        if records:
            records.append(record)
        if due and worker.step < job.steps:
            export = checkpoints.step_folder(job.files.evaluations, worker.step)
            # After a resume the step may be scored, or be just read by the evaluation: equal weights, so left alone.
            there = job.files.score_file(worker.step).exists() or folder_damage(export) is None
            if not worker.agreed(there):
                worker.export(export)
        if stopping or worker.step % job.train.checkpoint_every == 0 or worker.step == job.steps:
            worker.checkpoint()
        if stopping:
            return


def _seed(seed: int, rank: int) -> None:
    random.seed(seed + rank)
    np.random.seed((seed + rank) % (1 << 32))
    torch.manual_seed(seed + rank)


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
