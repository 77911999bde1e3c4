from django.contrib import admin
from django.urls import include, path
from django.views.generic import TemplateView
from rest_framework.routers import SimpleRouter

from .page import page
from .views import PrayerRequestViewSet

icon = TemplateView.as_view(
    template_name="prayer_room_api/icon.svg", content_type="image/svg+xml"
)

router = SimpleRouter()
router.register("requests", PrayerRequestViewSet, basename="request")

# /healthz is not here: it is a middleware, see health.py.
urlpatterns = [
    path("", page, name="page"),
    # Browsers request this by themselves on the pages of the admin and the API.
    path("favicon.ico", icon),
    path("api/", include(router.urls)),
    path("admin/", admin.site.urls),
]
