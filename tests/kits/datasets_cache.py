"""A cache of `datasets` as loading from the hub leaves it."""

from pathlib import Path

import datasets
from datasets.arrow_writer import ArrowWriter


def ready(cache: Path, name: str, commit: str, texts: list[str], subset: str = "default") -> Path:
    """Make a data set ready in one configuration and the split `train`; return its folder."""
    owner, _, last = name.rpartition("/")
    last = datasets.naming.camelcase_to_snakecase(last)
    folder = cache / f"{owner}___{last}" / subset / "0.0.0" / commit
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"text": datasets.Value("string")})
    with ArrowWriter(path=str(folder / f"{last}-train.arrow"), features=features) as writer:
        for text in texts:
            writer.write({"text": text})
        examples, size = writer.finalize()
    split = datasets.SplitInfo("train", num_bytes=size, num_examples=examples, dataset_name=last)
    datasets.DatasetInfo(
        features=features,
        splits=datasets.SplitDict({"train": split}),
        builder_name="json",
        dataset_name=last,
        config_name=subset,
        version="0.0.0",
    ).write_to_directory(str(folder))
    return folder
