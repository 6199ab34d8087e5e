"""Messages that a person can act on."""

import pytest

from bert_ops.errors import ArtifactError, BertOpsError, InputError, StorageError, ValidationFailed


def test_message_has_a_line_for_each_part():
    error = InputError("`a.b` is 3", allowed="1 to 2", remedy="lower `a.b`")
    assert str(error) == "`a.b` is 3\n  allowed: 1 to 2\n  remedy:  lower `a.b`"


def test_parts_that_are_not_given_leave_no_line():
    assert str(InputError("x")) == "x"
    assert str(InputError("x", remedy="y")) == "x\n  remedy:  y"


def test_each_kind_has_an_exit_code_of_its_own():
    kinds = [InputError, ArtifactError, ValidationFailed, StorageError]
    assert all(issubclass(kind, BertOpsError) for kind in kinds)
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes) and not {0, 1} & set(codes), "0 is success and 1 is Python's own failure"


def test_remedies_are_given_by_name():
    with pytest.raises(TypeError):
        InputError("what", "allowed")
