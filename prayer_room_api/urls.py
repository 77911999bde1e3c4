from django.contrib import admin
from django.urls import include, path
from rest_framework.routers import SimpleRouter

from .page import page
from .views import PrayerRequestViewSet

router = SimpleRouter()
router.register("requests", PrayerRequestViewSet, basename="request")

# /healthz is not here: it is a middleware, see health.py.
urlpatterns = [
    path("", page, name="page"),
    path("api/", include(router.urls)),
    path("admin/", admin.site.urls),
]
