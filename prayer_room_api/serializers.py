from rest_framework import serializers

from .models import PrayerRequest


class PublicSerializer(serializers.ModelSerializer):
    """What anyone can read and post."""

    class Meta:
        model = PrayerRequest
        fields = ["id", "kind", "name", "text", "status", "created_at"]
        read_only_fields = ["status", "created_at"]
        # What the browsable API's form begins with; else it would be null.
        extra_kwargs = {"kind": {"initial": PrayerRequest.Kind.PRAYER}}


class StaffSerializer(serializers.ModelSerializer):
    """The whole request, for the team."""

    author = serializers.StringRelatedField()
    responded_by = serializers.StringRelatedField()

    class Meta:
        model = PrayerRequest
        fields = [
            *PublicSerializer.Meta.fields,
            "author",
            "status_changed_at",
            "flag_count",
            "flagged_again_at",
            "response",
            "responded_at",
            "responded_by",
            "updated_at",
        ]
        read_only_fields = fields


class ResponseSerializer(serializers.ModelSerializer):
    """The team's answer, which must not be empty."""

    class Meta:
        model = PrayerRequest
        fields = ["response"]
        extra_kwargs = {"response": {"required": True, "allow_blank": False}}
