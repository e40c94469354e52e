"""What modern clients ask of tasks that they have handles of: the extension of tasks, SEP-2663.

None of these requests needs an upstream session: the task has its own.
"""

from collections.abc import Mapping

from ..bounds import PARAMS_MEMBERS
from ..errors import InvalidParams, MissingCapability
from ..exchange.tasks import Handles
from ..protocol import jsonrpc, lifting, revisions, tasks
from ..protocol.inbound import ModernRequest
from ..protocol.jsonrpc import Response
from .answers import Answer
from .request import ClientRequest

_DONE = b"{}"  # lifted, it says that it is complete


class TaskRequests:
    """Answers ``tasks/get``, ``tasks/update`` and ``tasks/cancel``."""

    def __init__(self, tasks: Handles) -> None:
        self._tasks = tasks

    async def answer(self, request: ClientRequest, modern: ModernRequest) -> Answer:
        """The answer to one of them.

        Raises:
            MissingCapability: the client has not declared the extension.
            InvalidParams: something is missing or malformed.
            UnknownTask: the caller has no such task.
        """
        if not tasks.declares(modern.capabilities):
            raise MissingCapability(tasks.REQUIRED)
        identifier = jsonrpc.read_string(modern.params.get("taskId"))
        if identifier is None:
            raise InvalidParams('"taskId" must be a string.')
        handle = self._tasks.find(identifier, request.principal.digest)
        request.session = handle.tag
        handle.come(request.caller)
        method, result = modern.request.method, _DONE
        if method == revisions.TASK_GET:
            await handle.look()
            await self._tasks.make_certain(handle)
            result = tasks.write_state(handle.state)
        elif method == revisions.TASK_UPDATE:
            answers = read_answers(modern, required=True)
            handle.check_answers(answers)
            await handle.answer(answers, request.caller)
        else:
            await handle.cancel()
        lifted = lifting.lift_result(result, handle.facts, None)
        response = Response(modern.request.id, result=lifted)
        return Answer(body=jsonrpc.write_response(modern.request.id, response))


def read_answers(modern: ModernRequest, *, required: bool = False) -> Mapping[str, bytes]:
    """The answers that came with the request, raw, by the key of their question.

    Raises:
        InvalidParams: they are not objects in an object, or too many, or missing where they are required.
    """
    raw = modern.params.get("inputResponses")
    if raw is None and not required:
        return {}
    answers = jsonrpc.read_object(raw)
    if len(answers) > PARAMS_MEMBERS:
        raise InvalidParams(f'"inputResponses" may have {PARAMS_MEMBERS} members.')
    if raw is None or raw[:1] != b"{" or any(answer[:1] != b"{" for answer in answers.values()):
        raise InvalidParams('"inputResponses" must be an object of objects.')
    return answers
