"""Of the models that drift is measured from, one is in memory at a time."""

import weakref

from continual.evaluation.starts import Starts


class Model:
    def __init__(self) -> None:
        self.itself = self


def test_one_model_is_in_memory_at_a_time_and_the_scored_one_is_not_loaded_again() -> None:
    loaded: list[str] = []
    alive: list[weakref.ref[Model]] = []

    def load(folder: str) -> Model:
        assert not any(of() for of in alive), "the last one has not made room"
        loaded.append(folder)
        alive.append(weakref.ref(model := Model()))
        return model

    own = Model()
    starts = Starts("own", own, load)
    for folder in ("a", "a", "own", "a", "b", "own", "b", "a"):
        assert (starts.get(folder) is own) == (folder == "own")
    assert loaded == ["a", "b", "a"]
    starts.close()
    assert not any(of() for of in alive)
