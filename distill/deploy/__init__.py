from pathlib import Path


def is_bundle(folder: str | Path) -> bool:
    """Whether the folder is one that `bundle.write_bundle` wrote."""
    return all((Path(folder) / name).is_file() for name in ("golden.json", "settings.json"))
