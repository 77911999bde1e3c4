from typing import Any

from django.db.models import QuerySet
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, PermissionDenied, ValidationError
from rest_framework.permissions import (
    AllowAny,
    BasePermission,
    DjangoModelPermissions,
    IsAdminUser,
)
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet

from .models import PrayerRequest, TransitionRefusedError, may_read_requests
from .serializers import PublicSerializer, ResponseSerializer, StaffSerializer
from .throttling import Quota

Status = PrayerRequest.Status


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class MayChange(DjangoModelPermissions):
    """Requires the permission to change a request, as the admin's form does."""

    perms_map = {"POST": ["%(app_label)s.change_%(model_name)s"]}


class PrayerRequestViewSet(
    mixins.CreateModelMixin,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    GenericViewSet,
):
    """Requests: anyone posts, reads and flags; the team does the rest."""

    queryset = PrayerRequest.objects.select_related("author", "responded_by")
    # A larger number fits no key, and Django 4.2 would ask the database anyway.
    lookup_value_regex = "[0-9]{1,18}"
    permission_classes = [IsAdminUser, MayChange]
    public_actions = frozenset({"create", "list", "retrieve", "flag"})
    throttle_scopes = {"create": "submit", "flag": "flag"}
    # What a request can count against; its outcome decides: see finalize_response.
    quotas: list[Quota] = []

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Read the whole body before any query: a slow body then holds no connection to
        # the database, and one that is too large is not read.
        _ = request.body
        super().initial(request, *args, **kwargs)

    def get_permissions(self) -> list[BasePermission]:
        if self.action in self.public_actions:
            return [AllowAny()]
        return super().get_permissions()

    def get_throttles(self) -> list[Quota]:
        if scope := self.throttle_scopes.get(self.action):
            self.quotas = [Quota(scope), Quota("refused")]
        return self.quotas

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        code = response.status_code
        if self.quotas and code != status.HTTP_429_TOO_MANY_REQUESTS:
            accepted, refused = self.quotas
            if status.is_success(code):
                accepted.count()
            elif status.is_client_error(code):
                refused.count()
        return super().finalize_response(request, response, *args, **kwargs)

    def get_serializer_class(self) -> type[BaseSerializer]:
        if self.action != "create" and may_read_requests(self.request.user):
            return StaffSerializer
        return PublicSerializer

    def get_queryset(self) -> QuerySet[PrayerRequest]:
        requests = super().get_queryset()
        if self.action == "list":
            return requests.filter(status=self._status_asked_for())
        if self.action == "flag":
            # Somebody's open page may still show what another has just flagged.
            return requests.filter(status__in=[Status.APPROVED, Status.FLAGGED])
        if not may_read_requests(self.request.user):
            return requests.filter(status=Status.APPROVED)
        return requests

    def perform_create(self, serializer: BaseSerializer) -> None:
        user = self.request.user
        serializer.save(author=user if user.is_authenticated else None)

    @action(detail=True, methods=["post"])
    def flag(self, request: Request, pk: str) -> Response:
        """Ask the team to look at a request again."""
        try:
            self.get_object().flag()
        except TransitionRefusedError as error:
            raise Conflict(str(error)) from error
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Put a request on the public list."""
        return self._move_to(Status.APPROVED)

    @action(detail=True, methods=["post"])
    def archive(self, request: Request, pk: str) -> Response:
        """Take a request off all lists."""
        return self._move_to(Status.ARCHIVED)

    @action(detail=True, methods=["post"])
    def respond(self, request: Request, pk: str) -> Response:
        """Answer a request; its author reads it in the next digest."""
        prayer_request = self.get_object()
        answer = ResponseSerializer(data=request.data)
        answer.is_valid(raise_exception=True)
        prayer_request.respond(answer.validated_data["response"], request.user)
        prayer_request.save(
            update_fields=["response", "responded_at", "responded_by", "updated_at"]
        )
        return Response(self.get_serializer(prayer_request).data)

    def _move_to(self, status: Status) -> Response:
        prayer_request = self.get_object()
        try:
            prayer_request.move_to(status)
        except TransitionRefusedError as error:
            raise Conflict(str(error)) from error
        return Response(self.get_serializer(prayer_request).data)

    def _status_asked_for(self) -> Status:
        asked = self.request.query_params.get("status", Status.APPROVED)
        if asked not in Status.values:
            raise ValidationError({"status": f"Choose one of {', '.join(Status)}."})
        if asked != Status.APPROVED and not may_read_requests(self.request.user):
            raise PermissionDenied("Only the team can see unapproved requests.")
        return Status(asked)
