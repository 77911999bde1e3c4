"""The admin, where the team works: waiting requests come first, with their text."""

from collections.abc import Callable, Iterator
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Case, QuerySet, When
from django.db.models.expressions import OrderBy
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.template.defaultfilters import pluralize
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_POST

from . import rendering
from .models import (
    Digest,
    DigestSubscription,
    EmailLog,
    EmailTemplate,
    PrayerRequest,
    TransitionRefusedError,
)

admin.site.site_header = admin.site.site_title = "Prayer room"

Status = PrayerRequest.Status

DECIDE = "admin:prayer_room_api_prayerrequest_decide"


class WaitingFilter(admin.SimpleListFilter):
    """Shows what waits for the team, unless the reader asks for something else."""

    title = "status"
    parameter_name = "show"

    def __init__(
        self,
        request: HttpRequest,
        params: dict[str, Any],
        model: type[PrayerRequest],
        model_admin: admin.ModelAdmin,
    ) -> None:
        super().__init__(request, params, model, model_admin)
        # Without a chosen filter, a search looks everywhere.
        self.default = "all" if request.GET.get("q") else "waiting"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin
    ) -> list[tuple[str, str]]:
        number = PrayerRequest.objects.waiting().count()
        return [
            ("waiting", f"Waiting for us ({number})"),
            (Status.APPROVED.value, Status.APPROVED.label),
            (Status.ARCHIVED.value, Status.ARCHIVED.label),
            ("all", "All"),
        ]

    def value(self) -> str:
        asked = super().value()
        return asked if asked in dict(self.lookup_choices) else self.default

    def choices(self, changelist: Any) -> Iterator[dict[str, object]]:
        for value, title in self.lookup_choices:
            yield {
                "selected": value == self.value(),
                "query_string": changelist.get_query_string({"show": value}),
                "display": title,
            }

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[PrayerRequest]
    ) -> QuerySet[PrayerRequest]:
        shown = self.value()
        if shown == "waiting":
            return queryset.waiting()
        return queryset if shown == "all" else queryset.filter(status=shown)


@admin.register(PrayerRequest)
class PrayerRequestAdmin(admin.ModelAdmin):
    list_display_links = None
    list_filter = [WaitingFilter, "kind", "created_at"]
    list_per_page = 25
    list_select_related = ["author", "responded_by"]
    search_fields = ["name", "text", "response"]
    search_help_text = "Searches names, texts and responses"
    autocomplete_fields = ["author"]
    # Only decisions change the status: they know which one can follow.
    readonly_fields = [
        "reader",
        "status",
        "status_changed_at",
        "flag_count",
        "responded_at",
        "responded_by",
        "created_at",
        "updated_at",
    ]
    actions = ["approve", "archive", "reopen"]

    class Media:
        css = {"all": ["prayer_room_api/moderation.css"]}

    # --- The list -------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        title = {"title": "Prayer requests"}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def get_list_display(
        self, request: HttpRequest
    ) -> list[Callable[[PrayerRequest], SafeString]]:
        @admin.display(description="Request")
        def card(prayer_request: PrayerRequest) -> SafeString:
            return render_to_string(
                "admin/prayer_room_api/prayerrequest/card.html",
                {
                    "each": prayer_request,
                    "decisions": self._decisions(request, prayer_request),
                    "filters": request.GET.urlencode(),
                },
            )

        return [card]

    def get_ordering(self, request: HttpRequest) -> list[str | OrderBy]:
        # As in `PrayerRequest.waiting_since`; the longest wait comes first.
        waiting_since = Case(
            When(status__in=PrayerRequest.UNDECIDED, then="status_changed_at"),
            default="flagged_again_at",
        )
        return [waiting_since.asc(nulls_last=True), "-created_at", "-pk"]

    @admin.action(description="Approve the selected requests", permissions=["change"])
    def approve(self, request: HttpRequest, queryset: QuerySet[PrayerRequest]) -> None:
        self._decide_all(request, queryset, Status.APPROVED)

    @admin.action(description="Archive the selected requests", permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet[PrayerRequest]) -> None:
        self._decide_all(request, queryset, Status.ARCHIVED)

    @admin.action(description="Reopen the selected requests", permissions=["change"])
    def reopen(self, request: HttpRequest, queryset: QuerySet[PrayerRequest]) -> None:
        self._decide_all(request, queryset, Status.PENDING)

    def _decide_all(
        self, request: HttpRequest, queryset: QuerySet[PrayerRequest], status: str
    ) -> None:
        if made := sum(self._decide(request, each, status) for each in queryset):
            text = f"{made} request{pluralize(made)} {status}."
            self.message_user(request, text, messages.SUCCESS)

    # --- Decisions ------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        decide = self.admin_site.admin_view(require_POST(self.decide))
        name = DECIDE.partition(":")[2]
        ours = path("<int:pk>/make/<str:status>/", decide, name=name)
        return [ours, *super().get_urls()]

    def decide(self, request: HttpRequest, pk: int, status: str) -> HttpResponse:
        """Approve, archive or reopen a request with its button in the list."""
        prayer_request = get_object_or_404(PrayerRequest, pk=pk)
        if not self.has_change_permission(request, prayer_request):
            raise PermissionDenied
        filters = request.GET.urlencode()
        return self._decide_one(request, prayer_request, status, filters)

    def response_change(self, request: HttpRequest, obj: PrayerRequest) -> HttpResponse:
        """Approve or archive a request with its button beside the text."""
        if (status := request.POST.get("_decide")) is None:
            return super().response_change(request, obj)
        filters = request.GET.get("_changelist_filters", "")
        return self._decide_one(request, obj, status, filters)

    def _decisions(
        self, request: HttpRequest, prayer_request: PrayerRequest
    ) -> list[tuple[str, str]]:
        """Return the statuses the request can change to, with their buttons' labels."""
        if not self.has_change_permission(request, prayer_request):
            return []
        approve = "Approve"
        if prayer_request.flagged_again_at:
            approve = "Keep on the list"
        elif prayer_request.status == Status.FLAGGED:
            approve = "Put back on the list"
        return [
            (status.value, label)
            for status, label in (
                (Status.APPROVED, approve),
                (Status.ARCHIVED, "Archive"),
                (Status.PENDING, "Reopen"),
            )
            if prayer_request.can_become(status)
        ]

    def _decide(
        self, request: HttpRequest, prayer_request: PrayerRequest, status: str
    ) -> bool:
        try:
            prayer_request.move_to(status)
        except TransitionRefusedError as error:
            self.message_user(request, f"{prayer_request}: {error}", messages.WARNING)
            return False
        self.log_change(request, prayer_request, f"Marked {status}.")
        return True

    def _decide_one(
        self,
        request: HttpRequest,
        prayer_request: PrayerRequest,
        status: str,
        filters: str,
    ) -> HttpResponseRedirect:
        """Decide, say so, and go back to the list as it was."""
        lists = reverse("admin:prayer_room_api_prayerrequest_changelist")
        filters = f"?{filters}" if filters else ""
        # What was flagged again waits for the team once more, but off the list.
        again = prayer_request.flagged_again_at
        before = Status.FLAGGED if again else Status(prayer_request.status)
        if self._decide(request, prayer_request, status):
            text = format_html(
                '\N{LEFT DOUBLE QUOTATION MARK}<a href="{}">{}</a>'
                "\N{RIGHT DOUBLE QUOTATION MARK} is {}.",
                f"{lists}{prayer_request.pk}/change/",
                Truncator(prayer_request.text).chars(50),
                {
                    Status.APPROVED: "approved: it is on the public list",
                    Status.ARCHIVED: "archived: it is on no list",
                    Status.PENDING: "pending: it waits for us",
                    Status.FLAGGED: "flagged: it waits for us",
                }[Status(status)],
            )
            if status == Status.ARCHIVED:
                # In the list's form, whose CSRF token it sends.
                text += format_html(
                    ' <button class="undo" form="changelist-form" formaction="{}{}">'
                    "Undo</button>",
                    reverse(DECIDE, args=[prayer_request.pk, before]),
                    filters,
                )
            self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(f"{lists}{filters}")

    # --- One request ----------------------------------------------------------------

    def get_fieldsets(
        self, request: HttpRequest, obj: PrayerRequest | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        itself = ["kind", "name", "text", "author"]
        if obj is None:
            return [(None, {"fields": itself})]
        return [
            ("Respond", {"fields": ["reader", "response"]}),
            ("Correct the request", {"fields": itself, "classes": ["collapse"]}),
            (
                "What happened",
                {
                    "fields": [
                        *("status", "status_changed_at", "flag_count"),
                        *("responded_by", "responded_at", "created_at", "updated_at"),
                    ],
                    "classes": ["collapse"],
                },
            ),
        ]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        *args: Any,
        obj: PrayerRequest | None = None,
        **kwargs: Any,
    ) -> HttpResponse:
        context["decisions"] = self._decisions(request, obj) if obj else []
        context["show_save_and_add_another"] = False
        context["show_save_and_continue"] = False
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    @admin.display(description="Who receives it")
    def reader(self, prayer_request: PrayerRequest) -> str:
        if reason := self._why_nobody(prayer_request):
            return format_html('<strong class="nobody">Nobody</strong>: {}.', reason)
        digests = " and the ".join(prayer_request.digests_of_the_author())
        return f"{prayer_request.author}, in the {digests} digest."

    def _why_nobody(self, prayer_request: PrayerRequest) -> str:
        """Return why nobody would receive a response, or nothing."""
        author = prayer_request.author
        if not author:
            return "it was posted without logging in"
        if not prayer_request.digests_of_the_author():
            return f"{author} receives no digest of responses"
        return ""

    def save_model(
        self, request: HttpRequest, obj: PrayerRequest, form: ModelForm, change: bool
    ) -> None:
        if "response" in form.changed_data:
            if obj.response:
                obj.respond(obj.response, request.user)
                if reason := self._why_nobody(obj):
                    text = f"Response saved; nobody will receive it: {reason}."
                    self.message_user(request, text, messages.WARNING)
            else:
                obj.responded_at = obj.responded_by = None
        if change:
            # Not the status, which somebody else may be changing right now.
            answered = ["responded_at", "responded_by"]
            obj.save(update_fields=[*form.changed_data, *answered, "updated_at"])
        else:
            obj.save()


@admin.register(DigestSubscription)
class DigestSubscriptionAdmin(admin.ModelAdmin):
    list_display = ["user", "digest", "created_at"]
    list_filter = ["digest"]
    search_fields = ["user__username", "user__email"]
    autocomplete_fields = ["user"]


@admin.register(EmailTemplate)
class EmailTemplateAdmin(admin.ModelAdmin):
    list_display = ["digest", "subject", "updated_at"]

    class Media:
        css = {"all": ["prayer_room_api/moderation.css"]}

    def get_urls(self) -> list[URLPattern]:
        preview = self.admin_site.admin_view(xframe_options_sameorigin(self.preview))
        name = "prayer_room_api_emailtemplate_preview"
        return [path("<int:pk>/preview/", preview, name=name), *super().get_urls()]

    def preview(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show a template with made-up requests: as it is saved, or as it is typed."""
        template = get_object_or_404(EmailTemplate, pk=pk)
        if not self.has_view_or_change_permission(request, template):
            raise PermissionDenied
        digest = request.POST.get("digest", template.digest)
        words = [request.POST.get(x, getattr(template, x)) for x in ("subject", "body")]
        problem = rendering.check(digest, *words)
        email = None if problem else rendering.sample(digest, *words)
        response = render(
            request,
            "admin/prayer_room_api/emailtemplate/preview.html",
            {"email": email, "problem": problem},
        )
        # A template can have any HTML in it.
        response["Content-Security-Policy"] = (
            "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        )
        return response

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        *args: Any,
        obj: EmailTemplate | None = None,
        **kwargs: Any,
    ) -> HttpResponse:
        if obj:
            context["placeholders"] = rendering.placeholders(obj.digest)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)


@admin.register(EmailLog)
class EmailLogAdmin(admin.ModelAdmin):
    """The email log, read-only."""

    list_display = ["recipient", "which", "status", "covers_until"]
    list_filter = ["status", "digest", "claimed_at"]
    search_fields = ["recipient", "error", "task_id"]
    date_hierarchy = "created_at"
    # Not the period: it is a key, with microseconds for a moderator digest.
    fields = [
        *("recipient", "digest", "covers_until", "status", "error", "attempts"),
        *("claimed_at", "created_at", "updated_at", "task_id"),
    ]

    class Media:
        css = {"all": ["prayer_room_api/moderation.css"]}

    @admin.display(description="Digest", ordering="digest")
    def which(self, log: EmailLog) -> str:
        return Digest(log.digest).short

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: EmailLog | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: EmailLog | None = None
    ) -> bool:
        return False
