import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sgd_escape import SgdEscapeError
from sgd_escape.config_files import read_config_file


def message_of(path) -> str:
    with pytest.raises(SgdEscapeError) as caught:
        read_config_file(path)
    message = str(caught.value)
    assert message.startswith(f"the configuration file {path} ")
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("content", "needs"),
    [
        ("seed: [1\n", "is not usable: line 2, column 1: expected ',' or ']'"),
        ("seed:\n\t- 1\n", "is not usable: line 2, column 1: .*; indent by spaces, not by tabs"),
        ("seed: 1\nfits: {}\nseed: 2\n", "line 3, column 1: the key seed stands in line 1 already"),
        ("fits: {a: 1, a: 2}", "line 1, column 14: the key a stands in line 1 already"),
        ("", "needs keys with their values at its top level, but is empty"),
        ("# a comment\n", "top level, but is empty"),
        ("- 1\n- 2\n", "top level, but is a list"),
        ("word", "top level, but is a str"),
        ("a: 1\n---\nb: 2\n", "is not usable: line 2, column 1: but found another document"),
        ("a: &a [*a]", r"line 1, column 8: an alias \(\*\) is not taken here"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", r"line 3, column 7: an alias \(\*\)"),
        ("? [a]\n: 1\n", "line 1, column 3: a key is one word"),
        ("seed: 2001-02-30\n", "is not usable: day is out of range"),
        ("seed: !!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("seed: !!python/name:os.system", "could not determine a constructor"),
        ("a: " + "9" * 5000, "is not usable: Exceeds the limit"),
        ("a: " + "[" * 2000, "is not usable: maximum recursion depth"),
        ("__use_yte__: true\nseed: ?1 + 1\n", "is a template, in which any code may stand"),
        (b"\xff\xfe\x00", "is not usable: 'utf-8' codec can't decode"),
        (b"seed: \x00", "is not usable: .*special characters are not allowed"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(content, needs, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SgdEscapeError, match=needs):
        read_config_file(path)
    message_of(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["absent", "folder", "loop"],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(make, reason, tmp_path):
    path = tmp_path / "study.yaml"
    make(path)
    assert f"cannot be read: {reason}. Name a file that can" in message_of(path)


def test_a_part_of_a_configuration_is_read_as_yaml_has_it(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("fits: {resamples: 100}\nseed: 3 # the seed\n")
    assert read_config_file(path) == {"fits": {"resamples": 100}, "seed": 3}


@given(
    st.binary(max_size=60)
    | st.text(alphabet="ab:[]{}-?&*!|>%@`\"'#,\n\t 0x1.e\u2028\x85", max_size=60).map(str.encode)
    | st.recursive(st.integers() | st.text(), st.lists).map(yaml.safe_dump).map(os.fsencode)
)
def test_whatever_the_file_holds_it_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "study.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(read_config_file(path), dict)
    except SgdEscapeError:
        message_of(path)
