"""A tail reads new whole lines only, and notices a file that is another one."""

import json
from pathlib import Path

from continual.ledger.lines import Tail, read_lines, write_line
from continual.ledger.records import Records


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_only_new_whole_lines_are_read(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "lines")
    assert list(tail.read()) == []
    append(tail.path, '{"a": 1}\n{"a": 2}\n{"a":')
    assert list(tail.read()) == [{"a": 1}, {"a": 2}]
    assert list(tail.read()) == []
    append(tail.path, " 3}\n")
    assert list(tail.read()) == [{"a": 3}]
    assert read_lines(tail.path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("1\nx\n2\n")
    assert read_lines(path) == [1, 2]
    tail = Tail(path)
    assert list(tail.read()) == [1, 2]
    assert (tail.damaged, tail.offset) == (1, 6)


def test_a_line_counts_as_read_when_the_next_is_asked_for(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "lines")
    append(tail.path, "1\n2\n3\n")
    for line in tail.read():
        if line == 2:
            break
    assert list(tail.read()) == [2, 3]


def test_a_replaced_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    path.write_text("1\n2\n3\n")
    assert list(tail.read()) == [1, 2, 3]
    for _ in range(2):  # a second replacement could get the first file's inode again
        new = tmp_path / "new"
        new.write_text("4\n5\n6\n7\n")
        new.replace(path)
        assert list(tail.read()) == [4, 5, 6, 7]


def test_a_shorter_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    path.write_text("1\n2\n3\n")
    assert list(tail.read()) == [1, 2, 3]
    path.write_text("4\n")
    assert list(tail.read()) == [4]


def test_a_file_that_disappears_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    path.write_text("1\n")
    assert list(tail.read()) == [1]
    path.unlink()
    assert list(tail.read()) == []


def test_what_is_written_is_read(tmp_path: Path) -> None:
    values = [{"text": "ä\u2028\n"}, [1.5, None], float("inf")]
    with (tmp_path / "lines").open("a") as file:
        for value in values:
            write_line(file, value, durable=True)
    assert read_lines(tmp_path / "lines") == values


def test_records_behind_a_checkpoint_are_dropped_and_followers_notice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first, tail = Records(path, 0), Tail(path)
    for step in (1, 2, 3):
        first.append({"step": step})
    assert [record["step"] for record in tail.read()] == [1, 2, 3]
    append(path, json.dumps({"step": 4}))
    again = Records(path, 2)
    again.append({"step": 3})
    assert [record["step"] for record in tail.read()] == [1, 2, 3]
    assert all(record["time"] > 0 for record in read_lines(path))
