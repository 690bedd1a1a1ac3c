"""What a plan and a check say of `model.attention` and `train.compile`, on a machine without a GPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from continual.config.load import load_sequence
from continual.errors import ConfigurationError
from continual.models import attention
from continual.models.by_document import Documents, documents_of
from continual.models.forward import check_head
from continual.preflight.attention import attention_in_words, loaded_attention
from continual.preflight.check import check
from continual.preflight.plan import make_plan
from tests.kits.weights import change_config

GPU = ["train.gpus_per_worker=1", "train.precision=bfloat16"]


@pytest.fixture
def cluster(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project for a cluster that may have GPUs, with flash attention 2 installed; its model has heads of 16."""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(attention, "installed", lambda name: name == "flash_attention_2")
    return project


@pytest.mark.parametrize("name", ["flash_attention_2", "flex_attention"])
def test_a_kernel_of_gpus_is_refused_where_cpus_train(project: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"model\.attention: .* the workers train on CPUs; write auto"):
        check(load_sequence("seq.yaml", [f"model.attention={name}"]))


def test_a_misspelled_one_is_refused_with_the_nearest(project: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean `flash_attention_2`"):
        load_sequence("seq.yaml", ["model.attention=flash_attention2"])


def test_what_the_workers_have_to_try_is_said(cluster: Path) -> None:
    loaded = load_sequence("seq.yaml", [*GPU, "model.attention=flash_attention_2"])
    assert any("the workers check on their GPUs" in note and "`flash_attention_2`" in note for note in check(loaded))
    with pytest.raises(ConfigurationError, match=r"`flash-attn-3`, which is not installed"):
        check(load_sequence("seq.yaml", [*GPU, "model.attention=flash_attention_3"]))


def test_the_plan_says_which_it_is_and_why(cluster: Path) -> None:
    facts = make_plan(load_sequence("seq.yaml", GPU)).facts
    assert facts["attention"] == "flash_attention_2 (it needs no mask of tokens x tokens for packed documents)"
    other = make_plan(load_sequence("seq.yaml", ["train.gpus_per_worker=1"])).facts["attention"]
    assert other.startswith("flex_attention (")
    change_config(cluster / "model", attention_dropout=0.1)
    told = make_plan(load_sequence("seq.yaml", ["train.gpus_per_worker=1"])).facts["attention"]
    assert told.startswith("sdpa (`flash_attention_3` computes in bfloat16, and `train.precision` is float32; ")
    assert told.endswith("`flex_attention` draws no dropout, and the model has `attention_dropout: 0.1`)")
    assert "attention" not in make_plan(load_sequence("seq.yaml")).facts
    named = load_sequence("seq.yaml", [*GPU, "model.attention=sdpa"]).sequence
    assert attention_in_words(named) == {"attention": "sdpa (as configured)"}


def test_workers_load_it_by_name_only_where_it_is_not_transformers_choice(cluster: Path) -> None:
    def loaded(*changes: str) -> str:
        return loaded_attention(load_sequence("seq.yaml", list(changes)).sequence, str(cluster / "model"))

    assert loaded("model.attention=sdpa") == loaded(*GPU, "model.attention=sdpa") == ""
    assert loaded("train.compile=true") == ""
    assert loaded() == loaded("model.attention=by_document") == "by_document"
    assert loaded("model.attention=eager") == "eager"
    assert loaded(*GPU) == "flash_attention_2"


def test_a_run_without_the_keys_is_the_same_run(project: Path) -> None:
    plain = load_sequence("seq.yaml")
    same = load_sequence("seq.yaml", ["model.attention=auto", "train.compile=false"])
    other = load_sequence("seq.yaml", ["model.attention=eager"])
    assert same.identity == plain.identity != other.identity
    assert "attention" not in json.dumps(plain.resolved)
    assert "compile" not in plain.resolved["train"]
    assert load_sequence("seq.yaml", ["train.compile=true"]).identity != plain.identity


def test_a_named_one_that_cpus_have_is_what_the_check_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def checked(model: Any, tokens: int = 2) -> None:
        seen.append(attention.attention_of(model))
        check_head(model, tokens)

    monkeypatch.setattr("continual.models.forward.check_head", checked)
    change_config(project / "model", initializer_range=0.021)  # another model than those that were checked before
    check(load_sequence("seq.yaml", ["model.attention=eager"]))
    assert set(seen) == {"eager"}


@pytest.mark.parametrize("asked", [[], ["model.attention=by_document"]])
def test_documents_that_see_each_other_are_found_before_anything_starts(
    project: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """As of a class that does not hand the documents on to its attention."""
    change_config(project / "model", initializer_range=0.022)

    def whole_rows(positions: torch.Tensor) -> Documents:
        return documents_of(torch.arange(positions.shape[1]).expand(positions.shape))

    monkeypatch.setattr("continual.models.forward.documents_of", whole_rows)
    with pytest.raises(ConfigurationError, match=r"apart with `by_document`; write `model\.attention: sdpa`"):
        check(load_sequence("seq.yaml", asked))
    check(load_sequence("seq.yaml", ["model.attention=sdpa"]))


def test_compile_is_refused_where_it_cannot_be(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"train\.compile: .*DeepSpeed.*; write false"):
        check(load_sequence("seq.yaml", ["train.compile=true", "train.strategy=deepspeed"]))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigurationError, match=r"train\.compile: .*C\+\+ compiler, and there is no no-such-compiler"):
        check(load_sequence("seq.yaml", ["train.compile=true"]))
    monkeypatch.setenv("CXX", "python3")
    check(load_sequence("seq.yaml", ["train.compile=true"]))


def test_dropout_is_named_where_a_kernel_draws_none(cluster: Path) -> None:
    change_config(cluster / "model", attention_dropout=0.1)
    with pytest.raises(ConfigurationError, match=r"`flex_attention` draws no dropout, .*`attention_dropout: 0.1`"):
        check(load_sequence("seq.yaml", [*GPU, "model.attention=flex_attention"]))
