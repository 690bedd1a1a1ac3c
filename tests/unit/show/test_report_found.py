"""Associations and forecasts on the page: their numbers are those of their files, and a damaged file is a sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from continual.cli.report import main
from continual.ledger.ledger import Ledger
from continual.show.report import write_report
from continual.store import Store
from tests.kits.associations import matrix_of, write_associations, write_forecast_of
from tests.kits.page import Read
from tests.kits.runs import KEPT, LOST, make_run
from tests.unit.show.test_report import at


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with two runs, of which one has a forecast, and with two associations."""
    storage = tmp_path_factory.mktemp("measured")
    make_run(storage, "kept", KEPT)
    _, folder = make_run(storage, "told", LOST, "mitigation=[]")
    write_forecast_of(folder)
    write_associations(storage / "texts")
    write_associations(storage / "answers", matrix_of(kind="lost"))
    return storage


def sections(page: Read) -> list[str]:
    return [values["aria-labelledby"] for values in page.all("section")]


def numbers_of(page: Read, name: str, file: Path) -> dict[str, float]:
    """The numbers of a folder that come from a file, by their place there; each is what the file has."""
    content = json.loads(file.read_text())
    found = {}
    for (of, key), (value, text) in page.numbers.items():
        if of == name and key.startswith(f"{file.name}#"):
            found[key.partition("#")[2]] = value
            assert value == at(content, key.partition("#")[2]), key
            assert float(text.replace(",", "")) == pytest.approx(value, abs=6e-4)
    return found


def test_the_forecast_of_a_run_is_in_its_page(measured: Path) -> None:
    page = Read(write_report([measured / "told"]))
    content = json.loads((measured / "told" / "forecast.json").read_text())
    found = numbers_of(page, "told", measured / "told" / "forecast.json")
    wanted = {"/mean", "/measured_mean", "/probes", "/interval/0", "/interval/1", "/error/bias", "/error/spread",
              "/error/tasks", "/error/scores/rmse/mean", "/error/scores/rmse/stderr"}  # fmt: skip
    assert set(found) == wanted | {f"/at_risk/{place}/change" for place in range(12)}
    assert "forecast" in sections(page)
    assert f"mean of the probes old {content['model']} 5" in page.text
    worst = content["at_risk"][0]
    how = "measured" if worst["measured"] else "forecast"
    assert f"how it is known {worst['document']} {worst['change']:+.4f} {how}" in page.text
    assert [link["href"][1:] for link in page.all("a")] == sections(page)


def test_a_run_without_a_forecast_says_nothing_of_one(measured: Path) -> None:
    page = Read(write_report([measured / "kept"], measured / "alone.html"))
    assert not {"forecast", "associations"} & set(sections(page))


def test_associations_alone_have_a_page(measured: Path) -> None:
    """Written by the associations themselves; its numbers are those of associations.json."""
    page = Read(measured / "texts" / "report.html")
    assert sections(page) == ["associations"]
    assert [link["href"] for link in page.all("a")] == ["#associations"]
    assert len(page.all("h1")) == 1
    content = json.loads((measured / "texts" / "associations.json").read_text())
    found = numbers_of(page, "texts", measured / "texts" / "associations.json")
    wanted = {"/tasks", "/documents", "/mean", "/probes", "/draws"}
    wanted |= {f"/r_squared/{rank}" for rank in range(1, 5)}
    wanted |= {f"/variance_explained/{name}" for name in ("additive", "multiplicative")}
    for key in ("destructive", "fragile"):
        count = len(content[key])
        wanted |= {f"/{key}/{place}/{kind}" for place in range(count) for kind in ("mean", "stderr")}
    for place in range(len(content["forecasts"])):
        wanted |= {f"/forecasts/{place}/{kind}" for kind in ("bias", "spread")}
        wanted |= {f"/forecasts/{place}/scores/rmse/{kind}" for kind in ("mean", "stderr")}
    assert set(found) == wanted
    assert "documents of old 12" in page.text
    assert "likeness of words (TF-IDF) is not computed" in page.text
    [picture] = page.all("img")
    assert picture["src"].startswith("data:image/png;base64,")
    assert len(picture["alt"]) > 40
    assert not (measured / "texts" / "report").exists()  # no figure is drawn that is not there already


def test_what_is_lost_of_answers_is_a_share(measured: Path) -> None:
    page = Read(measured / "answers" / "report.html")
    assert "forgotten, share of answers" in page.text
    assert "left out: the start model is wrong about them 3" in page.text
    assert "model F1 AUC mean is off by" in page.text


def test_a_storage_stands_for_its_runs_and_its_associations(measured: Path, tmp_path: Path) -> None:
    page = Read(write_report([measured], tmp_path / "all.html"))
    assert {"figures", "forecast", "associations"} <= set(sections(page))
    assert "2 runs compared" in page.text
    assert "mean of the probes mitigation: none old" in page.text  # what the run is called beside the other
    assert {of for of, _ in page.numbers} == {"kept", "told", "texts", "answers"}
    assert [link["href"][1:] for link in page.all("a")] == sections(page)


def test_a_storage_of_associations_alone_has_a_page(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("texts", "answers"):
        shutil.copytree(measured / name, tmp_path / "storage" / name)
    monkeypatch.chdir(tmp_path)
    assert main(["storage"]) == 0
    assert capsys.readouterr().out == "report: report.html\n"
    page = Read(tmp_path / "report.html")
    assert "2 associations" in page.text
    assert [path.name for path in tmp_path.iterdir() if path.name != "storage"] == ["report.html"]


def test_what_earlier_versions_wrote_is_shown(measured: Path, tmp_path: Path) -> None:
    """Without the name of the text and the number of documents that are left out."""
    shutil.copytree(measured / "texts", tmp_path / "texts")
    file = tmp_path / "texts" / "associations.json"
    known = json.loads(file.read_text())
    del known["upstream"], known["wrong_before"]
    file.write_text(json.dumps(known))
    page = Read(write_report([tmp_path / "texts"]))
    assert "documents 12" in page.text


def test_changes_that_are_all_equal_have_a_page(tmp_path: Path) -> None:
    matrix = matrix_of()
    matrix.change[:] = 0.25
    write_associations(tmp_path / "flat", matrix)
    assert "All changes are equal: there is nothing to explain." in Read(tmp_path / "flat" / "report.html").text


def test_a_picture_that_is_damaged_or_gone_is_left_out(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "texts"
    shutil.copytree(measured / "texts", folder)
    picture = folder / "associations.png"
    picture.write_bytes(picture.read_bytes()[:-100])
    assert Read(write_report([folder])).all("img") == []
    assert capsys.readouterr().err == f"note: {picture} is damaged and left out of the report\n"
    picture.unlink()
    assert Read(write_report([folder])).all("img") == []
    assert capsys.readouterr().err == ""


DAMAGE: list[Any] = [
    "", "{", "[]", "null", '{"kind": "nats"}', b"\0\0\0\0", b"\xff\xfe",
]  # fmt: skip


def changed(content: dict[str, Any]) -> list[str]:
    """The content with each of its values, and each one inside of lists and objects, replaced by what it never is."""
    found = []
    for name, value in content.items():
        others: list[Any] = [[0], {"x": "y"}, "nowhere"]
        if isinstance(value, list) and isinstance(value[0], dict):
            others += [[{**value[0], key: [1]}, *value[1:]] for key in value[0]]
        found += [json.dumps({**content, name: other}) for other in others]
        found.append(json.dumps({key: each for key, each in content.items() if key != name}))
    return found


def test_damaged_associations_are_refused_in_a_sentence(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for damage in DAMAGE:
        (folder / "associations.json").write_bytes(damage if isinstance(damage, bytes) else damage.encode())
        assert main([str(folder)]) == 1
        error = capsys.readouterr().err
        assert f"{folder / 'associations.json'}: the stored file is damaged" in error
        assert error.count("\n") == 1
    for content in changed(json.loads((measured / "texts" / "associations.json").read_text())):
        (folder / "associations.json").write_text(content)
        assert main([str(folder)]) in (0, 1), content
        assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_forecast_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = make_run(tmp_path, "told", LOST, "mitigation=[]")
    write_forecast_of(folder)
    for damage in DAMAGE:
        (folder / "forecast.json").write_bytes(damage if isinstance(damage, bytes) else damage.encode())
        page = Read(write_report([folder], tmp_path / "page.html"))
        assert "forecast" not in sections(page)
        assert "figures" in sections(page)
        error = capsys.readouterr().err
        assert error.startswith(f"note: {folder / 'forecast.json'} is damaged and left out of the report; give")
        assert error.count("\n") == 1


def test_no_damaged_forecast_ends_the_report(tmp_path: Path) -> None:
    from continual.ledger.folder import RunFolder
    from continual.show.report.found import gather_forecast
    from continual.show.report.gather import gather
    from tests.unit.show.test_report_answers import render_page

    _, folder = make_run(tmp_path, "told", LOST, "mitigation=[]")
    write_forecast_of(folder)
    for content in changed(json.loads((folder / "forecast.json").read_text())):
        (folder / "forecast.json").write_text(content)
        if gather_forecast(RunFolder(folder)):
            render_page(gather(folder))


EXPECTED = {
    "matrix": "associations.parquet", "model": "factors", "probes": 3, "documents": 9, "mean": 0.25,
    "measured_mean": 0.125, "at_risk": [{"document": "4", "change": 1.5, "measured": False}],
}  # fmt: skip


def keep(storage: Path, replay: str, model: str = "m", **completion: Any) -> Path:
    """Store what `predicted_replay` keeps of a row that it has completed."""
    store = Store(storage / "store")
    inputs = {"models": ["start0", model], "replay": replay, "label": "predicted_replay", "matrix": "z", "probes": [1]}
    artefact = store.artefact("completions", inputs)
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        writer.finish(completion={**EXPECTED, **completion})
    return artefact.path / "manifest.json"


def test_what_a_stage_expected_in_its_middle_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What another run has kept, of another model or with another replay, is not."""
    _, folder = make_run(tmp_path, "online", KEPT)
    with Ledger(folder) as ledger:
        ledger.add("part", stage=2, step=8, model="m", inputs={"predicted_replay": ["rows", "teacher"]})
    assert "forecast" not in sections(Read(write_report([folder])))  # as earlier versions left it
    file = keep(tmp_path, "rows")
    keep(tmp_path, "other", mean=7.0)
    keep(tmp_path, "rows", "n", mean=8.0)
    page = Read(write_report([folder]))
    place = f"{file.relative_to(tmp_path)}#/completion"
    found = {key.removeprefix(place): value for (_, key), value in page.numbers.items() if "completions" in key}
    assert found == {
        "/probes": (3, "3"), "/documents": (9, "9"), "/mean": (0.25, "+0.2500"),
        "/measured_mean": (0.125, "+0.1250"), "/at_risk/0/change": (1.5, "+1.5000"),
    }  # fmt: skip
    assert "2 sort 8 predicted_replay associations.parquet factors" in page.text
    assert [link["href"][1:] for link in page.all("a")] == sections(page)
    assert capsys.readouterr().err == ""
    file.write_text(file.read_text().replace("0.25", "0.35"))
    assert "forecast" not in sections(Read(write_report([folder])))
    assert capsys.readouterr().err == f"note: {file} is damaged and left out of the report\n"
