"""The sequence's YAML as pydantic models. Imports neither torch nor ray: a mistake is answered in a second."""

import warnings
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from continual.contract.base import Strict, Version
from continual.contract.mitigation import Mitigation
from continual.contract.registry import ENGINES, MITIGATIONS, SCHEDULES
from continual.contract.source import SourceItem
from continual.forgetting import as_limits

NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?$"
LONGEST_NAME = 128
"""Characters of a name: with what is put around it, it must remain a file name (255 bytes)."""
TAKEN = ("store", "mlartifacts")
"""Folders of a storage that are not runs."""
LEAST_PART = 0.0001
"""The smallest part of a CPU or GPU that Ray reserves."""

Name = Annotated[str, Field(pattern=NAME, max_length=LONGEST_NAME)]


def _reservable(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"Ray reserves a part of one GPU or whole ones, not {gpus:g}; write a whole number")
    if 0 < gpus < LEAST_PART:
        raise ValueError(f"Ray reserves no less than {LEAST_PART:g} of a GPU; write 0 for none")
    return gpus


Gpus = Annotated[float, Field(ge=0), AfterValidator(_reservable)]


class ModelSource(Strict):
    """`pretrained`: a local folder or hub id. `python`: a function that builds a randomly initialized model."""

    usual: ClassVar[dict[str, str]] = {
        "path": "source", "name": "source", "name_or_path": "source", "model_name_or_path": "source", "id": "source",
        "torch_dtype": "dtype", "precision": "dtype", "function": "build", "kwargs": "arguments",
        "attn_implementation": "attention", "attn": "attention",
    }  # fmt: skip

    type: Literal["pretrained", "python"] = Field(description="a model that exists, or one with random weights")
    source: str | None = Field(None, description="pretrained: folder or hub id")
    build: str | None = Field(None, description='python: "module:function" that returns a transformers model')
    tokenizer: str | None = Field(None, description='python: a tokenizer folder, or "module:function"')
    arguments: dict[str, Any] = Field(default_factory=dict, description="python: keyword arguments of `build`")
    version: Version = Field(
        None,
        exclude_if=lambda given: given is None,
        description="python: yours; change it when what `build` reads by itself has changed: no file shows that",
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of training and of sampling")
    # Runs that were begun before there was this key, and `train.compile`, have none in their configuration.
    attention: Literal[
        "auto", "sdpa", "eager", "by_document", "flash_attention_2", "flash_attention_3", "flex_attention"
    ] = Field(
        "auto",
        exclude_if=lambda given: given == "auto",
        description="what training computes attention with; auto: by_document on CPUs, on GPUs a kernel for packed "
        "documents, or else sdpa",
    )

    @model_validator(mode="after")
    def _check(self) -> "ModelSource":
        if self.type == "pretrained" and not self.source:
            raise ValueError("a pretrained model needs `source`, a folder or a hub id")
        if self.type == "python" and not (self.build and ":" in self.build and self.tokenizer):
            raise ValueError('a python model needs `build: "module:function"` and `tokenizer`')
        return self


class EvaluationTask(Strict):
    """One lm-eval task, as a mapping or as its name alone.

    A tag of lm-eval (`ai2_arc`) stands for the tasks that have it. A metric is also taken as lm-eval prints it:
    `acc,none` is the metric `acc` with the filter `none`.
    """

    name: str = Field(description="as lm-eval lists it")
    metric: str | None = Field(None, description="null: its only metric, or the usual one of several")
    filter: str | None = Field(None, description="null: `none`, or the first filter that lm-eval reports")

    @model_validator(mode="before")
    @classmethod
    def _as_printed(cls, value: Any) -> Any:
        metric = value.get("metric") if isinstance(value, dict) else None
        if not isinstance(metric, str) or "," not in metric:
            return value
        name, _, printed = (part.strip() for part in metric.partition(","))
        if not name or not printed or value.get("filter") not in (None, printed):
            problem = f"`{metric}` names a metric and a filter, and `filter` is {value.get('filter')}"
            raise ValueError(f"{problem}; write the metric alone")
        return {**value, "metric": name, "filter": printed}


def _as_task(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Beta = Annotated[float, Field(ge=0, lt=1)]
Task = Annotated[EvaluationTask, BeforeValidator(_as_task)]
EngineName = Annotated[str, AfterValidator(ENGINES.check)]
MitigationItem = Annotated[SerializeAsAny[Mitigation], BeforeValidator(MITIGATIONS.build)]


class Stage(Strict):
    usual: ClassVar[dict[str, str]] = {
        "dataset": "data", "max_steps": "steps", "num_train_epochs": "epochs", "num_epochs": "epochs",
        "mitigations": "mitigation",
    }  # fmt: skip

    name: Name = Field(description="names the stage and its folder")
    data: SourceItem = Field(description="what the stage trains on")
    tasks: list[Task] = Field(default_factory=list, description="tasks or texts that this stage is to learn")
    start_token: str | None = Field(None, description="what an unconditional sample of this task begins with")
    steps: int | None = Field(None, ge=1, description="optimizer steps")
    epochs: float | None = Field(None, gt=0, le=1_000_000, description="passes over the data, instead of steps")
    mitigation: list[MitigationItem] | None = Field(None, description="replaces the sequence's list in this stage")

    @model_validator(mode="after")
    def _check(self) -> "Stage":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either `steps` or `epochs`")
        return self


class Train(Strict):
    renamed: ClassVar[dict[str, str]] = {"clip": "max_grad_norm"}
    usual: ClassVar[dict[str, str]] = {
        "lr": "learning_rate", "peak_lr": "learning_rate", "wd": "weight_decay", "eps": "epsilon",
        "adam_epsilon": "epsilon", "adam_betas": "betas", "grad_clip": "max_grad_norm",
        "gradient_clipping": "max_grad_norm", "grad_norm": "max_grad_norm", "scheduler": "schedule",
        "lr_schedule": "schedule", "lr_scheduler": "schedule", "lr_scheduler_type": "schedule",
        "warmup": "warmup_steps", "num_warmup_steps": "warmup_steps", "batch_size": "batch_tokens",
        "train_batch_size": "batch_tokens", "per_device_train_batch_size": "micro_rows",
        "micro_batch_size": "micro_rows", "gradient_accumulation_steps": "micro_rows", "max_seq_length": "row_tokens",
        "max_seq_len": "row_tokens", "max_length": "row_tokens", "seq_length": "row_tokens", "seq_len": "row_tokens",
        "block_size": "row_tokens", "cutoff_len": "row_tokens", "sequence_len": "row_tokens", "bf16": "precision",
        "fp16": "precision", "mixed_precision": "precision", "dtype": "precision", "num_workers": "workers",
        "world_size": "workers", "num_gpus": "workers", "save_steps": "checkpoint_every", "logging_steps": "log_every",
        "save_total_limit": "keep_checkpoints", "zero": "zero_stage",
        "gradient_checkpointing": "activation_checkpointing", "torch_compile": "compile",
    }  # fmt: skip

    workers: int = Field(1, ge=1, description="Ray Train workers")
    strategy: Literal["ddp", "fsdp", "deepspeed"] = Field(
        "ddp", description="how a step is spread over the workers; ddp: whole models; fsdp: a part of each weight"
    )
    zero_stage: Literal[1, 2, 3] = Field(2, description="deepspeed: ZeRO stage")
    deepspeed: dict[str, Any] | str | None = Field(None, description="deepspeed: JSON (inline or path) merged in")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast; float32: TF32 on GPUs"
    )
    learning_rate: float = Field(1e-5, gt=0, description="the highest rate of a stage, after its warm-up")
    schedule: Annotated[str, AfterValidator(SCHEDULES.check)] = Field(
        "constant",
        description="the rate after the warm-up: constant; linear or cosine, which fall to 0 at the end of the stage; "
        "or `module:function` of the progress (0 to 1) that returns a factor",
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the rate rises linearly to `learning_rate`")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="of AdamW")
    epsilon: float = Field(1e-8, gt=0, description="of AdamW")
    max_grad_norm: float | None = Field(1.0, gt=0, description="largest gradient norm; null: no clipping")
    batch_tokens: int = Field(16384, ge=1, description="the task's tokens per optimizer step, over all workers")
    row_tokens: int = Field(256, ge=2, description="tokens per packed row")
    micro_rows: int | None = Field(None, ge=1, description="rows per forward pass of a worker; null: all at once")
    activation_checkpointing: bool = Field(
        False, description="keep only the layers' inputs for the backward pass, which runs every layer again"
    )
    compile: bool = Field(
        False, exclude_if=lambda given: not given, description="compile each layer with torch.compile; ddp and fsdp"
    )
    loss_chunk_tokens: int | None = Field(
        None,
        ge=1,
        description="positions whose logits exist at one time; null: so many that these take 256 MiB, at least 512",
    )
    log_every: int = Field(
        1, ge=1, description="steps between two looks at the losses of all of them: for each a worker waits for its GPU"
    )
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints inside a stage")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept inside a stage")
    max_failures: int = Field(2, ge=0, description="worker failures survived within a stage")
    gpus_per_worker: Gpus = Field(0.0, description="GPUs that a worker reserves; 0: it trains on CPUs")
    cpus_per_worker: float | None = Field(
        None,
        ge=LEAST_PART,
        description="CPUs that a worker reserves; null: an equal part of what the cluster has, less one",
    )

    @model_validator(mode="after")
    def _check(self) -> "Train":
        if self.batch_tokens % self.row_tokens:
            lower = max(self.row_tokens, self.batch_tokens // self.row_tokens * self.row_tokens)
            raise ValueError(f"`batch_tokens` must be a multiple of `row_tokens` ({self.row_tokens}), e.g. {lower}")
        if self.deepspeed is not None and self.strategy != "deepspeed":
            raise ValueError("`deepspeed` needs `strategy: deepspeed`")
        return self

    @property
    def batch_rows(self) -> int:
        return self.batch_tokens // self.row_tokens


class Generate(Strict):
    engine: EngineName = Field("vllm", description="what samples the models: vllm, transformers, or `module:Class`")
    replicas: int = Field(1, ge=1, description="engines that sample at the same time")
    gpus_per_replica: Gpus = Field(0.0, description="GPUs that an engine reserves; 0: it samples on CPUs")
    cpus_per_replica: float = Field(1.0, ge=LEAST_PART, description="CPUs that an engine reserves")
    shard_samples: int = Field(512, ge=1, description="samples per stored shard, the unit of resume")
    batch_size: int = Field(
        64,
        ge=1,
        description="requests handed to an engine at a time; transformers: samples of one batch, whose seed they share",
    )
    max_failed: float = Field(0.01, ge=0, le=1, description="largest tolerated share of failed requests")
    engine_arguments: dict[str, Any] = Field(default_factory=dict, description="vLLM engine arguments, merged in")
    delivery: Literal["auto", "stream", "store"] = Field(
        "auto", description="stream: a stage trains while its samples are made; store: after that; auto: by resources"
    )
    ahead: int | None = Field(
        None, ge=1, description="stream: shards of rows that an engine may be ahead of the training; null: any number"
    )
    still_seconds: float = Field(
        1800.0, gt=0, description="seconds without a sample, also before the first one, after which the run ends"
    )


class Text(Strict):
    """A text whose loss in nats per token is measured; its score is the negated loss."""

    name: Name = Field(description="names the score")
    data: SourceItem = Field(description="where the text is")
    # A run that was begun before there was this key has none in its configuration.
    drift: bool = Field(
        False,
        exclude_if=lambda given: not given,
        description="also measure the drift on it: the KL from the start model and from the one the stage began with",
    )


class Evaluate(Strict):
    usual: ClassVar[dict[str, str]] = {
        "tasks": "old_tasks", "fewshot": "num_fewshot", "shots": "num_fewshot", "eval_steps": "every",
        "chat_template": "apply_chat_template", "eval_batch_size": "batch_size", "engine": "backend",
    }  # fmt: skip

    old_tasks: list[Task] = Field(default_factory=list, description="abilities that the start model has")
    texts: list[Text] = Field(default_factory=list, description="texts that the start model knows, in nats per token")
    every: int | None = Field(None, ge=1, description="also every so many steps inside a stage")
    include_path: str | None = Field(None, description="folder with lm-eval task YAML files")
    limit: int | None = Field(None, ge=1, description="documents per lm-eval task")
    num_fewshot: int | None = Field(None, ge=0, description="examples before each question; null: as the task says")
    apply_chat_template: bool = Field(False, description="ask through the model's chat template")
    batch_size: int = Field(64, ge=1, description="documents at a time; vllm has its own")
    seed: int = Field(1234, ge=0, description="of lm-eval, e.g. for the choice of examples")
    # A run that was begun before there was this key has none in its configuration.
    backend: Literal["hf", "vllm"] = Field(
        "hf",
        exclude_if=lambda given: given == "hf",
        description="what lm-eval runs its tasks with: transformers or vLLM; texts are always read with transformers",
    )
    gpus: Gpus | None = Field(
        None,
        description="GPUs that an evaluating process reserves; 0: it runs on CPUs; null: 1 where that fits beside what "
        "runs at the same time, else 0",
    )
    replicas: int = Field(1, ge=1, description="evaluating processes at the same time")
    overlap: Literal["auto"] | bool = Field(
        "auto", description="score a stage while the next one samples and trains; auto: where both fit at one time"
    )
    max_forgetting: dict[str, float] | None = Field(
        None,
        description="largest losses that are allowed, by task, text or figure, each in its own unit; `default`, or a "
        "number alone: of `forgetting` and `forgetting_old`. Beyond one of them, and beyond its error, the command "
        "ends with code 3",
    )

    @field_validator("max_forgetting", mode="before")
    @classmethod
    def _one_limit(cls, given: Any) -> Any:
        return as_limits(given)

    @model_validator(mode="after")
    def _check(self) -> "Evaluate":
        if self.backend == "vllm" and self.reserved_gpus > 1:
            raise ValueError("with `backend: vllm` a process evaluates on one GPU; write `gpus: 1`, or more `replicas`")
        return self

    @property
    def reserved_gpus(self) -> float:
        """GPUs of an evaluating process; 0 before they are chosen, which `preflight.placement` does."""
        return self.gpus or 0.0


with warnings.catch_warnings():
    # The `register` that pydantic says is shadowed belongs to ABCMeta, and nobody registers subclasses of Track.
    warnings.filterwarnings("ignore", 'Field name "register"', UserWarning)

    class Track(Strict):
        usual: ClassVar[dict[str, str]] = {
            "tracking_uri": "uri", "url": "uri", "experiment_name": "experiment", "project": "experiment",
        }  # fmt: skip

        enabled: bool = Field(True, description="false: nothing goes to MLflow")
        uri: str | None = Field(None, description="MLflow tracking URI; null: sqlite:///<storage>/mlflow.db")
        experiment: str | None = Field(None, description="null: `continual`, for all runs of a storage")
        tags: dict[str, str] = Field(default_factory=dict, description="further tags of the run")
        params: dict[str, str] = Field(default_factory=dict, description="further parameters of the run")
        register: str | None = Field(
            None,
            pattern=NAME,
            max_length=LONGEST_NAME,
            description="registered model that gets every stage's model as a version; null: none",
        )


class Sequence(Strict):
    usual: ClassVar[dict[str, str]] = {
        "output_dir": "storage", "methods": "mitigation", "evaluation": "evaluate", "training": "train",
        "sampling": "generate", "tracking": "track", "mlflow": "track",
    }  # fmt: skip

    name: Name = Field(description="names the run and its folder, <storage>/<name>")
    seed: int = Field(0, ge=0, description="decides random weights, samples, and the order of rows")
    storage: str = Field("runs", description="where runs and the shared store live")
    model: ModelSource = Field(description="the start model")
    stages: list[Stage] = Field(min_length=1, description="the tasks, learned one after another")
    mitigation: list[MitigationItem] = Field(
        default_factory=list, description="methods against forgetting, applied together; []: plain fine-tuning"
    )
    train: Train = Field(default_factory=Train, description="training")
    generate: Generate = Field(default_factory=Generate, description="sampling")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="what is scored")
    track: Track = Field(default_factory=Track, description="MLflow")

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in TAKEN or name.startswith("mlflow.db"):
            what = "a folder" if name in TAKEN else "a file"
            raise ValueError(f"`{name}` is {what} of the storage itself; choose another name")
        return name

    @field_validator("stages")
    @classmethod
    def _distinct(cls, stages: list[Stage]) -> list[Stage]:
        names = [stage.name for stage in stages]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled or "start" in names:
            bad = doubled[0] if doubled else "start"
            raise ValueError(f"the name `{bad}` is taken; every stage needs its own (`start` is stage 0)")
        return stages

    def mitigations(self, stage: int) -> list[Mitigation]:
        """Return the mitigations of stage `stage` (1-based): its own list if it has one, else the sequence's."""
        own = self.stages[stage - 1].mitigation
        return list(self.mitigation if own is None else own)
