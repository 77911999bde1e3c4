from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from .models import (
    DigestSubscription,
    EmailLog,
    EmailTemplate,
    PrayerRequest,
    TransitionRefusedError,
)

admin.site.site_header = admin.site.site_title = "Prayer room"


@admin.register(PrayerRequest)
class PrayerRequestAdmin(admin.ModelAdmin):
    list_display = ["__str__", "kind", "name", "status", "flag_count", "created_at"]
    list_filter = ["status", "kind", "created_at"]
    search_fields = ["name", "text", "response"]
    date_hierarchy = "created_at"
    autocomplete_fields = ["author"]
    # The status changes by the actions, which know what may follow what.
    readonly_fields = [
        "status",
        "status_changed_at",
        "flag_count",
        "responded_at",
        "responded_by",
        "created_at",
        "updated_at",
    ]
    actions = ["approve", "archive"]

    @admin.action(description="Approve the selected requests", permissions=["change"])
    def approve(self, request: HttpRequest, queryset: QuerySet[PrayerRequest]) -> None:
        self._move_to(request, queryset, PrayerRequest.Status.APPROVED)

    @admin.action(description="Archive the selected requests", permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet[PrayerRequest]) -> None:
        self._move_to(request, queryset, PrayerRequest.Status.ARCHIVED)

    def _move_to(
        self,
        request: HttpRequest,
        queryset: QuerySet[PrayerRequest],
        status: PrayerRequest.Status,
    ) -> None:
        moved = 0
        for prayer_request in queryset:
            try:
                prayer_request.move_to(status)
            except TransitionRefusedError as error:
                self.message_user(
                    request, f"{prayer_request}: {error}", messages.WARNING
                )
            else:
                self.log_change(request, prayer_request, f"Made {status}.")
                moved += 1
        if moved:
            self.message_user(request, f"{moved} made {status}.", messages.SUCCESS)

    def save_model(
        self, request: HttpRequest, obj: PrayerRequest, form: ModelForm, change: bool
    ) -> None:
        if "response" in form.changed_data:
            if obj.response:
                obj.respond(obj.response, request.user)
            else:
                obj.responded_at = obj.responded_by = None
        super().save_model(request, obj, form, change)


@admin.register(DigestSubscription)
class DigestSubscriptionAdmin(admin.ModelAdmin):
    list_display = ["user", "digest", "created_at"]
    list_filter = ["digest"]
    search_fields = ["user__username", "user__email"]
    autocomplete_fields = ["user"]


@admin.register(EmailTemplate)
class EmailTemplateAdmin(admin.ModelAdmin):
    list_display = ["digest", "subject", "updated_at"]


@admin.register(EmailLog)
class EmailLogAdmin(admin.ModelAdmin):
    """What happened, to be read and not to be changed."""

    list_display = ["recipient", "digest", "period", "status", "attempts", "claimed_at"]
    list_filter = ["status", "digest", "claimed_at"]
    search_fields = ["recipient", "error", "task_id"]
    date_hierarchy = "created_at"

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
