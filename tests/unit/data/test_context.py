"""Ray Data's settings: the installed Ray knows them, and none ends a stage that only takes long."""

from dataclasses import fields

from ray.data import DataContext

from continual.data.context import set_context


def test_a_stage_may_wait_longer_than_ray_data_would() -> None:
    known = {field.name for field in fields(DataContext)}
    assert {"execution_no_progress_timeout_s", "enable_progress_bars", "raise_original_map_exception"} <= known
    before = DataContext.get_current()
    try:
        with DataContext.current(before.copy()):
            set_context()
            assert DataContext.get_current().execution_no_progress_timeout_s <= 0  # without an end
    finally:
        assert DataContext.get_current() is before
