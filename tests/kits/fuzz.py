"""Seeded malformed inputs: configurations, overrides, sweeps and documents that are nearly right."""

import copy
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.kits.project import sequence

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3.5,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    10**18,
    10**40,
    -(10**300),
    float("inf"),
    float("nan"),
    "",
    " ",
    "x",
    "null",
    "1e5",
    "-",
    "~",
    "\0",
    "a\0b",
    "\ud7ff\uffff",
    "é\u202e🙂",
    "x" * 5000,
    "../" * 200,
    "/",
    "/dev/null",
    "/proc/self/mem",
    ".",
    "~root",
    "os:listdir",
    "builtins:input",
    "sys:exit",
    "a:b",
    ":",
    "x:",
    ":x",
    "http://",
    "https://user:secretword@host/x?token=abcdef",
    "s3://b/k",
    "file:///x",
    "{}",
    "{x",
    "{0}",
    "%s%n",
    "qa.jsonl",
    "model",
    "2024-01-01",
    "12:30",
    [],
    {},
    [[]],
    {"": ""},
    {"type": None},
    {"type": "jsonl"},
    {"type": 3},
    {"a": {"b": {"c": []}}},
    ["a", 1, None],
    [{}],
    list(range(300)),
    {"type": ["jsonl"]},
]
DEEP = 3000
TEXTS = [
    "name: &a [*a]",
    "a: &a {b: *a}",
    "- 1",
    "3",
    "null",
    "",
    "{",
    "[" * DEEP,
    "{a: " * DEEP,
    "a: !!python/object:os.x {}",
    "a: !!binary x",
    "a: !!timestamp 2024-01-01",
    "? [1]\n: 2",
    "a: 1\na: 2",
    "\ta: 1",
    "a: 'x",
    'a: "\\x',
    "%YAML 9.9\n---\na: 1",
    "---\na: 1\n---\nb: 2",
    "a: " + "9" * 6000,
    "a: " + "x" * 200_000,
    "<<: 1",
    "<<: [1, 2]",
    "a: *missing",
    "\ufeffname: x",
    "name: x\n" + "".join(f"k{n}: {n}\n" for n in range(5000)),
    "a: &x {" + ", ".join(f"k{n}: 0" for n in range(300)) + "}",
]
DOCUMENTS = ["question", "answer", "text", "messages", "prompt", "", "a\0", "x" * 300]
CELLS: list[Any] = [
    "w1 w2",
    "",
    " ",
    None,
    True,
    0,
    -1.5,
    float("nan"),
    float("inf"),
    "x" * 40_000,
    "\0",
    "\ud800",
    "é🙂",
    [],
    {},
    ["w1"],
    {"role": "user"},
    [{"role": "user", "content": "w1"}],
    [{"role": None}],
    10**30,
    [[[]]],
]


class Fuzz:
    """One seeded source of cases; every case writes its files into `folder` and returns a command and its arguments."""

    def __init__(self, seed: int, folder: Path):
        self.random, self.folder = Random(seed), folder
        self.kinds: list[Callable[[], tuple[str, list[str]]]] = [
            self.configuration,
            self.configuration,
            self.text,
            self.override,
            self.sweep,
            self.documents,
            self.documents,
        ]

    def case(self) -> tuple[str, list[str]]:
        return self.random.choice(self.kinds)()

    def configuration(self) -> tuple[str, list[str]]:
        """A valid sequence with a few values, keys or entries changed."""
        config = self._mutated(self._base(), self.random.randint(1, 3))
        self._write("seq.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return "run", ["seq.yaml", "--plan"]

    def text(self) -> tuple[str, list[str]]:
        """A YAML text that is damaged, or of another kind."""
        text = yaml.safe_dump(self._base(), sort_keys=False)
        kind = self.random.randrange(4)
        if kind == 0:
            text = self.random.choice(TEXTS)
        elif kind == 1:
            place = self.random.randrange(len(text))
            text = (
                text[:place]
                + self.random.choice(["\0", "\t", "{", "]", ": ", "\n", "'", "&", "*", "\x85", "-"])
                + text[place:]
            )
        elif kind == 2:
            text = text[: self.random.randrange(len(text))]
        data = text.encode("utf-8", "surrogatepass")
        if kind == 3:
            place = self.random.randrange(len(data))
            data = data[:place] + bytes([self.random.randrange(256)]) + data[place + 1 :]
        (self.folder / "seq.yaml").write_bytes(data)
        return "run", ["seq.yaml", "--plan"]

    def override(self) -> tuple[str, list[str]]:
        """Overrides of known and unknown keys with odd values."""
        self._write("seq.yaml", yaml.safe_dump(self._base(), sort_keys=False))
        keys = [".".join(map(str, path)) for path, _ in _places(self._base())]
        keys += [
            "",
            "=",
            "a..b",
            "stages.99.steps",
            "stages.-1.name",
            "stages.x",
            "track.uri",
            "name.x.y.z",
            "é",
            "x" * 2000,
        ]
        pairs = []
        for _ in range(self.random.randint(1, 3)):
            value = self.random.choice([*VALUES, *TEXTS])
            text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n...")[0]
            key = self.random.choice(keys)
            # A shell passes neither a NUL nor a word that begins with a hyphen as a positional argument.
            pairs.append(f"{key}={text}".replace("\0", "\\0").lstrip("-") or "x")
        return "run", ["seq.yaml", *pairs, "--plan"]

    def sweep(self) -> tuple[str, list[str]]:
        """A sweep with changed values over a valid sequence."""
        self._write("seq.yaml", yaml.safe_dump(sequence(), sort_keys=False))
        sweep = {
            "name": "sweep",
            "sequence": "seq.yaml",
            "metric": ["trained_tokens"],
            "seeds": [0, 1],
            "space": {"train.learning_rate": {"choice": [1e-4, 1e-5]}, "mitigation.0.weight": {"grid": [0.5, 1.0]}},
        }
        self._write("sweep.yaml", yaml.safe_dump(self._mutated(sweep, self.random.randint(1, 3)), sort_keys=False))
        return "tune", ["sweep.yaml", "--plan"]

    def documents(self) -> tuple[str, list[str]]:
        """A valid sequence over a file of documents that is not what it should be."""
        kind = self.random.choice(["jsonl", "jsonl", "csv", "parquet", "text"])
        data = {"jsonl": self._jsonl, "csv": self._csv, "parquet": self._parquet, "text": self._text}[kind]()
        name = {"jsonl": "d.jsonl", "csv": "d.csv", "parquet": "d.parquet", "text": "d.txt"}[kind]
        if self.random.random() < 0.25:
            data = self._damaged(data)
        if kind != "parquet" and self.random.random() < 0.2:
            data, name = gzip.compress(data), f"{name}.gz"
            data = self._damaged(data) if self.random.random() < 0.5 else data
        (self.folder / name).write_bytes(data)
        columns = {"prompt": "question", "completion": "answer"} if self.random.random() < 0.5 else {"text": "text"}
        source = {"type": kind, "path": name, **({} if kind == "text" else columns)}
        if self.random.random() < 0.3:
            source["on_bad"] = "skip"
        config = sequence(mitigation=[])
        config["stages"] = [{"name": "one", "data": source, self.random.choice(["steps", "epochs"]): 2}]
        self._write("seq.yaml", yaml.safe_dump(config, sort_keys=False))
        return "run", ["seq.yaml", "--plan"]

    def _base(self) -> dict[str, Any]:
        config = sequence()
        if self.random.random() < 0.5:
            text = {"type": "jsonl", "path": "qa.jsonl", "text": "answer"}
            config["evaluate"] = {"texts": [{"name": "t", "data": text}], "old_tasks": [], "limit": 3}
            config["track"] = {"uri": "sqlite:///x.db", "tags": {"a": "b"}}
        return copy.deepcopy(config)

    def _mutated(self, value: dict[str, Any], count: int) -> dict[str, Any]:
        for _ in range(count):
            places = _places(value)
            if not places:
                return value
            path, container = self.random.choice(places)
            key = path[-1]
            what = self.random.randrange(8)
            if what == 0 and isinstance(container, dict):
                container[_misspelled(str(key), self.random)] = container.pop(key)
            elif what == 1:
                del container[key]
            elif what == 2:
                container[key] = [copy.deepcopy(container[key])] * self.random.choice([1, 2, 50])
            elif what == 3:
                container[key] = {str(key): copy.deepcopy(container[key])}
            elif what == 4:
                _, other = self.random.choice(places)
                container[key] = copy.deepcopy(other)
            elif what == 5 and isinstance(container, dict):
                container[self.random.choice([*map(str, VALUES), "usual", "model_config"])[:400]] = 1
            else:
                container[key] = copy.deepcopy(self.random.choice(VALUES))
        return value

    def _row(self) -> dict[str, Any]:
        row = {"question": "w1", "answer": "w2 w3", "text": "w1 w2"}
        if self.random.random() < 0.5:
            row[self.random.choice(DOCUMENTS)] = self.random.choice(CELLS)
        return row

    def _jsonl(self) -> bytes:
        lines = [json.dumps(self._row()) for _ in range(self.random.choice([0, 1, 5, 60]))]
        odd = [
            "",
            "{",
            "[]",
            "3",
            "null",
            '"x"',
            "[" * 50_000,
            '{"text": ' * 20_000,
            "9" * 6000,
            '{"text": "' + "w1 " * 200_000 + '"}',
            '{"text": "a", "text": "b"}',
            "NaN",
            '{"text": NaN}',
            "\0",
            "{'text': 'x'}",
            '{"text": "\\ud800"}',
            "\ufeff{}",
        ]
        for _ in range(self.random.choice([0, 1, 2])):
            lines.insert(self.random.randint(0, len(lines)), self.random.choice(odd))
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    def _csv(self) -> bytes:
        out = io.StringIO()
        writer = csv.DictWriter(out, ["question", "answer", "text"], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for _ in range(self.random.choice([0, 1, 20])):
            writer.writerow({key: str(value).replace("\0", "") for key, value in self._row().items()})
        odd = ["", '"', 'a,"b', "a,b,c,d,e", ",,", "x" * 200_000, '"' + "x\n" * 5000, "\0", "a;b;c"]
        return (out.getvalue() + self.random.choice(["", *odd])).encode("utf-8", "surrogatepass")

    def _parquet(self) -> bytes:
        columns: dict[str, Any] = {"question": ["w1", "w2"], "answer": ["w1", None], "text": ["w1", "w2"]}
        odd = [
            [b"\xff", b"a"],
            [1, 2],
            [None, None],
            [[], ["a"]],
            [{"a": 1}, {"a": 2}],
            [float("nan"), 1.0],
            [True, False],
        ]
        columns[self.random.choice(["question", "answer", "text", "", "x"])] = self.random.choice(odd)
        if self.random.random() < 0.1:
            columns = {key: value[:0] for key, value in columns.items()}
        out = io.BytesIO()
        pq.write_table(pa.table(columns), out)
        return out.getvalue()

    def _text(self) -> bytes:
        return self.random.choice(
            [
                b"",
                b"\n\n\n",
                b"w1 w2\nw3\n",
                b"\xff\xfe\x00w",
                "é".encode("latin-1"),
                "w1 w2".encode("utf-16"),
                b"\0" * 1000,
                b"w1 " * 400_000,
                b"\xed\xa0\x80",
                b"\r\r\r",
                b" " * 100_000,
                "\u2028\u2029\x85".encode(),
            ]
        )

    def _damaged(self, data: bytes) -> bytes:
        if not data:
            return b"\xff"
        place = self.random.randrange(len(data))
        return self.random.choice(
            [
                data[:place],
                data[:place] + b"\xff" + data[place:],
                data[:place] + b"\0" + data[place + 1 :],
                b"\x1f\x8b" + data,
                b"PAR1" + data,
                data + b"PAR1",
                b"\xef\xbb\xbf" + data,
                data[::-1],
            ]
        )

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Return every place in a nested value: its path and the container that holds it."""
    if not isinstance(value, dict | list):
        return []
    found = []
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value))[:30]:
        found.append(((*path, key), value))
        if len(path) < 8:
            found += _places(item, (*path, key))
    return found


def _misspelled(key: str, random: Random) -> str:
    place = random.randrange(max(1, len(key)))
    return random.choice(
        [key[:place] + key[place + 1 :], key[:place] + "_" + key[place:], key.upper(), f"{key}s", f" {key}"]
    )
