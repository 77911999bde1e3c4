from django import forms

from .models import PrayerRequest


class RequestForm(forms.ModelForm):
    """What a visitor can post on the page."""

    template_name = "prayer_room_api/form.html"

    class Meta:
        model = PrayerRequest
        fields = ["kind", "text", "name"]
        labels = {
            "kind": "What is it?",
            "text": "Your request",
            "name": "Your name, if you like",
        }
        help_texts = {"name": ""}
        widgets = {
            "kind": forms.RadioSelect,
            "text": forms.Textarea(attrs={"rows": 4}),
            "name": forms.TextInput(attrs={"autocomplete": "name"}),
        }
