"""Of a project that serves nothing."""

urlpatterns: list[object] = []
