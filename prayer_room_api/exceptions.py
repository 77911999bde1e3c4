"""The API's answers to errors that REST framework leaves to Django's HTML pages."""

import logging
from typing import Any

from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.db import Error
from django.http import UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError, Throttled
from rest_framework.response import Response
from rest_framework.views import exception_handler

from .throttling import TooManyWrongPasswordsError

logger = logging.getLogger(__name__)


class BodyTooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The request body is too large."
    default_code = "too_large"


class DatabaseAway(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "The database does not answer."
    default_code = "unavailable"


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer to a view's exception, or None if the fault is ours."""
    answer = error
    if isinstance(error, RequestDataTooBig):
        answer = BodyTooLarge()
    elif isinstance(
        error,
        (BadRequest, MultiPartParserError, SuspiciousOperation, UnreadablePostError),
    ):
        answer = ParseError("The request cannot be read.")
    elif isinstance(error, TooManyWrongPasswordsError):
        answer = Throttled(error.wait, error.message)
    elif isinstance(error, Error):
        logger.error("The API cannot answer: %s", error)
        answer = DatabaseAway()
    return exception_handler(answer, context)
