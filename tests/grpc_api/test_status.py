"""Every error of the tree has a gRPC status, and a caller gets a fitting error back."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from core import errors
from grpc_api.status import error_of, status_of

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NearfeedError)]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_of_the_tree_names_a_status_that_exists(kind: type[errors.NearfeedError]) -> None:
    assert status_of(kind("found, expected")).name == kind.grpc_status


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InputError, 2),
        (grpc.StatusCode.UNAVAILABLE, errors.NotReady, 1),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.NotReady, 1),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.NearfeedError, 1),
    ],
)
def test_what_a_caller_was_told_becomes_an_error_with_an_exit_code(
    code: grpc.StatusCode, kind: type[errors.NearfeedError], exit_code: int
) -> None:
    error = error_of(AioRpcError(code, Metadata(), Metadata(), details="found x, expected y"))
    assert type(error) is kind
    assert error.exit_code == exit_code
    assert "found x, expected y" in str(error)
