"""Ray Data's settings, set where a data set is made: they travel with it to all processes that work on it."""


def set_context(in_order: bool = False) -> None:
    """Let the data sets that this process makes from now on show no progress bars, and raise exceptions as they are.

    Environment variables would not do: only a local cluster's processes have those of the driver, and Ray Data reads
    them when it is imported. `in_order`: blocks come in the order in which they were listed.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # they would fill the log
    context.raise_original_map_exception = True  # Ray Data's own exception keeps only the text
    # A shard may take hours on CPUs, and a worker may wait as long for samples; engines have `generate.still_seconds`.
    context.execution_no_progress_timeout_s = -1.0
    if in_order:
        context.execution_options.preserve_order = True
