"""Stands in for the tests that assert on a mocked `app.start()`."""

from unittest.mock import Mock, patch

from django_prodserver.backends.workers import celery


class TestCeleryWorker:
    @patch("django_prodserver.backends.workers.celery.import_string")
    def test_args(self, import_string):
        import_string.return_value = Mock()
        assert celery.CeleryWorker(APP="a.b", ARGS={"pool": "solo"}).args == [
            "--pool=solo"
        ]

    @patch("django_prodserver.backends.workers.celery.import_string")
    def test_start_server(self, import_string):
        import_string.return_value = app = Mock()
        celery.CeleryWorker(APP="a.b").start_server("--pool=solo")

        app.start.assert_called_once_with(argv=["worker", "--pool=solo"])

    def test_name(self):
        assert celery.CeleryWorker.__name__ == "CeleryWorker"
