"""Bad configurations and inputs: each ends in one sentence with file, key path and fix, before a run starts."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from tokenizers import Tokenizer

from continual.config.load import load_sequence
from continual.contract.mitigation import Mitigation
from continual.contract.source import Source, SourceItem
from continual.contract.view import StageView
from continual.errors import ConfigurationError
from continual.preflight.check import check
from tests.kits.project import write_lines, write_model, write_yaml

HERE = __name__


class Refusing(Mitigation):
    """A third party's mitigation that objects, or names a source."""

    type: str
    data: SourceItem | None = None
    ratio: float | None = None
    start: Literal["bos", "template", "tasks"] | None = None

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        return None if self.data or self.ratio or self.start else "it never works; remove it"

    def replay_ratio(self) -> float:
        return self.ratio or 0.0

    def sample_start(self) -> str | None:
        return self.start

    def data_sources(self) -> Mapping[str, Source]:
        return {"data": self.data} if self.data else {}


def rows_good() -> Iterator[dict[str, str]]:
    yield {"text": "w1 w2"}


def rows_none() -> Iterator[dict[str, str]]:
    yield from ()


def rows_text() -> Iterator[str]:
    yield "w1"


def rows_wrong_key() -> Iterator[dict[str, str]]:
    yield {"txt": "w1"}


def rows_broken() -> Iterator[dict[str, str]]:
    raise RuntimeError("no\nluck")
    yield {}


def tokenizer_wrong() -> Tokenizer:
    return Tokenizer.from_str("{}")


class Case:
    """What is changed in a good project, and what the message must hold: the key and words of the fix."""

    def __init__(self, name: str, key: str, fix: str, *overrides: str, make: Callable[[Path], Any] | None = None):
        self.name, self.key, self.fix, self.overrides, self.make = name, key, fix, overrides, make


def data(**source: Any) -> str:
    return f"stages.0.data={json.dumps(source)}"


def write(name: str, content: str | bytes) -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def lines(name: str, *documents: Any) -> Callable[[Path], Any]:
    return lambda folder: write_lines(folder / name, list(documents))


def model(**special: Any) -> Callable[[Path], Any]:
    return lambda folder: write_model(folder / "model", **special)


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def text(content: str) -> Callable[[Path], Any]:
    return lambda folder: write_yaml(folder, content)


def parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"body": ["w1 w2"]}), folder / "x.parquet")


def saved_splits(folder: Path) -> None:
    write("hub/dataset_dict.json", json.dumps({"splits": ["train", "test"]}))(folder)


CHAT = [{"role": "user", "content": "w1"}]
REFUSING = f'mitigation=[{{type: "{HERE}:Refusing"}}]'
CASES = [
    # the file
    Case("empty file", "", "write keys", make=text("")),
    Case("a list", "", "write keys", make=text("- a\n- b\n")),
    Case("no yaml", "line 3", "correct the YAML", make=text("name: a\nstages: [\n")),
    Case("a key twice", "line 2", "keep one", make=text("name: a\nname: b\n")),
    Case("a key that is a number", "line 1", "quote it", make=text("1: a\n")),
    Case("contains itself", "line 1", "remove the alias", make=text("a: &x [*x]\n")),
    Case("no utf-8", "", "UTF-8", make=write("seq.yaml", b"name: \xff\n")),
    # keys and types
    Case("unknown section", "trian", "did you mean `train`?", make=text("trian: {}\n")),
    Case("unknown key", "train.learnin_rate", "did you mean `learning_rate`?", "train.learnin_rate=1"),
    Case("key of another section", "learning_rate", "`train.learning_rate`", "learning_rate=1"),
    Case("unknown key in a stage", "stages.0.step", "did you mean `steps`?", "stages.0.step=3"),
    Case("unknown key in a source", "stages.0.data.pth", "did you mean `path`?", "stages.0.data.pth=x"),
    Case("unknown key in a mitigation", "mitigation.0.wieght", "did you mean `weight`?", "mitigation.0.wieght=3"),
    Case("unknown mitigation", "mitigation.0", "did you mean `context_free`?", "mitigation.0.type=contextfree"),
    Case("mitigation without type", "mitigation.0", "e.g. {type:", "mitigation=[{ratio: 1}]"),
    Case("mitigation that cannot be imported", "mitigation.0", "on the path?", 'mitigation=[{type: "no.where:X"}]'),
    Case("wrong type", "train.workers", "write a whole number", "train.workers=two"),
    Case("wrong type of a section", "generate", "write a mapping", "generate=vllm"),
    Case("empty section", "train", "write a mapping", "train="),
    Case("wrong choice", "train.strategy", "did you mean `ddp`?", "train.strategy=dpp"),
    Case("out of range", "train.learning_rate", "greater than 0", "train.learning_rate=0"),
    Case("not finite", "train.learning_rate", "finite", "train.learning_rate=1e999"),
    Case("bad name", "name", "use letters", "name=a/b"),
    Case("reserved name", "name", "choose another", "name=store"),
    Case("no model", "model", "add `model:`",
         make=text("name: a\nstages: [{name: a, steps: 1, data: {type: text, path: x}}]")),
    Case("no stages", "stages", "give at least 1", "stages=[]"),
    Case("duplicate stage names", "stages", "every stage needs its own", "stages.1.name=one"),
    Case("steps and epochs", "stages.1", "either `steps` or `epochs`", "stages.1.steps=5"),
    Case("batch not of whole rows", "train", "multiple of `row_tokens`", "train.batch_tokens=100"),
    Case("half a format", "stages.0.data", "for running text", "stages.0.data.completion=null"),
    Case("no format", "stages.0.data", "name the column", data(type="jsonl", path="qa.jsonl")),
    # overrides
    Case("override without value", "", "write `key", "train.learning_rate"),
    Case("override of a missing position", "stages.7", "use one of them", "stages.7.steps=5"),
    Case("override inside a text", "name.x", "as a whole", "name.x=5"),
    Case("override that is no yaml", "train.workers", "quote it", "train.workers=["),
    # data
    Case("missing file", "stages.0.data.path", "correct the path", "stages.0.data.path=nothing.jsonl"),
    Case("empty file of data", "stages.0.data.path", "put data there", make=write("qa.jsonl", "")),
    Case("only blank lines", "stages.0.data.path", "put data there", make=write("qa.jsonl", "\n\n")),
    Case("empty folder", "stages.0.data.path", "put data there", "stages.0.data.path=none",
         make=lambda folder: (folder / "none").mkdir()),
    Case("no json", "stages.0.data.path", "one JSON object per line", make=write("qa.jsonl", "{'a': 1}\n")),
    Case("a broken json array", "stages.0.data.path", "write the file again",
         make=write("qa.jsonl", '[\n{"question": "a", "answer": "b"},\n{"question"\n')),
    Case("no object", "stages.0.data.path", "one JSON object", make=write("qa.jsonl", "3\n")),
    Case("damaged gzip", "stages.0.data.path", "replace", "stages.0.data.path=b.jsonl.gz",
         make=write("b.jsonl.gz", gzip.compress(b'{"question": "a", "answer": "b"}\n')[:-9])),
    Case("wrong field", "stages.0.data.completion", "did you mean `answer`?", "stages.0.data.completion=anwser"),
    Case("null in a field", "stages.0.data.completion", "column with text",
         make=lines("qa.jsonl", {"question": "a", "answer": None})),
    Case("no turns", "stages.0.data.messages", "write [{role",
         data(type="jsonl", path="qa.jsonl", messages="question")),
    Case("no chat template", "stages.0.data", "prompt", data(type="jsonl", path="c.jsonl", messages="m"),
         make=lines("c.jsonl", {"m": [*CHAT, {"role": "assistant", "content": "w2"}]})),
    Case("nothing to learn", "stages.0.data", "assistant", data(type="jsonl", path="c.jsonl", messages="m"),
         make=lambda f: (lines("c.jsonl", {"m": CHAT})(f), model(chat_template="{{ 1 }}")(f))),
    Case("wrong column", "stages.0.data.text", "body", data(type="parquet", path="x.parquet", text="text"),
         make=parquet),
    Case("no parquet", "stages.0.data.path", "correct `type`", data(type="parquet", path="qa.jsonl", text="text")),
    Case("binary text", "stages.0.data.path", "UTF-8", data(type="text", path="x.bin"),
         make=write("x.bin", b"\xff\xfe\x00")),
    Case("object storage of data", "stages.0.data.path", "shared file system", "stages.0.data.path=s3://b/x.jsonl"),
    Case("missing split", "stages.0.data.split", "did you mean `train`?",
         data(type="hub", path="hub", text="t", split="trian"), make=saved_splits),
    Case("no hub folder", "stages.0.data.path", "correct the path", data(type="hub", path="./hub", text="t")),
    Case("hub offline", "stages.0.data.path", "HF_HUB_OFFLINE", data(type="hub", path="owner/set", text="t")),
    Case("no module of rows", "stages.0.data.function", "project's root",
         data(type="python", function="nowhere.tasks:rows")),
    Case("no function of rows", "stages.0.data.function", "did you mean",
         data(type="python", function=f"{HERE}:rows_god")),
    Case("rows with other arguments", "stages.0.data.function", "it takes",
         data(type="python", function=f"{HERE}:rows_good", arguments={"task": 1})),
    Case("rows that fail", "stages.0.data.function", "correct the function",
         data(type="python", function=f"{HERE}:rows_broken")),
    Case("rows without any", "stages.0.data.function", "yield one dict",
         data(type="python", function=f"{HERE}:rows_none")),
    Case("rows that are no dicts", "stages.0.data.function", "yield one dict",
         data(type="python", function=f"{HERE}:rows_text")),
    Case("rows with a wrong key", "stages.0.data.function", "did you mean",
         data(type="python", function=f"{HERE}:rows_wrong_key")),
    # model
    Case("no model folder", "model.source", "correct the path", "model.source=./nothing"),
    Case("no config.json", "model.source", "save_pretrained", make=without("model/config.json")),
    Case("damaged config.json", "model.source", "copy the file", make=write("model/config.json", "{")),
    Case("no weights", "model.source", "model.safetensors", make=without("model/model.safetensors")),
    Case("weights cut short", "model.source", "copy it again",
         make=write("model/model.safetensors", b"\x40" + bytes(20))),
    Case("overlong weights", "model.source", "copy it again",
         make=lambda f: (f / "model/model.safetensors").open("ab").write(b"x")),
    Case("empty weights", "model.source", "copy it again", make=write("model/model.safetensors", b"")),
    Case("a pointer for weights", "model.source", "git lfs pull",
         make=write("model/model.safetensors", b"version https://git-lfs.github.com/spec/v1\n")),
    Case("no tokenizer", "model.source", "tokenizer.save_pretrained", make=without("model/tokenizer.json")),
    Case("hub model offline", "model.source", "unset HF_HUB_OFFLINE", "model.source=owner/model"),
    Case("vocabulary mismatch", "model.source", "model's own tokenizer", make=model(vocabulary=63)),
    Case("neither bos nor end", "mitigation.0.start", "start: tasks", make=model(bos_token=None, eos_token=None)),
    Case("template without one", "mitigation.0.start", "start: bos", "mitigation.0.start=template"),
    Case("evaluation template without one", "evaluate.apply_chat_template", "write false",
         "evaluate.apply_chat_template=true"),
    Case("start token of two", "stages.0.start_token", "name a token", "stages.0.start_token=w1 w2"),
    Case("rows longer than the model", "train.row_tokens", "at most 128", "train.row_tokens=256"),
    Case("head size for vllm", "generate.engine", "engine: transformers", "generate.engine=vllm",
         make=lambda f: write("model/config.json", '{"hidden_size": 64, "num_attention_heads": 8}')(f)),
    Case("no module of build", "model.build", "project's root",
         'model={type: python, build: "nowhere:build", tokenizer: "nowhere:tokenizer"}'),
    Case("no function of build", "model.build", "name one of its functions",
         f'model={{type: python, build: "{HERE}:zzzz", tokenizer: "{HERE}:tokenizer_wrong"}}'),
    Case("tokenizer of another form", "model.tokenizer", "correct the function",
         f'model={{type: python, build: "{HERE}:data", tokenizer: "{HERE}:tokenizer_wrong"}}'),
    # mitigations
    Case("the same twice", "mitigation.1", "another `name:`",
         "mitigation=[{type: context_free}, {type: context_free}]"),
    Case("the task's own name", "mitigation.0.name", "another `name:`", "mitigation.0.name=task"),
    Case("misspelled schedule", "train.schedule", "did you mean `cosine`", "train.schedule=cosin"),
    Case("ratio without whole rows", "mitigation.0.ratio", "write 0.25 or 0.375", "mitigation.0.ratio=0.3"),
    Case("an objection", "mitigation.0", "remove it", REFUSING),
    Case("a mitigation's missing data", "mitigation.0.data.path", "correct the path",
         f'mitigation=[{{type: "{HERE}:Refusing", data: {{type: text, path: nothing.txt}}}}]'),
    # evaluation
    Case("unknown task", "evaluate.old_tasks.0", "did you mean `arc_easy`?", "evaluate.old_tasks=[arc_esay]"),
    Case("task twice", "evaluate.old_tasks.1", "remove one", "evaluate.old_tasks=[arc_easy, arc_easy]"),
    Case("old and new", "evaluate.old_tasks.0", "remove one", "evaluate.old_tasks=[arc_easy]",
         "stages.0.tasks=[arc_easy]"),
    Case("nothing to evaluate", "evaluate.every", "remove the key", "evaluate.every=5"),
    Case("mixed units", "stages.1.tasks", "one unit", "stages.0.tasks=[{name: arc_easy, metric: acc}]",
         "stages.1.tasks=[{name: wikitext, metric: word_perplexity}]"),
    Case("head size for vllm that evaluates", "evaluate.backend", "evaluate.backend: hf", "evaluate.backend=vllm",
         "evaluate.old_tasks=[arc_easy]",
         make=lambda f: write("model/config.json", '{"hidden_size": 64, "num_attention_heads": 8}')(f)),
    Case("generation that vllm does not have", "evaluate.backend", "evaluate.backend: hf", "evaluate.backend=vllm",
         "evaluate.old_tasks=[arc_easy]", make=write("model/generation_config.json", '{"no_repeat_ngram_size": 3}')),
    Case("two GPUs for vllm", "evaluate", "gpus: 1", "evaluate={backend: vllm, gpus: 2}"),
    Case("no include path", "evaluate.include_path", "correct the path", "evaluate.include_path=nothing"),
    Case("missing text", "evaluate.texts.0.data.path", "correct the path",
         "evaluate.texts=[{name: a, data: {type: text, path: nothing.txt}}]"),
    Case("drift of two things", "evaluate.texts.0.name", "another name", "mitigation=[{type: context_free}]",
         "evaluate.texts=[{name: context_free, drift: true, data: {type: text, path: nothing.txt}}]"),
    # machine
    Case("storage that is a file", "storage", "give a folder", "storage=qa.jsonl"),
    Case("unwritable storage", "storage", "may write to", "storage=/proc/continual"),
    Case("object storage", "storage", "shared file system", "storage=s3://bucket/runs"),
    Case("too many CPUs", "train.cpus_per_worker", "train.cpus_per_worker: 0.5", "train.cpus_per_worker=1",
         "train.workers=2"),
    Case("too many engines", "generate.replicas", "generate.replicas: 1", "generate.replicas=2"),
    Case("too many evaluators", "evaluate.replicas", "at most 2", "evaluate.replicas=3"),
    Case("no GPU to evaluate", "evaluate.gpus", "RAY_ADDRESS", "evaluate.gpus=1"),
    Case("no GPUs to evaluate", "evaluate.replicas", "RAY_ADDRESS", "evaluate.gpus=1", "evaluate.replicas=2"),
    Case("no GPU", "train.gpus_per_worker", "RAY_ADDRESS", "train.gpus_per_worker=1"),
    Case("no GPU to sample", "generate.gpus_per_replica", "RAY_ADDRESS", "generate.gpus_per_replica=1"),
    Case("more workers than rows", "train.workers", "at most 8", "train.workers=9"),
    Case("no deepspeed file", "train.deepspeed", "name a JSON file", "train.strategy=deepspeed",
         "train.deepspeed=no.json"),
    Case("deepspeed conflict", "train.deepspeed", "leave them out", "train.strategy=deepspeed",
         "train.deepspeed={optimizer: {type: SGD}}"),
]  # fmt: skip


def test_the_good_project_passes(project: Path) -> None:
    notes = check(load_sequence("seq.yaml"))
    assert notes == ["nothing is measured: no stage has `tasks`, and there are no `evaluate.old_tasks` or `texts`"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(project: Path, case: Case) -> None:
    if case.make:
        case.make(project)
    with pytest.raises(ConfigurationError) as raised:
        check(load_sequence("seq.yaml", list(case.overrides)))
    error, message = raised.value, str(raised.value)
    assert error.exit_code == 2
    assert "\n" not in message
    assert "seq.yaml" in error.file or error.file == f"override `{case.overrides[0]}`"
    assert message.startswith(f"{error.file}: {case.key}")
    assert error.key == case.key or (case.key.startswith("line") and error.key.startswith(case.key))
    assert case.fix in (error.fix or error.problem), message
    assert len(message) < 500


def test_there_are_enough_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


def test_a_missing_file_and_a_folder_are_named(project: Path) -> None:
    for path in ("no.yaml", "model"):
        with pytest.raises(ConfigurationError, match=f"^{path}: .*; give the path"):
            load_sequence(path)


def test_the_number_of_further_problems_is_said(project: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\(and 2 more errors: train.workers: .*, generate.engine: [^,]*\)$"):
        load_sequence("seq.yaml", ["train.workers=x", "seed=y", "generate.engine=z"])


def test_a_hub_model_is_noted_where_the_network_may_be_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HOME", str(project / "cache"))
    loaded = load_sequence("seq.yaml", ["model.source=owner/model", data(type="hub", path="owner/set", text="t")])
    notes = check(loaded)
    assert any("`owner/model` comes from the hub" in note for note in notes)
    assert any("`owner/set` is not read before the run" in note for note in notes)


def test_a_cached_hub_model_is_checked_like_a_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(project / "hub"))
    cached = project / "hub" / "models--owner--model"
    write_model(cached / "snapshots" / "abc", vocabulary=63)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    with pytest.raises(ConfigurationError, match="largest id is 63"):
        check(load_sequence("seq.yaml", ["model.source=owner/model"]))


def test_end_of_text_in_place_of_bos_is_noted(project: Path) -> None:
    write_model(project / "model", bos_token=None)
    notes = check(load_sequence("seq.yaml"))
    assert "the tokenizer has no BOS: samples start with its end-of-text token `</s>`" in notes


def test_tasks_without_start_tokens_are_noted(project: Path) -> None:
    notes = check(load_sequence("seq.yaml", ["mitigation.0.start=tasks", "stages.0.start_token=null"]))
    assert any("replays nothing in stage `two`" in note for note in notes)


def test_a_task_may_come_again_in_a_later_stage(project: Path) -> None:
    again = ["stages.0.tasks=[arc_easy]", "stages.1.tasks=[arc_easy]"]
    assert all("HF_HUB_OFFLINE" in note for note in check(load_sequence("seq.yaml", again)))
    with pytest.raises(ConfigurationError, match="already with other options"):
        check(load_sequence("seq.yaml", [*again, "stages.1.tasks=[{name: arc_easy, metric: acc_norm}]"]))


@pytest.mark.parametrize("ratio", [f'mitigation=[{{type: "{HERE}:Refusing", ratio: 0.3}}]'])
def test_a_third_party_ratio_is_checked_too(project: Path, ratio: str) -> None:
    with pytest.raises(ConfigurationError, match="for whole rows"):
        check(load_sequence("seq.yaml", [ratio]))


def test_resources_of_a_cluster_are_left_to_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check(load_sequence("seq.yaml", ["train.workers=8", "train.cpus_per_worker=16", "train.gpus_per_worker=1"]))
