"""Envoy's two configurations from one source, in which `#> local`, `#> edge` and `#> both` begin sections."""

VARIANTS = {"local": "envoy.yaml", "edge": "edge.yaml"}
_MARK = "#> "


def variant(source: str, name: str) -> str:
    """Return the sections for one variant and for both. Raises ValueError for a section of another name."""
    section, kept = "both", []
    for number, line in enumerate(source.splitlines(), 1):
        if not line.startswith(_MARK):
            if section in ("both", name):
                kept.append(line)
            continue
        section = line.removeprefix(_MARK)
        if section not in ("both", *VARIANTS):
            raise ValueError(f"line {number}: there is no variant {section!r}")
    return "\n".join(kept) + "\n"
