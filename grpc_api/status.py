"""From an error to what the caller is told, for every call of every service, and back again on the caller's side.

What the client may know and what the operator must know are two decisions. An error of our own tree
says by itself which gRPC status it is, and its message is written for the caller. Anything else
becomes a bare INTERNAL "internal error", and the traceback goes to the log only.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, cast

import grpc
from grpc.aio import ServicerContext

from core.errors import InputError, NearfeedError, NotReady
from core.telemetry import REQUEST_SECONDS

INTERNAL_MESSAGE: Final = "internal error"

_log = logging.getLogger(__name__)

Method = Callable[[Any, "ServicerContext[Any, Any]"], Awaitable[Any]]


def status_of(error: NearfeedError) -> grpc.StatusCode:
    """The gRPC status that an error of the tree names."""
    return grpc.StatusCode[error.grpc_status]


def error_of(refused: grpc.aio.AioRpcError) -> NearfeedError:
    """The error of the tree for what a caller was told, so that a command can end with one line and a code."""
    told = f"{refused.code().name}: {refused.details()}"
    if refused.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return InputError(told)
    if refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return NotReady(f"{told}; is the server up (`nearfeed serve`), and is its address the one in the settings?")
    return NearfeedError(told)


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Every unary call ends with a status that its error names; how long it took is counted by method and status."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:  # unknown method, or a stream (reflection, health watch)
            return handler
        method = handler_call_details.method.rsplit("/", 1)[-1]
        return grpc.unary_unary_rpc_method_handler(
            _answered(cast(Method, handler.unary_unary), method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _answered(call: Method, method: str) -> Method:
    async def answer(request: Any, context: "ServicerContext[Any, Any]") -> Any:
        started = time.monotonic()
        status = "OK"
        try:
            return await call(request, context)
        except asyncio.CancelledError:  # the client went away, or its deadline passed
            status = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            status = context.code().name
            raise
        except NearfeedError as error:
            status = error.grpc_status
            await _abort(context, status_of(error), str(error))
        except Exception:
            status = "INTERNAL"
            _log.exception("call.failed method=%s", method)
            await _abort(context, grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE)
        finally:
            REQUEST_SECONDS.labels(method, status).observe(time.monotonic() - started)

    return answer


async def _abort(context: "ServicerContext[Any, Any]", code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort returned")
