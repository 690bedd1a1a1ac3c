"""A worker's life in Ray Train: resume, steps, drift, control, checkpoints, export."""

import gc
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from continual.contract.mitigation import Mitigation
from continual.errors import ContinualError, describe, one_line, redacted, remember
from continual.ledger.records import Records
from continual.models import load_model, load_tokenizer
from continual.models.attention import use_attention
from continual.models.ends import answer_ends
from continual.models.export import export_model
from continual.models.forward import check_head, vocabulary_size
from continual.models.load import import_loading
from continual.models.recompute import recompute_layers
from continual.models.trainable import freeze_unreached
from continual.store import empty_folder, folder_damage, publish_folder, write_atomic
from continual.training import checkpoints
from continual.training.backlog import wait_for_scores
from continual.training.batch import Batch, rows_hash, to_batch
from continual.training.compiled import compile_layers
from continual.training.drift import Drift, drift_record, measured_drift
from continual.training.frozen import load_teachers
from continual.training.ingest import begun, ordered_batches
from continual.training.isolation import check_isolation
from continual.training.job import TrainJob
from continual.training.module import LossModule
from continual.training.penalties import load_penalties
from continual.training.precision import all_bits, round_products
from continual.training.random_state import random_state, seed_generators, set_random_state
from continual.training.resources import chunk_positions
from continual.training.step import Stepper, micro_batches
from continual.training.strategies import build_strategy, spreads_weights
from continual.training.strategies.base import writers


class Worker:
    """One rank's training state, resumed from a checkpoint. `step` counts the optimizer steps done.

    `begin` has step and folder of the checkpoint, see `checkpoints.newest_valid`, which finds it if it is not given.
    """

    def __init__(
        self,
        job: TrainJob,
        rank: int,
        world_size: int,
        device: torch.device,
        begin: tuple[int, Path | None] | None = None,
    ):
        self.job, self.rank, self.world_size, self.device = job, rank, world_size, device
        seed_generators(job.seed, rank)
        brings = rank == 0 or not spreads_weights(job.train)
        model = load_model(job.model.path, "float32", "cpu" if brings else "meta")
        if brings:
            check_head(model)
        if job.attention:
            use_attention(model, job.attention)
        for mitigation in job.mitigations:
            adapt(mitigation, model, job.seed, brings)
        freeze_unreached(model)
        if job.train.activation_checkpointing:
            recompute_layers(model, reentrant=job.train.strategy == "deepspeed" and job.train.zero_stage == 3)
        autocast = torch.bfloat16 if job.train.precision == "bfloat16" else None
        module = LossModule(model.train(), chunk_positions(job.train, vocabulary_size(model)), autocast)
        trained = {n: tuple(p.shape) for n, p in module.model.named_parameters() if p.requires_grad}
        passes = len(micro_batches(job, rank, world_size))
        self.strategy = build_strategy(job.train, module, device, world_size, passes)
        if job.attention or device.type != "cpu":
            with all_bits():
                check_isolation(self.strategy, device)
        round_products(device)
        teachers = load_teachers(job, module.model, rank, device)
        if job.train.compile:
            compile_layers([module.model, *(each for each in teachers.values() if isinstance(each, torch.nn.Module))])
        part = partial(self.strategy.part, device=device)
        penalties = load_penalties(job.penalties, trained, self.strategy.brings, part)
        # On a GPU the group of all ranks is NCCL's, in which no CPU can talk.
        self.talk = writers() if world_size > 1 and device.type != "cpu" else None
        self.stepper = Stepper(job, self.strategy, teachers, penalties, rank, world_size, device, self.talk)
        self.control: dict[str, dict[str, Any]] = {}
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._publishing: Future[None] | None = None
        self.step, checkpoint = begin or checkpoints.newest_valid(job.checkpoints)
        if checkpoint is not None:
            self._resume(checkpoint)

    def train_step(self, batch: Batch, stop: bool) -> tuple[dict[str, Any], bool]:
        """Make one optimizer step; return its record, and whether all ranks should stop after it.

        `read` completes the record.
        """
        record, stopping = self.stepper.run(self.step, batch, stop)
        self.step += 1
        return record, stopping

    def read(self) -> Iterator[dict[str, Any]]:
        """Wait for the device; return the whole records of the steps since the last call.

        The iterator raises ContinualError at the first step whose loss or gradient is not finite.
        """
        return self.stepper.unread.read()

    def reads_after(self, stopping: bool) -> bool:
        """Return whether the records are due: every `log_every` steps, and before the weights leave this process."""
        job = self.job
        leaves = stopping or self.step % job.train.checkpoint_every == 0 or self.step == job.last
        return self.stepper.spoiled or leaves or self.step % job.train.log_every == 0 or job.exports_after(self.step)

    def drift(self) -> dict[str, Drift]:
        """Return how far the model is from the teacher of each stream that has one, see `measured_drift`."""
        return measured_drift(self.stepper)

    def adjust(self, drift: dict[str, float]) -> None:
        """Let every controlling mitigation set the streams' coefficients from the drift; equal on all ranks."""
        measured = {f"drift/{name}": value for name, value in drift.items()}
        known = self.stepper.coefficients
        for number, mitigation in enumerate(self.job.mitigations):
            if mitigation.control_every and self.step % mitigation.control_every == 0:
                state = self.control.get(str(number), {})
                self.control[str(number)], changed = mitigation.control(state, measured)
                known |= {name: value for name, value in changed.items() if name in known}

    def measures(self) -> bool:
        """Return whether drift is measured after this step: for a score, a mitigation, or at the end of the stage."""
        wanted = self.job.evaluates_after(self.step) or self.step == self.job.steps
        return wanted or any(m.control_every and self.step % m.control_every == 0 for m in self.job.mitigations)

    def checkpoint(self) -> None:
        """Begin to write a checkpoint of this step, whole or not at all; called by all ranks.

        Its files are written, hashed and published while the next steps are made, see `settle`.
        """
        self.settle()
        final = checkpoints.step_folder(self.job.checkpoints, self.step)
        temporary = final.with_name(f".{final.name}.tmp")
        if self.rank == 0:
            empty_folder(temporary)
        self.barrier()
        torch.save(random_state(), temporary / f"random-{self.rank}.pt")
        if self.rank == 0:
            torch.save({"coefficients": self.stepper.coefficients, "control": self.control}, temporary / "control.pt")
        self.barrier()
        written, step = self.strategy.save(temporary), self.step

        def publish() -> None:
            written()
            if self.rank == 0:
                publish_folder(temporary, final, {"step": step, "world_size": self.world_size})
                checkpoints.prune(self.job.checkpoints, self.job.train.keep_checkpoints, step)

        self._publishing = self._publisher.submit(publish)

    def settle(self) -> None:
        """Wait until the last checkpoint is published; called by all ranks. Raises what went wrong with it."""
        if self._publishing is not None:
            self._publishing.result()
            self._publishing = None
            self.barrier()

    def _resume(self, folder: Path) -> None:
        self.strategy.load(folder)
        states = checkpoints.read_states(folder / "control.pt")
        # Streams may have ended or begun at this very step, where a part of the stage begins.
        known = self.stepper.coefficients
        known |= {name: value for name, value in states["coefficients"].items() if name in known}
        self.control = states["control"]
        # A rank that the checkpoint does not have stays as it was seeded: where ranks may change, nothing is drawn.
        if (drawn := folder / f"random-{self.rank}.pt").is_file():
            set_random_state(checkpoints.read_states(drawn))

    def export(self, folder: Path) -> None:
        """Write the model as a folder for `from_pretrained`; called by all ranks."""
        tensors = self.strategy.whole_tensors()
        if self.rank == 0:
            adapt = [partial(mitigation.adapt, seed=self.job.seed) for mitigation in self.job.mitigations]
            facts = {"steps": self.job.steps}
            ends = answer_ends(load_tokenizer(self.job.tokenizer), self.job.ends == "chat") if self.job.ends else ()
            export_model(self.job.model.path, self.job.tokenizer, tensors, folder, adapt, facts, ends)
        deque(tensors, maxlen=0)  # the other ranks help to gather them
        self.barrier()

    def agreed(self, value: bool) -> bool:
        """Return rank 0's value, so that ranks agree even if a file appears between their checks."""
        if self.world_size == 1:
            return value
        flag = torch.tensor([int(value)])
        dist.broadcast(flag, 0, group=self.talk)
        return bool(flag.item())

    def close(self) -> None:
        """Finish the last checkpoint, and give back what outlives the strategy's objects."""
        self.settle()
        self._publisher.shutdown()
        self.strategy.close()
        if self.talk is not None:
            dist.destroy_process_group(self.talk)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def adapt(mitigation: Mitigation, model: Any, seed: int, weights: bool) -> None:
    """Let a mitigation change the model, whose weights may be on the meta device: then without reading them."""
    try:
        mitigation.adapt(model, seed)
    except (NotImplementedError, RuntimeError) as error:
        if weights:
            raise
        problem = f"`{mitigation.label}` reads weights when it adapts the model, which only the first worker has"
        where = f"under fsdp and ZeRO-3 ({one_line(error)})"
        raise ContinualError(f"{problem} {where}; write `train.strategy: ddp`") from error


def train_worker(config: dict[str, Any]) -> None:
    """Train the stages that `config["handover"]`, an actor, hands over; Ray Train calls it per worker."""
    import ray
    import ray.train
    from ray.train.torch import get_device

    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    handover, done = config["handover"], -1
    import_loading()
    while handed := ray.get(handover.take.remote(rank, done)):
        done, pickled = handed
        if not train_stage(ray.cloudpickle.loads(pickled), rank, world_size, get_device()):
            break
    ray.train.report({})


def train_stage(job: TrainJob, rank: int, world_size: int, device: torch.device) -> bool:
    """Train one stage from its newest valid checkpoint to the exported model; return False if it was stopped."""
    remember([mitigation.model_dump(mode="json") for mitigation in job.mitigations])
    failed = job.files.failed
    if failed.is_file():
        # A ContinualError is deterministic: do not let Ray Train retry it.
        raise ContinualError(failed.read_text(encoding="utf-8", errors="replace"))
    torch.set_num_threads(job.threads)
    try:
        begin = checkpoints.newest_for_all(job.checkpoints, rank, world_size, device)
        left = range(begin[0], job.last)
        batches = ordered_batches(job.streams, job.seed, left, rank, world_size)
        with begun(batches) if left else nullcontext(()) as arrays:
            worker = Worker(job, rank, world_size, device, begin)
            records = Records(job.files.metrics, worker.step) if rank == 0 else None
            run_steps(worker, iter(arrays), records, job.files.stop)
        ended = worker.step >= job.last
        if ended:
            worker.export(job.export)
        worker.close()
        # Ray Train destroys the process group at the end, which can hang while a DDP object lives (torch 2.13); and
        # the next stage needs the memory.
        del worker
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    except ContinualError as error:
        # An error from a task that reads rows comes wrapped, with the task's traceback as its text.
        write_atomic(failed, redacted(describe(error)))
        raise
    return ended


def run_steps(worker: Worker, batches: Any, records: Records | None, stop_file: Path) -> None:
    """Make optimizer steps until the last of the stage or of its part, or until `stop_file` exists."""
    job, made, spent = worker.job, list[dict[str, Any]](), 0.0
    while worker.step < job.last:
        started = time.perf_counter()
        held_up = wait_for_scores(job, worker.step + 1, worker.agreed)
        asked = time.perf_counter()
        arrays = next(batches)
        waited = time.perf_counter() - asked
        if int(arrays["step"][0]) != worker.step:
            raise ContinualError(f"the data delivered step {int(arrays['step'][0])} where {worker.step} was due")
        try:
            record, stopping = worker.train_step(to_batch(job.streams, arrays), stop_file.exists())
        except ContinualError:
            write(worker.read(), made, spent, records)
            raise
        record |= {"rows": rows_hash(arrays, job.streams, worker.world_size, worker.talk), "data_wait": waited}
        if held_up:
            record["evaluation_wait"] = held_up
        if worker.measures() and not worker.stepper.spoiled:
            record |= drift_record(worker.drift())
            worker.adjust(record["drift"])
        made.append(record)
        due = worker.reads_after(stopping)
        read = worker.read() if due else iter(())
        spent += time.perf_counter() - started
        if due:
            write(read, made, spent, records)
            made, spent = [], 0.0
        if job.exports_after(worker.step):
            export = job.files.export(worker.step)
            # After a resume the step may have been scored, or the evaluation may be reading it. The weights are equal.
            exists = job.files.score_file(worker.step).exists() or folder_damage(export) is None
            if not worker.agreed(exists):
                worker.export(export)
        if stopping or worker.step % job.train.checkpoint_every == 0 or worker.step == job.last:
            worker.checkpoint()
        if stopping:
            return


def write(
    read: Iterator[dict[str, Any]], made: Sequence[dict[str, Any]], spent: float, records: Records | None
) -> None:
    """Write the records of the steps `made`, which are whole as they are `read`.

    Each gets its part of the seconds `spent` on all: what the device computes for one falls into the time of others.
    """
    for record in made:
        record["seconds"] = spent / len(made)
    for record in read:
        if records:
            records.append(record)
