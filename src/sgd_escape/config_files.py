"""Configuration files, read strictly: what Snakemake passes over in silence is an error."""

from pathlib import Path
from typing import Any

import yaml

from sgd_escape.errors import SgdEscapeError


class _StrictLoader(yaml.SafeLoader):
    """Plain values only: no key twice, of which YAML takes the last, and no alias."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "an alias (*) is not taken here", mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key is one word", key.start_mark)
            if key.value in lines:
                problem = f"the key {key.value} stands in line {lines[key.value]} already"
                raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node


def read_config_file(path: str | Path) -> dict[Any, Any]:
    """The keys and values in a YAML file, which may be a part of a configuration.

    Raises SgdEscapeError, one line with the file and the place in it, when the file cannot be
    read, is not YAML, holds no mapping, repeats a key, or is a template, in which Snakemake runs
    code.
    """
    try:
        content = _StrictLoader(Path(path).read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}. Name a file that can") from error
    # Whatever the library makes of a strange file, it is the file that is at fault.
    except Exception as error:
        raise _unusable(path, f"is not usable: {_place(error)}. Correct it there") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"is a {type(content).__name__}"
        raise _unusable(path, f"needs keys with their values at its top level, but {found}")
    if "__use_yte__" in content:
        raise _unusable(path, "is a template, in which any code may stand. Write values in it")
    return content


def _unusable(path: str | Path, fault: str) -> SgdEscapeError:
    line = " ".join(f"the configuration file {path} {fault}".split())
    return SgdEscapeError("".join(letter if letter.isprintable() else " " for letter in line))


def _place(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error) or type(error).__name__
    mark, advice = error.problem_mark, ""
    if "'\\t'" in str(error.problem):
        advice = "; indent by spaces, not by tabs"
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{advice}"
