"""No URLs, for processes that serve nothing."""

urlpatterns: list[object] = []
