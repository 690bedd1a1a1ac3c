"""Which attention a sequence trains with: chosen by the driver, from what the workers are to have, for all of them."""

from pathlib import Path

from continual.config.schema import Sequence
from continual.models.attention import (
    BY_DOCUMENT,
    EAGER,
    KERNELS,
    Attention,
    Workers,
    check_wanted,
    default_of,
    resolve,
)
from continual.preflight.model_facts import read_model


def workers_of(sequence: Sequence) -> Workers:
    return Workers(bool(sequence.train.gpus_per_worker), sequence.train.precision, sequence.train.compile)


def training_attention(sequence: Sequence, folder: str | Path) -> Attention:
    """Return the attention that trains the model in `folder`. Raise ConfigurationError if a named one cannot."""
    from continual.models.architecture import model_class, read_config

    config = read_config(str(folder))
    return resolve(sequence.model.attention, workers_of(sequence), model_class(str(folder), config), config)


def loaded_attention(sequence: Sequence, folder: str) -> str:
    """Return what the workers load the model in `folder` with, "" where that is transformers' own choice.

    Results and their addresses are then those of a version that did not choose.
    """
    from continual.models.architecture import model_class, read_config

    name = training_attention(sequence, folder).name
    return "" if name == default_of(model_class(folder, read_config(folder))) else name


def checked_attention(sequence: Sequence, folder: str | Path) -> str:
    """Return what the checks before the first step run a model with, on a CPU; "" is transformers' own choice."""
    if sequence.model.attention == EAGER:
        return EAGER
    on_cpus = not sequence.train.gpus_per_worker
    return BY_DOCUMENT if on_cpus and training_attention(sequence, folder).name == BY_DOCUMENT else ""


def check_attention(sequence: Sequence) -> list[str]:
    """Return a note if only the workers can try the kernel. Raise ConfigurationError for one that they cannot have.

    Imports torch and transformers. Of a model that is built or downloaded by the run the class is checked when it is
    there.
    """
    check_wanted(sequence.model.attention, workers_of(sequence))
    folder = read_model(sequence.model)[0].folder
    if folder is None:
        return []
    name = training_attention(sequence, folder).name
    apart = f"the workers check on their GPUs, before the first step, that packed documents stay apart under `{name}`"
    return [apart] * (name in KERNELS)


def attention_in_words(sequence: Sequence) -> dict[str, str]:
    """Return what a plan says of the attention, {} where nothing is to be said: nobody chose, and there is no GPU."""
    wanted = sequence.model.attention
    if wanted == "auto" and not sequence.train.gpus_per_worker:
        return {}
    folder = read_model(sequence.model)[0].folder
    if folder is None:
        return {"attention": "auto, decided when the model is there" if wanted == "auto" else wanted}
    chosen = training_attention(sequence, folder)
    return {"attention": f"{chosen.name} ({chosen.why})"}
